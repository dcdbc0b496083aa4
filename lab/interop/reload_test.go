package interop

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/lab/probe"
	"github.com/weftnet/weft/wire"
)

// TestReload changes the file of a VTEP twenty times under traffic of a network that the changes do not concern: nothing of it is lost, and no change writes
// more than it is about; then it is killed and started again. It turns red when a reload holds all ports (agent.take with rec.dirty.all set).
func TestReload(t *testing.T) {
	b := newBed(t)
	one, two := b.vteps[0], b.vteps[1]
	cmd := buildWeft(t, b, one, flood{})
	buildWeft(t, b, two, flood{})
	answered(t, "before", one, two.ip())
	file := filepath.Join(one.dir, "vtep.yaml")
	octets, err := os.ReadFile(file)
	must(t, err)
	text := string(octets)
	// The interface of a port that comes and goes.
	other := namespace(t, "other")
	_, _, err = one.ns.EnsureVeth(netdev.Veth{Name: "port9", MTU: mtu, Quiet: true, Peer: netdev.VethPeer{Namespace: other, Name: "eth0", MAC: wire.MAC{2, 0, 0, 0, 1, 9}}})
	must(t, err)

	there, err := probe.StartSequence(t.Context(), one.stays, two.stays, two.ip(), 7777, 2000)
	must(t, err)
	back, err := probe.StartSequence(t.Context(), two.stays, one.stays, one.ip(), 7778, 2000)
	must(t, err)
	reload := func(what, next, want string) {
		t.Helper()
		must(t, os.WriteFile(file, []byte(next), 0o600))
		said := logOf(t, one)
		must(t, cmd.Process.Signal(syscall.SIGHUP))
		await(t, "the log to say of "+what+": "+want, func(context.Context) error {
			if fresh := logOf(t, one)[len(said):]; !strings.Contains(fresh, want) {
				return fmt.Errorf("it says %q", fresh)
			}
			return nil
		})
	}
	green := "- name: green\n  vni: 8\n  mtu: %d\n  ports: [%s]\n"
	for range 4 {
		// A network, its port held and then open, and the port's part in the network's flood list.
		reload("another network", text+fmt.Sprintf(green, 1400, "port9"), "resources=8 writes=3")
		reload("nothing", text+fmt.Sprintf(green, 1400, "port9")+"# the same\n", "the plan is as it was")
		reload("a mistake", text+fmt.Sprintf(green, 99999999, "port9"), "the last good one stays")
		reload("another MTU", text+fmt.Sprintf(green, 1300, "port9"), "resources=8 writes=1")
		reload("a network less", text, "resources=6 writes=3") // its port held and let go, itself
	}
	// Killed, away for the time of some pings, and started again: nothing is written.
	must(t, cmd.Process.Kill())
	answered(t, "while it is away", one, two.ip())
	startWeft(t, one)
	await(t, "the log to say that nothing was written", func(context.Context) error { // it does so after the ports are active
		if said := logOf(t, one); !strings.Contains(said, "the kernel was compared with the plan\" revision=13 writes=0") {
			return fmt.Errorf("started again it said\n%s", said)
		}
		return nil
	})
	for way, s := range map[string]*probe.Sequence{"there": there, "back": back} {
		r, err := s.Stop()
		if err != nil || r.Lost != 0 || r.Duplicated != 0 || r.Sent < 1000 {
			t.Errorf("%s: %+v, %v", way, r, err)
		}
	}
}
