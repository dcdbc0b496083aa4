package agent

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/plan"
)

// aloneRig is an agent without a server, over a kernel and interfaces in memory.
type aloneRig struct {
	t      *testing.T
	dir    string
	kernel *fakeKernel
	links  *fakeLinks
	agent  *Agent
	ctx    context.Context
	stop   func()
}

// aloneStory is a plan of two networks: blue with a remote and ports on interfaces, green with an MTU.
type aloneStory struct {
	ports map[string]string // name to interface
	mtu   uint32            // of green; 0: there is no green
	wrong error
}

func (s aloneStory) planner(facts *planv1.Facts) (Whole, error) {
	if s.wrong != nil {
		return Whole{}, s.wrong
	}
	host := &planv1.Host{Uid: "me", Name: "me", Networks: []string{"blue"}, Vteps: []string{"ext"}}
	w := Whole{Resources: []*plan.Resource{
		plan.NewVTEP(0, &planv1.Vtep{Uid: "ext", Addresses: [][]byte{{192, 0, 2, 9}}, UdpPort: 4789, External: true}),
		plan.NewNetwork(0, &planv1.Network{Uid: "blue", Vni: 7, Mtu: facts.GetUplinkMtu() - 50, UnknownUnicast: planv1.UnknownUnicast_UNKNOWN_UNICAST_FLOOD,
			External: []*planv1.ExternalVtep{{Vtep: "ext", Macs: [][]byte{{2, 0, 0, 0, 0, 9}}}}}),
	}}
	if s.mtu != 0 {
		host.Networks = append(host.Networks, "green")
		w.Resources = append(w.Resources, plan.NewNetwork(0, &planv1.Network{Uid: "green", Vni: 8, Mtu: s.mtu, Neighbours: planv1.Neighbours_NEIGHBOURS_FLOOD}))
	}
	for name, ifname := range s.ports {
		w.Resources = append(w.Resources, plan.NewPort(0, &planv1.Port{Uid: name, Network: "blue", Epoch: 1, Active: "me", Unguarded: true, Name: name}))
		w.Interfaces = append(w.Interfaces, Interface{Port: name, Network: "blue", Name: name, Interface: ifname})
	}
	w.Resources = append(w.Resources, plan.NewHost(0, host))
	return w, nil
}

func newAloneRig(t *testing.T) *aloneRig {
	r := &aloneRig{t: t, dir: t.TempDir(), kernel: newFakeKernel(), links: newFakeLinks()}
	r.links.guarded = func(int) bool { return true }
	r.links.fast = func(int) bool { return false }
	return r
}

func (r *aloneRig) start(s aloneStory) {
	r.t.Helper()
	a := NewAlone(Config{Name: "me", Dir: r.dir, Uplink: "eth1", AuditEvery: time.Hour}, "me", s.planner)
	a.kernel, a.links, a.xdpEvents = r.kernel, r.links, r.links.xdp
	var err error
	if a.uplink, err = findUplink(a.cfg, r.links, datapath.Local{}); err != nil {
		r.t.Fatal(err)
	}
	if err := a.load("me"); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	if err := a.source.begin(ctx, a, &tasks); err != nil {
		r.t.Fatal(err)
	}
	tasks.Go(func() { a.source.run(ctx) })
	tasks.Go(func() {
		if err := a.loop(ctx, r.links.events); err != nil {
			r.t.Error(err)
		}
	})
	r.agent, r.ctx = a, ctx
	r.stop = func() {
		cancel()
		tasks.Wait()
		if len(r.kernel.unsafe) > 0 {
			r.t.Errorf("unsafe orders: %v", r.kernel.unsafe)
		}
	}
}

func (r *aloneRig) replan(s aloneStory) error {
	return r.agent.Replan(r.ctx, func() (Planner, error) { return s.planner, nil })
}

// conditions are those that are shown, by name.
func (r *aloneRig) conditions() (all map[string]string) {
	all = map[string]string{}
	if err := r.agent.do(r.ctx, func() {
		for _, c := range r.agent.conditionList() {
			all[c.Name] = c.Message
		}
	}); err != nil {
		r.t.Fatal(err)
	}
	return all
}

// TestAloneReloads turns red when a reload applies what did not change (updateOf without the comparison and staging without Put's), or when a plan that
// is refused leaves something behind (assign before checkWhole).
func TestAloneReloads(t *testing.T) {
	r := newAloneRig(t)
	r.links.add("t1", "tuntap")
	was := aloneStory{ports: map[string]string{"web1": "t1", "web2": "later"}, mtu: 1400}
	r.start(was)
	defer func() { r.stop() }()
	first := "accept 7 192.0.2.9\nfdb 7 02:00:00:00:00:09 vtep 1\nnet 7 mtu 1450 local [11] remotes [1] external 1\nnet 8 mtu 1400 local [] remotes [] external 0 floods\n" +
		"port web1 id 1 if 11 vni 7 open\nvtep 1 192.0.2.9\n"
	if got := r.kernel.String(); got != first {
		t.Fatalf("the kernel holds\n%swant\n%s", got, first)
	}
	writes := r.kernel.writes
	grew := func(what string, want int) {
		t.Helper()
		if got := r.kernel.writes - writes; got != want {
			t.Errorf("%s: %d writes, want %d; the kernel holds\n%s", what, got, want, r.kernel)
		}
		writes = r.kernel.writes
	}
	if err := r.replan(was); err != nil {
		t.Fatal(err)
	}
	grew("the same plan", 0)
	next := was
	next.mtu = 1300
	if err := r.replan(next); err != nil {
		t.Fatal(err)
	}
	grew("another MTU of green", 1)

	// What is refused is refused whole, and said until a plan is taken.
	bad := aloneStory{ports: map[string]string{"web1": "eth1", "new": "t9"}}
	if err := r.replan(bad); err == nil || !strings.Contains(err.Error(), "port web1") || !strings.Contains(err.Error(), "carries the host's own traffic") {
		t.Errorf("the uplink as a port: %v", err)
	}
	if err := r.replan(aloneStory{wrong: errors.New("line 7 is wrong")}); err == nil {
		t.Error("a plan that cannot be made was taken")
	}
	if why := r.conditions()["plan refused"]; why != "the last good one stays: line 7 is wrong" {
		t.Errorf("the condition says %q", why)
	}
	grew("plans that were refused", 0)
	if err := r.replan(next); err != nil || r.conditions()["plan refused"] != "" {
		t.Errorf("a good plan: %v, and the condition stays: %v", err, r.conditions())
	}
	grew("the plan that is held", 0)

	// An interface that comes, and ports that change places.
	r.links.add("later", "tuntap")
	if err := r.agent.do(r.ctx, func() { r.agent.checkLinks(); r.agent.reconcile() }); err != nil {
		t.Fatal(err)
	}
	swapped := next
	swapped.ports = map[string]string{"web1": "later", "web2": "t1"}
	if err := r.replan(swapped); err != nil {
		t.Fatal(err)
	}
	if got := r.kernel.String(); !strings.Contains(got, "port web1 id 1 if 12 vni 7 open\nport web2 id 2 if 11 vni 7 open\n") {
		t.Errorf("after the ports changed places the kernel holds\n%s", got)
	}
}

// TestAloneStartsWithTheFile turns red when the snapshot of the last run is put in force before the file (begin without takeWhole), or when a restart
// writes what is there.
func TestAloneStartsWithTheFile(t *testing.T) {
	r := newAloneRig(t)
	r.links.add("t1", "tuntap")
	r.links.add("t2", "tuntap")
	s := aloneStory{ports: map[string]string{"web1": "t1", "web2": "t2"}, mtu: 1400}
	r.start(s)
	writes := r.kernel.writes
	r.stop()
	r.start(s)
	if r.kernel.writes != writes {
		t.Errorf("a restart wrote %d times", r.kernel.writes-writes)
	}
	r.stop()
	gone := aloneStory{ports: map[string]string{"web2": "t2"}}
	r.start(gone)
	defer func() { r.stop() }()
	want := "accept 7 192.0.2.9\nfdb 7 02:00:00:00:00:09 vtep 1\nnet 7 mtu 1450 local [12] remotes [1] external 1\nport web2 id 2 if 12 vni 7 open\nvtep 1 192.0.2.9\n"
	if got := r.kernel.String(); got != want {
		t.Errorf("with another file the kernel holds\n%swant\n%s", got, want)
	}
}

// TestAloneFollowsTheUplink turns red when the plan is not made anew after the uplink's MTU changed (Say without facts).
func TestAloneFollowsTheUplink(t *testing.T) {
	r := newAloneRig(t)
	r.start(aloneStory{})
	defer func() { r.stop() }()
	r.links.mu.Lock()
	l := r.links.links["eth1"]
	l.MTU = 1600
	r.links.links["eth1"] = l
	r.links.mu.Unlock()
	if err := r.agent.do(r.ctx, r.agent.checkUplink); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(r.kernel.String(), "net 7 mtu 1550 "); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the kernel holds\n%s", r.kernel)
		}
	}
}

// TestAloneHasNoServer turns red when a port can be attached beside the file.
func TestAloneHasNoServer(t *testing.T) {
	r := newAloneRig(t)
	r.start(aloneStory{})
	defer func() { r.stop() }()
	s := &localService{agent: r.agent}
	_, attach := s.Attach(r.ctx, connect.NewRequest(&localv1.AttachRequest{Tenant: "blue", Port: "web1", Interface: &localv1.AttachRequest_Device{Device: "t1"}}))
	_, detach := s.Detach(r.ctx, connect.NewRequest(&localv1.DetachRequest{Tenant: "blue", Port: "web1"}))
	for what, err := range map[string]error{"attach": attach, "detach": detach} {
		if connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "change its file") {
			t.Errorf("%s: %v", what, err)
		}
	}
}
