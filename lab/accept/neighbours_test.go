package accept_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/lab"
	"github.com/weftnet/weft/wire"
)

// talks are the inner frames of a capture on the underlay that are ARP or neighbour discovery of a network.
func talks(frames [][]byte, vni uint32) (list []wire.Frame) {
	for _, b := range frames {
		f, err := wire.ParseFrame(b)
		if err != nil || !f.Has(wire.LayerUDP) || len(f.Payload) < 22 || f.Payload[0] != 8 || binary.BigEndian.Uint32(f.Payload[4:])>>8 != vni {
			continue
		}
		i, err := wire.ParseFrame(f.Payload[8:])
		if err == nil && (i.Type == wire.TypeARP || i.Has(wire.LayerICMPv6) && i.ICMP.Type >= 133 && i.ICMP.Type <= 137) {
			list = append(list, i)
		}
	}
	return list
}

// TestSilentWorkloads: the first packet between two workloads that have said nothing needs no flood: the asker's host answers, in both IP
// versions. Goes red when compile leaves a port's addresses out of its resource, putNeighbours is left out of the agent's pass, or talk() out of
// from_port.
func TestSilentWorkloads(t *testing.T) {
	f := sharedLab(t)
	f.tenant(t, "silent")
	n := f.network(t, "silent", "blue", &weftv1.NetworkSpec{Subnets: []string{"10.1.0.0/24", "fd00:1::/64"}})
	var pair [2]*workload
	for i := range pair {
		pair[i] = f.workload(t, lab.WorkloadSpec{Name: fmt.Sprintf("silent-%d", i+1), Host: fmt.Sprintf("h%d", i+1), Tenant: "silent", Network: "blue"})
	}
	f.caughtUp(t, "h1")
	f.caughtUp(t, "h2")
	answered, asked := f.books(t, "h1", "from_port").Answered, f.portDrops(t, "silent", "silent-1", "neighbour_asked")
	wires := map[string]*capture{}
	for _, h := range f.hostNames(t) {
		wires[h] = startCapture(t, f.node(t, h), "uplink0")
	}
	reaches(t, pair[0].ns, pair[1].v4())
	reaches(t, pair[0].ns, pair[1].v6())
	for h, c := range wires {
		for _, asked := range talks(c.stop(), n.GetStatus().GetVni()) {
			// Whether a neighbour still lives is asked of it alone; the workloads' own start is not over yet.
			if asked.Dst.IsMulticast() && asked.IPv6.Src != netip.IPv6Unspecified() && asked.ICMP.Type != 133 {
				t.Errorf("on the uplink of %s: %+v", h, asked)
			}
		}
	}
	// Either end asks: the first for the other, the second for where its answers go.
	eventually(t, "h1 has answered, and its books balance", func() (bool, string) {
		b := f.books(t, "h1", "from_port")
		return b.Answered >= answered+2 && b.In == b.Delivered+b.Encapsulated+b.Passed+b.Answered+b.Dropped, fmt.Sprintf("%+v", b)
	})
	if n := f.portDrops(t, "silent", "silent-1", "neighbour_asked"); n != asked {
		t.Errorf("%d questions were dropped", n-asked)
	}
	f.balanced(t, "h1")
}

func (f *fixture) hostNames(t testing.TB) []string {
	t.Helper()
	s, err := f.State()
	if err != nil {
		t.Fatal(err)
	}
	return hostNames(s)
}

// TestAThousandAsk: ARP for the addresses of 1,000 ports, and solicitations for as many, make no packet on the underlay. The ports are
// bound to h2 and h3, and have no interface there: what is asked for is known by the plan alone. All are asked for by one workload, in its own
// name: who asks changes nothing in what the datapath looks at.
// Goes red when an address is left out of what the agent writes, or the table of a lab host is smaller.
func TestAThousandAsk(t *testing.T) {
	f := sharedLab(t)
	f.tenant(t, "thousand")
	n := f.network(t, "thousand", "blue", &weftv1.NetworkSpec{Subnets: []string{"10.32.0.0/16", "fd00:32::/64"}})
	asker := f.workload(t, lab.WorkloadSpec{Name: "thousand-1", Host: "h1", Tenant: "thousand", Network: "blue"})
	const many = 1000
	c := f.api(t)
	// each of the ports, several at a time, with the test's patience for each.
	eachPort := func(do func(ctx context.Context, name string) error) {
		var several errgroup.Group
		several.SetLimit(8)
		for i := range many {
			several.Go(func() error {
				ctx, cancel := context.WithTimeout(context.Background(), inTime)
				defer cancel()
				return do(ctx, fmt.Sprintf("p%d", i))
			})
		}
		if err := several.Wait(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() {
		eachPort(func(ctx context.Context, name string) error {
			_, _ = c.Ports.UnbindPort(ctx, connect.NewRequest(&weftv1.UnbindPortRequest{Tenant: "thousand", Name: name}))
			_, err := c.Ports.DeletePort(ctx, connect.NewRequest(&weftv1.DeletePortRequest{Tenant: "thousand", Name: name}))
			return err
		})
	})
	eachPort(func(ctx context.Context, name string) error {
		_, err := c.Ports.CreatePort(ctx, connect.NewRequest(&weftv1.CreatePortRequest{Tenant: "thousand", Name: name, Spec: &weftv1.PortSpec{Network: "blue"}}))
		if err != nil {
			return err
		}
		host := "h" + string('2'+name[len(name)-1]%2)
		_, err = c.Ports.BindPort(ctx, connect.NewRequest(&weftv1.BindPortRequest{Tenant: "thousand", Name: name, Host: host}))
		return err
	})
	if t.Failed() {
		return
	}
	f.caughtUp(t, "h1")
	ports, err := c.Ports.ListPorts(limited(t), connect.NewRequest(&weftv1.ListPortsRequest{Tenant: "thousand"}))
	if err != nil {
		t.Fatal(err)
	}
	mine := mac(t, asker.MACs[0])
	var questions [][]byte
	for _, p := range ports.Msg.GetPorts() {
		if p.GetName() == asker.Port {
			continue
		}
		for _, ip := range p.GetStatus().GetIps() {
			if target := netip.MustParseAddr(ip); target.Is4() {
				questions = append(questions, wire.ARP{Op: wire.ARPRequest, SenderMAC: mine, SenderIP: asker.v4(), TargetIP: target}.Frame())
			} else {
				questions = append(questions, wire.Solicitation(mine, asker.v6(), target))
			}
		}
	}
	if len(questions) != 2*many {
		t.Fatalf("%d addresses, want %d", len(questions), 2*many)
	}
	before, up := f.books(t, "h1", "from_port"), startCapture(t, f.node(t, "h1"), "uplink0")
	inbox := startInbox(t, asker.ns, "eth0")
	for len(questions) > 0 { // a few at a time: the kernel's queue of a veth takes a thousand
		few := min(100, len(questions))
		inject(t, asker.ns, "eth0", questions[:few]...)
		questions = questions[few:]
		want := 2*many - len(questions)
		eventually(t, fmt.Sprintf("%d answers arrive", want), func() (bool, string) {
			n := len(answersIn(inbox.frames()))
			return n >= want, fmt.Sprint(n)
		})
	}
	macs := map[[6]byte]bool{}
	for _, b := range answersIn(inbox.stop()) {
		macs[[6]byte(b[6:12])] = true
	}
	if len(macs) != many {
		t.Errorf("the answers name %d MACs, want %d", len(macs), many)
	}
	flooded := slices.DeleteFunc(talks(up.stop(), n.GetStatus().GetVni()), func(f wire.Frame) bool {
		return f.ICMP.Type == 133 || f.IPv6.Src == netip.IPv6Unspecified() // the workload's own start, which may not be over yet
	})
	if len(flooded) > 0 {
		t.Errorf("%d packets on the underlay, the first %+v", len(flooded), flooded[0])
	}
	eventually(t, "the books of h1 have 2,000 answered, and balance", func() (bool, string) {
		b := f.books(t, "h1", "from_port")
		return b.Answered-before.Answered >= 2*many && b.In == b.Delivered+b.Encapsulated+b.Passed+b.Answered+b.Dropped, fmt.Sprintf("%+v, were %+v", b, before)
	})
}

// answersIn are the ARP replies and advertisements among frames.
func answersIn(frames [][]byte) (list [][]byte) {
	for _, b := range frames {
		switch {
		case len(b) >= 42 && binary.BigEndian.Uint16(b[12:]) == 0x0806 && b[21] == 2:
		case len(b) >= 86 && binary.BigEndian.Uint16(b[12:]) == 0x86dd && b[20] == 58 && b[54] == 136:
		default:
			continue
		}
		list = append(list, b)
	}
	return list
}

// TestClaimsAndBUMLimit: a port that says it has another's address is dropped by name, and one that floods more than it may too; its
// neighbour's pings go on. An allowed pair, and a higher limit, let both through. Goes red when the agent leaves out the port's claims, or its limit.
func TestClaimsAndBUMLimit(t *testing.T) {
	f := sharedLab(t)
	f.tenant(t, "claims")
	f.network(t, "claims", "blue", &weftv1.NetworkSpec{Subnets: []string{"10.1.0.0/24", "fd00:1::/64"}})
	a := f.workload(t, lab.WorkloadSpec{Name: "claims-1", Host: "h1", Tenant: "claims", Network: "blue"})
	b := f.workload(t, lab.WorkloadSpec{Name: "claims-2", Host: "h2", Tenant: "claims", Network: "blue"})
	own := mac(t, a.MACs[0])
	stolen := netip.MustParseAddr("10.1.0.77")
	count := func(reason string) uint64 { return f.portDrops(t, "claims", a.Port, reason) }
	inject(t, a.ns, "eth0", wire.Announcement(own, b.v4()).Frame(), wire.Announcement(own, stolen).Frame())
	eventually(t, "weft port show counts neighbour_claim", func() (bool, string) {
		n := count("neighbour_claim")
		return n == 2, fmt.Sprint(n)
	})
	f.must(t, "port", "set", a.Port, "--tenant", "claims", "--allowed-address", own.String()+"="+stolen.String(), "--wait")
	inbox := startInbox(t, b.ns, "eth0")
	inject(t, a.ns, "eth0", wire.Announcement(own, stolen).Frame())
	eventually(t, "the announcement of the pair arrives", func() (bool, string) {
		return inbox.count(stolen.AsSlice()) > 0, fmt.Sprint(len(inbox.frames()))
	})
	inbox.stop()
	// A storm. Beside the limit, a second's worth is in reserve.
	f.must(t, "port", "set", a.Port, "--tenant", "claims", "--bum-limit", "10", "--wait")
	storm := make([][]byte, 500)
	for i := range storm {
		storm[i] = wire.Flow{SrcMAC: own, DstMAC: wire.BroadcastMAC, Src: a.v4(), Dst: netip.MustParseAddr("10.1.0.255")}.UDP(9, 9, []byte("a flood storm"))
	}
	inject(t, a.ns, "eth0", storm...)
	eventually(t, "weft port show counts bum_port_limit", func() (bool, string) {
		n := count("bum_port_limit")
		return n > 300 && n < 500, fmt.Sprint(n)
	})
	reaches(t, b.ns, a.v4())
	if out := f.must(t, "port", "show", a.Port, "--tenant", "claims"); !strings.Contains(out, "10 frames a second") {
		t.Errorf("weft port show does not name the limit:\n%s", out)
	}
	f.must(t, "network", "set", "blue", "--tenant", "claims", "--bum-limit", "5", "--wait")
	f.must(t, "port", "set", a.Port, "--tenant", "claims", "--bum-limit", "none", "--wait")
	inject(t, a.ns, "eth0", storm...)
	eventually(t, "weft port show counts bum_network_limit", func() (bool, string) {
		n := count("bum_network_limit")
		return n > 300, fmt.Sprint(n)
	})
	f.balanced(t, "h1")
}
