package scale

import "fmt"

// What a figure is called where another is computed from it.
const (
	portsCreated = "ports created"
	portsBound   = "ports bound by their hosts"
	membersBound = "ports bound in the network of all hosts, each of which makes a member"
	memberOctets = membersBound + planOctets
	planOctets   = ", plan octets for one"
	hostsJoined  = "hosts joined: token, certificate, stream"
	costOfOne    = ", server's processor time for one"

	heapEmpty = "server's heap, empty store"
	heapPorts = "server's heap with all networks and ports, bound nowhere, no host"
	heapHosts = "server's heap with all hosts connected too"
	heapAll   = "server's heap with all ports bound too"

	idleLoad = "server's load when nothing changes (reports)"
	// reportOctets is of one that follows another on its stream: all but the first.
	reportOctets = "a report, mean"
	storeOctets  = "etcd's database, history included"
	changeCost   = "one change, server's processor time for each agent"
	coldOctets   = "cold start: octets of a resource, mean"

	backUnchanged = "all agents back after a restart of the server"
	backEmpty     = backUnchanged + ", empty"
	serverAnswers = ": server answers"
	serverLoaded  = ": server's processor time until it answers"
	serverTime    = ": server's processor time"
)

// figure is the value of a Figure by its name; 0 is none.
func (r *Result) figure(what string) float64 {
	for _, f := range r.Figures {
		if f.What == what {
			return f.Value
		}
	}
	return 0
}

// Projection is a number for a fleet that was not measured, and how it follows from what was.
type Projection struct {
	What  string  `json:"what"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	How   string  `json:"how"`
}

// The fleet that is projected.
const (
	largeHosts = 10_000
	largePorts = 1_000_000
)

// project works the large fleet out from the constants of this one. docs/scale.md explains each line and what it leaves out.
func (r *Result) project() {
	hosts, ports := float64(r.Hosts), float64(r.Ports)
	perPort := (r.figure(heapPorts) - r.figure(heapEmpty)) / ports
	perHost := (r.figure(heapHosts) - r.figure(heapPorts)) / hosts
	perBinding := (r.figure(heapAll) - r.figure(heapHosts)) / ports
	heap := largePorts*(perPort+perBinding) + largeHosts*perHost
	db := r.figure(storeOctets) / ports
	change := r.figure(changeCost)
	load := r.figure(backUnchanged+serverLoaded) / ports
	resume := (r.figure(backUnchanged+serverTime) - r.figure(backUnchanged+serverLoaded)) / hosts
	whole := (r.figure(backEmpty+serverTime) - r.figure(backEmpty+serverLoaded)) / hosts
	report := r.figure(reportOctets)
	bytes := func(v float64) string { return Figure{Value: v, Unit: "B"}.value() }
	add := func(what string, v float64, unit, how string, args ...any) {
		r.Projections = append(r.Projections, Projection{what, v, unit, fmt.Sprintf(how, args...)})
	}
	r.Projections = nil
	add("server's heap", heap, "B", "a port %s, its binding and reports %s, a connected host %s", bytes(perPort), bytes(perBinding), bytes(perHost))
	add("server's memory (RSS), collector's room included", 2*heap, "B", "twice the heap, as with GOGC=100, and etcd's database pages on top; up to five times where memory is plentiful")
	add("etcd's database", largePorts*db, "B", "%s a port, with its history of up to ten minutes", bytes(db))
	add("creating all ports, processor time", largePorts*r.figure(portsCreated+costOfOne)/1e6, "s", "%.0f us each, over all servers", r.figure(portsCreated+costOfOne))
	add("binding all ports, processor time", largePorts*r.figure(portsBound+costOfOne)/1e6, "s", "%.0f us each, at this fleet's spread", r.figure(portsBound+costOfOne))
	add("reports, processor time", r.figure(idleLoad)*largeHosts/hosts, "% of a core", "%.1f %% for %d hosts", r.figure(idleLoad), r.Hosts)
	add("reports, octets", report*largeHosts/3, "B/s", "%s every 3 s from each", bytes(report))
	add("one change to all agents, server's processor time", change*largeHosts/1000, "ms", "%.0f us for each", change)
	add("server's start, processor time", load*largePorts, "s", "%.1f us a port: load, decode, compile, hash", load*1e6)
	add("all agents back, unchanged, processor time", resume*largeHosts, "s", "%.2f ms each: handshake, hello, digests", resume*1e3)
	add("all agents back, empty, processor time", whole*largeHosts, "s", "%.2f ms each: the same and its whole plan", whole*1e3)
	add("a host that gains its first port of a network of all hosts, octets", r.figure(memberOctets)*largeHosts/hosts, "B", "%s with %d hosts: its port, to each member",
		bytes(r.figure(memberOctets)), r.Hosts)
	add("plan of a host with 1,000,000 ports", largePorts*(r.figure(coldOctets)+overheadOctets), "B", "%.0f B a resource, and %d around it", r.figure(coldOctets), overheadOctets)
}

// overheadOctets of a resource on the stream, beside its body: scope, uid, hash.
const overheadOctets = 110
