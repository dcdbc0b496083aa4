package lab

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/lab/probe"
)

// The two tenants of the demo have the same subnets, and their workloads the same addresses.
var demoTenants = []string{"acme", "globex"}

const (
	demoNetwork = "blue"
	// inTime is how long any one thing may take that ought to work at once.
	inTime      = 30 * time.Second
	shouts      = 5
	flows       = 1000
	flowPackets = 4
)

func demoName(tenant string, i int) string { return fmt.Sprintf("%s-%d", tenant, i) }

func demoIPs(i int) [2]netip.Addr {
	return [2]netip.Addr{netip.AddrFrom4([4]byte{10, 1, 0, byte(10 + i)}), netip.MustParseAddr(fmt.Sprintf("fd00:1::%d", 10+i))}
}

func demoMAC(i int) string { return fmt.Sprintf("02:00:00:00:01:%02x", i) }

func (d *demo) showTopology() error {
	s, err := d.lab.State()
	if err != nil {
		return err
	}
	d.say("   %d hosts with a real agent each, under %d leaves, over %d spines; all of it routed IP, equal paths by L4 hash.", len(s.Hosts), len(s.Hosts), s.Spines)
	for _, h := range s.Hosts {
		d.say("   %s is the namespace %s, tunnels end at %s, its agent is process %d", h.Name, h.Namespace, h.VTEPAddress, h.Agent.PID)
	}
	return nil
}

func (d *demo) tenants(ctx context.Context) error {
	d.title("Two tenants, who know nothing of each other")
	c, err := d.lab.Client()
	if err != nil {
		return err
	}
	vnis := map[uint32]string{}
	for _, t := range demoTenants {
		if _, err := c.Tenants.CreateTenant(ctx, connect.NewRequest(&weftv1.CreateTenantRequest{Name: t, Spec: &weftv1.TenantSpec{}})); err != nil {
			return fmt.Errorf("create tenant %s: %w", t, err)
		}
		res, err := c.Networks.CreateNetwork(ctx, connect.NewRequest(&weftv1.CreateNetworkRequest{Tenant: t, Name: demoNetwork,
			Spec: &weftv1.NetworkSpec{Subnets: []string{"10.1.0.0/24", "fd00:1::/64"}}}))
		if err != nil {
			return fmt.Errorf("create network %s of %s: %w", demoNetwork, t, err)
		}
		vnis[res.Msg.GetStatus().GetVni()] = t
		d.say("   %s has a network %s: 10.1.0.0/24 and fd00:1::/64, VNI %d", t, demoNetwork, res.Msg.GetStatus().GetVni())
		for i := 1; i <= d.lab.cfg.Hosts; i++ {
			ips := demoIPs(i)
			w, err := d.lab.AddWorkload(ctx, WorkloadSpec{Name: demoName(t, i), Host: hostName(i), Tenant: t, Network: demoNetwork,
				IPs: []string{ips[0].String(), ips[1].String()}, MACs: []string{demoMAC(i)}})
			if err != nil {
				return err
			}
			d.say("   %s on %s: %s, %s", w.Name, w.Host, strings.Join(w.IPs, ", "), strings.Join(w.MACs, ", "))
		}
	}
	d.note("one VNI a network", "2 different", fmt.Sprintf("%d different", len(vnis)), len(vnis) == len(demoTenants))
	return nil
}

func (d *demo) reach(ctx context.Context) error {
	d.title("Everybody reaches everybody of the same tenant, across hosts")
	for _, t := range demoTenants {
		pairs, good := 0, 0
		var rtts []time.Duration
		for i := 1; i <= d.lab.cfg.Hosts; i++ {
			for j := 1; j <= d.lab.cfg.Hosts; j++ {
				if i == j {
					continue
				}
				for _, dst := range demoIPs(j) {
					pairs++
					rtt, err := d.reaches(ctx, demoName(t, i), dst)
					if ctx.Err() != nil {
						return ctx.Err()
					}
					if err != nil {
						d.say("   %s to %s: %v", demoName(t, i), dst, err)
						continue
					}
					good++
					rtts = append(rtts, rtt...)
				}
			}
		}
		d.note(t+": all pairs ping, IPv4 and IPv6", fmt.Sprintf("%d of %d", pairs, pairs),
			fmt.Sprintf("%d of %d, median %s", good, pairs, Percentile(rtts, 0.5).Round(time.Microsecond)), good == pairs)
	}
	return nil
}

// reaches pings until the neighbours have found each other, and then wants every answer.
func (d *demo) reaches(ctx context.Context, from string, dst netip.Addr) ([]time.Duration, error) {
	ns, err := d.lab.Node(from)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, inTime)
	defer cancel()
	if err := probe.PingUntil(ctx, ns, dst); err != nil {
		return nil, err
	}
	r, err := probe.Ping(ctx, ns, dst, probe.PingConfig{Count: 3})
	if err == nil && !r.Complete() {
		err = fmt.Errorf("%d of %d answers, %d twice", r.Received, r.Sent, r.Duplicates)
	}
	return r.RTT, err
}

// isolation has everybody call everybody's address, which is the same in both tenants, and everybody at once by broadcast and multicast. A
// witness at every workload sees every frame that arrives, whatever its addresses.
func (d *demo) isolation(ctx context.Context) error {
	d.title("The tenants never meet, though they have the same addresses")
	hosts := d.lab.cfg.Hosts
	witnesses := map[string]*probe.Witness{}
	defer func() {
		for _, w := range witnesses {
			w.Close()
		}
	}()
	for _, t := range demoTenants {
		for i := 1; i <= hosts; i++ {
			ns, err := d.lab.Node(demoName(t, i))
			if err != nil {
				return err
			}
			if witnesses[demoName(t, i)], err = probe.StartWitness(ctx, ns, "eth0", demoName(t, i)); err != nil {
				return err
			}
		}
	}
	for _, t := range demoTenants {
		for i := 1; i <= hosts; i++ {
			targets := []netip.Addr{netip.MustParseAddr("10.1.0.255"), netip.MustParseAddr("ff02::1")}
			for j := 1; j <= hosts; j++ {
				if j != i {
					ips := demoIPs(j)
					targets = append(targets, ips[:]...)
				}
			}
			for _, dst := range targets {
				if err := witnesses[demoName(t, i)].Shout(dst, shouts); err != nil {
					return err
				}
			}
		}
	}
	// By name and by broadcast or multicast, over IPv4 and IPv6, from each of the others; and an answer to each of ours.
	want := 4 * shouts * (hosts - 1)
	ctx, cancel := context.WithTimeout(ctx, inTime)
	defer cancel()
	for _, w := range witnesses {
		w.Await(ctx, func(seen, answers map[string]int) bool { return total(seen) >= want && total(answers) >= want })
	}
	for _, t := range demoTenants {
		var own, foreign, ownAnswers, foreignAnswers int
		for i := 1; i <= hosts; i++ {
			w := witnesses[demoName(t, i)]
			a, b := split(w.Seen(), t)
			own, foreign = own+a, foreign+b
			a, b = split(w.Answers(), t)
			ownAnswers, foreignAnswers = ownAnswers+a, foreignAnswers+b
		}
		d.note(t+": deliveries and answers from its own", fmt.Sprintf("%d and %d", want*hosts, want*hosts),
			fmt.Sprintf("%d and %d", own, ownAnswers), own == want*hosts && ownAnswers == want*hosts)
		d.note(t+": frames and answers from the other tenant", "0 and 0", fmt.Sprintf("%d and %d", foreign, foreignAnswers), foreign == 0 && foreignAnswers == 0)
	}
	return nil
}

func total(counts map[string]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}

// split sums counts by whether the name is of a tenant's workload.
func split(counts map[string]int, tenant string) (own, foreign int) {
	for who, n := range counts {
		if strings.HasPrefix(who, tenant+"-") {
			own += n
		} else {
			foreign += n
		}
	}
	return own, foreign
}

func (d *demo) move(ctx context.Context) error {
	hosts := d.lab.cfg.Hosts
	if hosts < 2 {
		return nil
	}
	name, home, away := demoName("acme", hosts), hostName(hosts), hostName(hosts-1)
	d.title("A workload moves to another host and keeps its address and its TCP connection")
	ns, err := d.lab.Node(name)
	if err != nil {
		return err
	}
	client, err := d.lab.Node(demoName("acme", 1))
	if err != nil {
		return err
	}
	echo, err := probe.StartEcho(ctx, ns, 7000)
	if err != nil {
		return err
	}
	defer echo.Close()
	ip := demoIPs(hosts)[0]
	s, err := d.lab.State()
	if err != nil {
		return err
	}
	was, _ := s.Workload(name)
	session, err := probe.StartSession(ctx, client, ip, 7000, 5*time.Millisecond)
	if err != nil {
		return err
	}
	stopped := false
	defer func() {
		if !stopped {
			session.Stop()
		}
	}()
	for _, to := range []string{away, home} {
		before := session.Result().Exchanges
		began := time.Now()
		w, err := d.lab.MoveWorkload(ctx, name, to)
		if err != nil {
			return err
		}
		took := time.Since(began)
		alive := d.until(ctx, func() bool { r := session.Result(); return r.Err == nil && r.Exchanges > before+20 })
		d.note(fmt.Sprintf("%s moves to %s", name, to), "same addresses, connection alive",
			fmt.Sprintf("%s after %s, connection %s", strings.Join(w.IPs, " "), took.Round(time.Millisecond), map[bool]string{true: "alive", false: "lost"}[alive]),
			alive && len(was.IPs) == 2 && slices.Equal(w.IPs, was.IPs) && slices.Equal(w.MACs, was.MACs))
	}
	stopped = true
	r := session.Stop()
	d.note("TCP connection through both moves", "0 resets", fmt.Sprintf("%d exchanges, longest wait %s, error: %v", r.Exchanges, r.LongestWait.Round(time.Millisecond), r.Err), r.Err == nil)
	return nil
}

func (d *demo) until(ctx context.Context, cond func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, inTime)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
	return true
}

// streamFloor is the ratio below which something is broken (a blocked kernel lane is a factor of a thousand). What is reached
// is `weft bench`'s to say: a demo on a busy machine is no measurement.
const streamFloor = 0.5

func (d *demo) throughput(ctx context.Context) error {
	if d.lab.cfg.Hosts < 2 {
		return nil
	}
	d.title("One TCP stream from %s to %s, beside the same path through the Linux bridge and vxlan", hostName(1), hostName(2))
	contender, err := d.lab.AddContender()
	if err != nil {
		return err
	}
	from, err := d.lab.Node(demoName("acme", 1))
	if err != nil {
		return err
	}
	to, err := d.lab.Node(demoName("acme", 2))
	if err != nil {
		return err
	}
	ready, cancel := context.WithTimeout(ctx, inTime)
	defer cancel()
	if err := probe.PingUntil(ready, contender.From, contender.Address); err != nil {
		return fmt.Errorf("the Linux bridge with vxlan: %w", err)
	}
	c, err := CompareStreams(ctx, Path{from, to, demoIPs(2)[0]}, Path{contender.From, contender.To, contender.Address}, d.cfg.Rounds, d.cfg.Stream)
	if err != nil {
		return err
	}
	for i := range c.A {
		d.say("   round %d: weft %.1f Gb/s, Linux bridge + vxlan %.1f Gb/s", i+1, c.A[i], c.B[i])
	}
	median, low, high := c.Ratio()
	d.note("TCP, weft / Linux bridge + vxlan", fmt.Sprintf("above %.1f", streamFloor),
		fmt.Sprintf("%.2f (%.2f to %.2f): %.1f and %.1f Gb/s", median, low, high, medianOf(c.A), medianOf(c.B)), median > streamFloor)
	return contender.Remove()
}

func (d *demo) spread(ctx context.Context) error {
	if d.lab.cfg.Hosts < 2 || d.lab.cfg.Spines < 2 {
		return nil
	}
	d.title("%d flows between two hosts, by the spines' own counters", flows)
	from, err := d.lab.Node(demoName("acme", 1))
	if err != nil {
		return err
	}
	before, err := d.lab.SpineCounters(2)
	if err != nil {
		return err
	}
	sent, err := probe.Spread(ctx, from, demoIPs(2)[0], flows, flowPackets)
	if err != nil {
		return err
	}
	counts := make([]uint64, len(before))
	arrived := d.until(ctx, func() bool {
		after, err := d.lab.SpineCounters(2)
		if err != nil {
			return false
		}
		sum := uint64(0)
		for i := range after {
			counts[i] = after[i] - before[i]
			sum += counts[i]
		}
		return sum >= uint64(sent)
	})
	sum := uint64(0)
	for _, n := range counts {
		sum += n
	}
	// Of two spines each takes 40 to 60 %; of more, a fair share within a fifth.
	fair := 1 / float64(len(counts))
	ok := arrived
	var shares []string
	for i, n := range counts {
		share := float64(n) / float64(max(sum, 1))
		ok = ok && share >= 0.8*fair && share <= 1.2*fair
		shares = append(shares, fmt.Sprintf("%s %.0f %%", spineName(i+1), 100*share))
	}
	d.note("flows spread over the spines", fmt.Sprintf("%.0f to %.0f %% each", 80*fair, 120*fair), strings.Join(shares, ", "), ok)
	return nil
}

const (
	// latencyGoal for three hosts on a machine that does nothing else.
	latencyGoal = 100 * time.Millisecond
	// latencyLimit is what a change may take on a busy machine, too.
	latencyLimit = time.Second
	// latencyTries to reach it: of a few changes, p99 is the slowest one, and a machine that stands still once is not weft's to answer for.
	latencyTries = 3
)

func (d *demo) latency(ctx context.Context) error {
	d.title("How long a change takes to reach every host")
	d.say("   A port is bound %d times, to one host after the other; the clock stops when a packet from every host has reached it.", d.cfg.Changes)
	var knockers []string
	for i := 1; i <= d.lab.cfg.Hosts; i++ {
		knockers = append(knockers, demoName("acme", i))
	}
	var took []time.Duration
	var p99 time.Duration
	for try := 1; ; try++ {
		var err error
		took, err = d.lab.ChangeLatency(ctx, LatencyConfig{Tenant: "acme", Network: demoNetwork, IP: netip.MustParseAddr("10.1.0.99"),
			Changes: d.cfg.Changes, Knockers: knockers})
		if err != nil {
			return err
		}
		if p99 = Percentile(took, 0.99); p99 <= latencyLimit || try == latencyTries {
			break
		}
		d.say("   p99 was %s: a machine may stand still for a while, so once more.", p99.Round(100*time.Microsecond))
	}
	got := fmt.Sprintf("p50 %s, p99 %s of %d", Percentile(took, 0.5).Round(100*time.Microsecond), p99.Round(100*time.Microsecond), len(took))
	if p99 > latencyGoal {
		d.say("   An idle machine stays below %s; this one may be busy.", latencyGoal)
	}
	d.note("change latency", "p99 at most "+latencyLimit.String(), got, p99 <= latencyLimit)
	return nil
}
