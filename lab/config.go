package lab

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"

	"github.com/weftnet/weft/wire"
)

// Limits of a lab: of addresses (a host and a leaf have an octet, of which half belongs to guests of the underlay), and of
// what one machine can run.
const (
	MaxHosts   = 64
	MaxSpines  = 16
	minInner   = 1280
	maxMTU     = 65535
	maxUplinks = 2
)

// DefaultMTU of an IPv4 underlay, and DefaultMTU6 of an IPv6 one: an inner packet of 1500 octets fits.
const (
	DefaultMTU  = 1500 + wire.Overhead4
	DefaultMTU6 = 1500 + wire.Overhead6
)

// Config is what a lab is built from. The zero Config is three hosts and two spines.
type Config struct {
	// Name tells labs on one machine apart; empty is the lab that the weft commands find by themselves.
	Name string
	// Prefix of its namespaces; empty is "weft-", or "weft-NAME-".
	Prefix string
	// Dir keeps its state, sockets, logs and data; empty is /run/weft-lab, or /run/weft-lab-NAME.
	Dir string
	// PinRoot holds a directory of BPF pins for each host; empty is /sys/fs/bpf/weft-lab, or /sys/fs/bpf/weft-lab-NAME.
	PinRoot string
	// Hosts and Spines; 0 is 3 and 2.
	Hosts, Spines int
	// Direct joins two hosts by one link, without leaves and spines, so that nothing dilutes a measurement.
	Direct bool
	// Flat hangs all hosts on one switch, a bridge in a namespace of that name, as racks without routers are: groups of the underlay are delivered.
	Flat bool
	// Underlay is the IP version that tunnels use, 4 or 6; 0 is 4. On 6 the underlay has no IPv4 at all.
	Underlay int
	// Uplinks of each host, 1 or 2; 0 is 1. With 2 a host hangs below its own leaf and the next one, by equal routes, and tunnels end at an
	// address of its loopback.
	Uplinks int
	// FindVTEP leaves it to the agents to find their VTEP addresses, and to follow them: those of the uplink.
	FindVTEP bool
	// UDPPort of the tunnels; 0 is 4789.
	UDPPort uint16
	// MTU of the underlay in octets of an IP packet; 0 is DefaultMTU or DefaultMTU6.
	MTU int
	// Tables is the size of the agents' kernel tables, as `weft agent --tables` takes it; empty is "lab".
	Tables string
	// XDP has the agents attach XDP programs to their uplinks, whose other ends are made fit for that.
	XDP bool
	// Multicast has leaves and spines route multicast, by FRR's pimd: see router.go.
	Multicast bool
	// Binary is the weft program; empty is the running one.
	Binary string
	// Bare builds namespaces, links and routes, and starts no process.
	Bare bool
	Log  *slog.Logger
	// Step, if set, is told in plain words what is being done.
	Step func(string)
}

var nameForm = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)

// withDefaults checks a Config and fills in what is empty.
func (c Config) withDefaults() (Config, error) {
	if c.Name != "" && (!nameForm.MatchString(c.Name) || len(c.Name) > 40) {
		return c, refuse("name", fmt.Sprintf("%q is not a lab's name", c.Name), "use at most 40 of a-z, 0-9 and -")
	}
	suffix := ""
	if c.Name != "" {
		suffix = "-" + c.Name
	}
	fill(&c.Prefix, "weft"+suffix+"-")
	fill(&c.Dir, "/run/weft-lab"+suffix)
	fill(&c.PinRoot, "/sys/fs/bpf/weft-lab"+suffix)
	if c.Direct {
		c.Hosts, c.Spines = 2, 1
	}
	if c.Flat {
		if c.Direct || c.Uplinks > 1 || c.XDP || c.Multicast {
			return c, refuse("flat", "a flat lab has one uplink a host, without XDP, and a switch instead of routers", "leave the others out")
		}
		c.Spines = 1
	}
	fill(&c.Hosts, 3)
	fill(&c.Spines, 2)
	fill(&c.Underlay, 4)
	if c.Underlay != 4 && c.Underlay != 6 {
		return c, refuse("--underlay", fmt.Sprintf("there is no IPv%d", c.Underlay), "use 4 or 6")
	}
	fill(&c.Uplinks, 1)
	if c.Uplinks < 1 || c.Uplinks > maxUplinks || c.Uplinks > 1 && (c.Hosts < maxUplinks || c.Direct) {
		return c, refuse("--uplinks", fmt.Sprintf("%d is out of range", c.Uplinks), "use 1, or 2 with two hosts or more: each has a leaf, and the second uplink leads to another's")
	}
	fill(&c.UDPPort, wire.VXLANPort)
	fill(&c.MTU, 1500+c.overhead())
	fill(&c.Tables, "lab")
	if c.Hosts < 1 || c.Hosts > MaxHosts {
		return c, refuse("--hosts", fmt.Sprintf("%d is out of range", c.Hosts), fmt.Sprintf("use 1 to %d", MaxHosts))
	}
	if c.Spines < 1 || c.Spines > MaxSpines {
		return c, refuse("--spines", fmt.Sprintf("%d is out of range", c.Spines), fmt.Sprintf("use 1 to %d", MaxSpines))
	}
	if least := minInner + c.overhead(); c.MTU < least || c.MTU > maxMTU {
		return c, refuse("--mtu", fmt.Sprintf("%d is out of range", c.MTU), fmt.Sprintf("use %d to %d", least, maxMTU))
	}
	if err := c.refuseMulticast(); err != nil {
		return c, err
	}
	if c.Binary == "" {
		exe, err := os.Executable()
		if err != nil {
			return c, fmt.Errorf("find the weft program: %w", err)
		}
		c.Binary = exe
	}
	var err error
	if c.Binary, err = filepath.Abs(c.Binary); err != nil {
		return c, fmt.Errorf("find the weft program: %w", err)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Step == nil {
		c.Step = func(string) {}
	}
	return c, nil
}

func fill[T comparable](v *T, def T) {
	if *v == *new(T) {
		*v = def
	}
}

// overhead in octets of the tunnel: outer IP, UDP and VXLAN headers and the inner Ethernet header.
func (c Config) overhead() int {
	if c.Underlay == 6 {
		return wire.Overhead6
	}
	return wire.Overhead4
}

func (c Config) statePath() string           { return filepath.Join(c.Dir, "lab.json") }
func (c Config) namespace(n string) string   { return c.Prefix + n }
func (c Config) serverSocket() string        { return filepath.Join(c.Dir, "server", "weft.sock") }
func (c Config) agentSocket(h string) string { return filepath.Join(c.Dir, h, "agent.sock") }
func (c Config) log(process string) string {
	return filepath.Join(c.Dir, process, filepath.Base(process)+".log")
}
