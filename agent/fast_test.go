package agent

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/plan"
)

// fastRig has port p1 attached; setFast sends what the plan says of its lane.
func fastRig(t *testing.T) (r *rig, ifname string, setFast func(on bool)) {
	r = newRig(t)
	r.base()
	r.links.far[ownNetns] = map[string]bool{}
	res, err := r.attach(netnsRequest("p1"))
	if err != nil {
		t.Fatal(err)
	}
	epoch := r.revision() - 1
	return r, res.Interface, func(on bool) {
		t.Helper()
		p := portOf("p1", "h1", epoch)
		p.FastPath = on
		if err := r.send(plan.NewPort(r.revision(), p)); err != nil {
			t.Fatal(err)
		}
	}
}

func (r *rig) peer(ifname string) (s string) {
	r.links.mu.Lock()
	defer r.links.mu.Unlock()
	for _, f := range slices.Sorted(maps.Keys(r.links.peers[ifname])) {
		if r.links.peers[ifname][f] {
			s += string(f) + " "
		}
	}
	return s
}

// fastReport is what the loop says of p1 now: its lane, why, and the condition.
func (r *rig) fastReport() (rep *planv1.PortReport, condition string) {
	r.t.Helper()
	if err := r.agent.do(r.ctx, func() {
		rep, condition = r.agent.portReport("p1", nil), r.agent.conditions["fast path"]
	}); err != nil {
		r.t.Fatal(err)
	}
	return rep, condition
}

// TestFastPath: a port enters the XDP lane, leaves it while its workload's interface is not fit, comes back, and leaves it for good; what was
// changed for it is put back, by a later agent too.
// Red when fit changes features without writing them down (they stay after the restart), when it sets them again instead of looking (a
// workload's own choice is overruled), or when reconcile leaves unfitAll out.
func TestFastPath(t *testing.T) {
	r, ifname, setFast := fastRig(t)
	const usual, fit = "tx tx-vlan-hw-insert ", "gro "
	if got := r.peer(ifname); got != usual {
		t.Fatalf("the workload's end has %q before", got)
	}
	setFast(true)
	r.wants("open xdp")
	if got := r.peer(ifname); got != fit {
		t.Errorf("the workload's end has %q on, want %q", got, fit)
	}
	if rep, condition := r.fastReport(); !rep.FastPath || rep.FastPathMessage != "" || condition != "" {
		t.Errorf("reported %v, condition %q", rep, condition)
	}

	r.links.workload(ifname, netdev.GRO, false)
	r.until("the port is back in the tc lane", func() bool { return !r.agent.inFastPath("p1") })
	rep, condition := r.fastReport()
	if rep.State != planv1.PortState_PORT_STATE_ACTIVE || rep.FastPath || !strings.Contains(rep.FastPathMessage, "`ethtool -K IFNAME gro on`") ||
		!strings.Contains(condition, "port acme/p1 stays in the tc lane") {
		t.Errorf("reported %v, condition %q", rep, condition)
	}
	if got := r.peer(ifname); got != "" {
		t.Errorf("the workload's own choice was overruled: %q", got)
	}
	r.links.workload(ifname, netdev.GRO, true)
	r.until("the port is in the XDP lane again", func() bool { return r.agent.inFastPath("p1") })
	if _, condition := r.fastReport(); condition != "" {
		t.Errorf("the condition stays: %q", condition)
	}

	r.restart()
	r.wants("open xdp")
	setFast(false)
	r.until("the port is out of the XDP lane", func() bool { return !r.agent.inFastPath("p1") })
	if got := r.peer(ifname); got != usual {
		t.Errorf("the workload's end has %q on after, want %q", got, usual)
	}
	setFast(true)
	r.wants("open xdp")
	if got := r.peer(ifname); got != fit {
		t.Errorf("the second time the workload's end has %q on, want %q", got, fit)
	}
}

// TestFastPathDriver: a veth that takes no frames from XDP, though its other end is fit, stays out. Red when XDPFeatures is not asked.
func TestFastPathDriver(t *testing.T) {
	r, _, setFast := fastRig(t)
	r.links.noXDP = netdev.XDPTransmit
	setFast(true)
	if rep, _ := r.fastReport(); rep.FastPath || !strings.Contains(rep.FastPathMessage, "ndo-xmit") {
		t.Errorf("reported %v", rep)
	}
}

// TestFastPathOfTAP: a guest may leave checksums to the host. Red when fit does not know a TAP device.
func TestFastPathOfTAP(t *testing.T) {
	r := newRig(t)
	r.base()
	r.links.add("tap0", "tuntap")
	if _, err := r.attach(tapRequest("p1", "tap0")); err != nil {
		t.Fatal(err)
	}
	p := portOf("p1", "h1", r.revision())
	p.FastPath = true
	if err := r.send(plan.NewPort(r.revision(), p)); err != nil {
		t.Fatal(err)
	}
	rep, condition := r.fastReport()
	if rep.State != planv1.PortState_PORT_STATE_ACTIVE || rep.FastPath || !strings.Contains(rep.FastPathMessage, "guest behind a TAP device") || condition == "" {
		t.Errorf("reported %v, condition %q", rep, condition)
	}
	p.FastPath = false
	if err := r.send(plan.NewPort(r.revision(), p)); err != nil {
		t.Fatal(err)
	}
	if rep, condition := r.fastReport(); rep.FastPathMessage != "" || condition != "" {
		t.Errorf("after: reported %v, condition %q", rep, condition)
	}
}

// TestFastPathRefused: where the kernel takes no program, the port works in the tc lane and says so, and it is not tried without end. Red
// when writePort takes a FastPathError for a failure, or forgets it.
func TestFastPathRefused(t *testing.T) {
	r, _, setFast := fastRig(t)
	r.kernel.noXDP = true
	setFast(true)
	rep, condition := r.fastReport()
	if rep.State != planv1.PortState_PORT_STATE_ACTIVE || rep.FastPath || !strings.Contains(rep.FastPathMessage, "no such operation") || condition == "" {
		t.Errorf("reported %v, condition %q", rep, condition)
	}
	r.until("a look changes nothing", func() bool {
		writes := r.kernel.writes
		r.agent.lookAround()
		r.agent.reconcile()
		return r.kernel.writes == writes
	})
	r.kernel.noXDP = false
	r.until("an audit tries again", func() bool {
		r.agent.audit()
		return r.agent.inFastPath("p1")
	})
}

// TestLooksTakeTurns: with many ports in the XDP lane each is looked at, and at most so many at a time. Red when nextLooks returns all of them
// (the loop does nothing else for seconds), or begins anew each time (some are never looked at).
func TestLooksTakeTurns(t *testing.T) {
	const all = 3*looksATurn + 1
	a := &Agent{rec: &Reconciler{fast: map[string]fastPath{}}}
	for i := range all {
		a.rec.fast[strconv.Itoa(i)] = fastPath{ifindex: 1}
	}
	for range 2 {
		looked := map[string]bool{}
		for range 4 {
			turn := a.nextLooks()
			if len(turn) > looksATurn {
				t.Fatalf("%d ports in one turn", len(turn))
			}
			for _, uid := range turn {
				looked[uid] = true
			}
		}
		if len(looked) != all {
			t.Errorf("%d of %d ports had a turn", len(looked), all)
		}
	}
}

// TestXDPEventIsOfOnePort: the kernel's word about one port's interface costs one look. Red when xdpChanged looks at every port: then a thousand
// ports that enter the lane cost a million looks.
func TestXDPEventIsOfOnePort(t *testing.T) {
	r, ifname, setFast := fastRig(t)
	setFast(true)
	r.wants("open xdp")
	if err := r.agent.do(r.ctx, func() {
		before := r.links.looked(ifname)
		index := r.links.links[ifname].Index
		r.agent.xdpChanged(index + 1000)
		r.agent.xdpChanged(r.links.links["eth1"].Index)
		r.agent.xdpChanged(0)
		if n := r.links.looked(ifname) - before; n != 0 {
			t.Errorf("%d looks for events of other interfaces", n)
		}
		r.agent.xdpChanged(index)
		if n := r.links.looked(ifname) - before; n != 1 {
			t.Errorf("%d looks for an event of its own, want one", n)
		}
	}); err != nil {
		t.Fatal(err)
	}
}
