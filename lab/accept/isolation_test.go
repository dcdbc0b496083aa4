package accept_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/lab"
	"github.com/weftnet/weft/lab/probe"
	"github.com/weftnet/weft/wire"
)

// TestTenantsNeverMeet: two tenants with the same subnet, IPs and MACs on every host. Everybody calls every address and everybody
// at once; a witness at every workload counts, by the identity in the payload, whose frames arrive, whatever their addresses.
// Goes red when an FDB key, a flood list or the accept list leaves the VNI out (find_fdb with k.vni = 0, and PutFDB too).
func TestTenantsNeverMeet(t *testing.T) {
	f := sharedLab(t)
	const hosts, each = 3, 10
	tenants := []string{"twin-a", "twin-b"}
	mine := map[string]*workload{}
	for _, tenant := range tenants {
		f.tenant(t, tenant)
		f.network(t, tenant, "blue", &weftv1.NetworkSpec{Subnets: []string{"10.1.0.0/24", "fd00:1::/64"}})
		for i := 1; i <= hosts; i++ {
			name := fmt.Sprintf("%s-%d", tenant, i)
			mine[name] = f.workload(t, lab.WorkloadSpec{Name: name, Host: fmt.Sprintf("h%d", i), Tenant: tenant, Network: "blue",
				IPs: []string{fmt.Sprintf("10.1.0.1%d", i), fmt.Sprintf("fd00:1::1%d", i)}, MACs: []string{fmt.Sprintf("02:00:00:00:01:0%d", i)}})
		}
	}
	witnesses := map[string]*probe.Witness{}
	for name, w := range mine {
		// Once they know each other, nothing is lost for want of a neighbour.
		for i := 1; i <= hosts; i++ {
			if dst := netip.AddrFrom4([4]byte{10, 1, 0, byte(10 + i)}); dst != w.v4() {
				reaches(t, w.ns, dst)
			}
		}
		witness, err := probe.StartWitness(limited(t), w.ns, "eth0", name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(witness.Close)
		witnesses[name] = witness
	}
	for name, w := range witnesses {
		targets := []netip.Addr{netip.MustParseAddr("10.1.0.255")}
		for i := 1; i <= hosts; i++ {
			if dst := netip.AddrFrom4([4]byte{10, 1, 0, byte(10 + i)}); dst != mine[name].v4() {
				targets = append(targets, dst)
			}
		}
		for _, dst := range targets {
			if err := w.Shout(dst, each); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, w := range witnesses {
		tenant := name[:len(name)-2]
		// From each of the others by name and by broadcast; and an answer to each of ours.
		want := map[string]int{}
		for i := 1; i <= hosts; i++ {
			if other := fmt.Sprintf("%s-%d", tenant, i); other != name {
				want[other] = 2 * each
			}
		}
		if !w.Await(limited(t), func(seen, answers map[string]int) bool { return same(seen, want) && same(answers, want) }) {
			t.Errorf("%s has seen %v and has answers %v; want %v of each", name, w.Seen(), w.Answers(), want)
		}
	}
	for name, w := range witnesses {
		for who := range w.Seen() {
			if !strings.HasPrefix(who, name[:len(name)-1]) {
				t.Errorf("%s got frames of %s: %v", name, who, w.Seen())
			}
		}
	}
}

func same(got, want map[string]int) bool {
	for k, v := range want {
		if got[k] != v {
			return false
		}
	}
	return len(got) == len(want)
}

// TestPortSendsOnlyAsItself: a frame with a source MAC that is not the port's is dropped, and `weft port show` says so; a port that is
// unguarded may send it.
// Goes red when check_identity in port.h returns V_NEXT always, or when compile does not carry unguarded to the host.
func TestPortSendsOnlyAsItself(t *testing.T) {
	f := sharedLab(t)
	const each = 25
	pair := externalLab(t, f, "guard", 0)
	reaches(t, pair[0].ns, pair[1].v4())
	spoofed := wire.Flow{SrcMAC: wire.MAC{0x02, 0, 0, 0xba, 0xd0, 0x01}, DstMAC: mac(t, pair[1].MACs[0]), Src: pair[0].v4(), Dst: pair[1].v4()}
	own := spoofed
	own.SrcMAC = mac(t, pair[0].MACs[0])
	for _, c := range []struct {
		what    string
		arrives int
		drops   uint64
	}{{"guarded", 0, each}, {"unguarded", each, 0}} {
		if c.arrives > 0 {
			f.must(t, "port", "set", "guard-1", "--tenant", "guard", "--unguarded", "--wait")
		}
		dropped := f.portDrops(t, "guard", "guard-1", "source_mac")
		seen := startInbox(t, pair[1].ns, "eth0")
		forged, after := []byte("weft forged "+c.what), []byte("weft after "+c.what)
		for i := range each {
			inject(t, pair[0].ns, "eth0", spoofed.UDP(uint16(30000+i), 9, forged))
		}
		inject(t, pair[0].ns, "eth0", own.UDP(30000, 9, after))
		eventually(t, "the port's own frame arrives after the forged ones", func() (bool, string) {
			return seen.count(after) == 1 && seen.count(forged) >= c.arrives, fmt.Sprintf("%d, forged ones %d", seen.count(after), seen.count(forged))
		})
		if n := seen.count(forged); n != c.arrives {
			t.Errorf("%s: %d forged frames arrived, want %d", c.what, n, c.arrives)
		}
		eventually(t, "weft port show counts source_mac of a port that is "+c.what, func() (bool, string) {
			n := f.portDrops(t, "guard", "guard-1", "source_mac") - dropped
			return n == c.drops, fmt.Sprintf("%d, want %d", n, c.drops)
		})
	}
	if out := f.must(t, "port", "show", "guard-1", "--tenant", "guard"); !strings.Contains(out, "source_mac") {
		t.Errorf("weft port show does not name source_mac:\n%s", out)
	}
}
