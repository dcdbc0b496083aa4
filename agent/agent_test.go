package agent

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/plan"
	"github.com/weftnet/weft/wire"
)

// rig is an agent's loop on fakes, with a plan that a test changes.
type rig struct {
	t      *testing.T
	dir    string
	kernel *fakeKernel
	links  *fakeLinks
	server *fakeServer
	agent  *Agent
	ctx    context.Context
	stop   func()
	rev    int64
	// loss is Config.AcceptLoss of the next start.
	loss bool
	// name of the host; socket makes its end of the OAM network, if there is one.
	name   string
	socket func() probeSocket
	log    *slog.Logger
}

func newRig(t *testing.T) *rig {
	r := makeRig(t, "h1")
	r.start()
	return r
}

// makeRig makes one that is still to be started.
func makeRig(t *testing.T, name string) *rig {
	r := &rig{t: t, dir: t.TempDir(), kernel: newFakeKernel(), links: newFakeLinks(), rev: 100, name: name, log: slog.New(slog.DiscardHandler)}
	r.links.far["/run/netns/work"] = map[string]bool{}
	attached := func(index int) (datapath.Port, bool) { // flips write beside the loop
		r.kernel.mu.Lock()
		defer r.kernel.mu.Unlock()
		p, ok := r.kernel.ports[uint32(index)]
		return p, ok
	}
	r.links.guarded = func(index int) bool { _, ok := attached(index); return ok }
	r.links.fast = func(index int) bool { p, _ := attached(index); return p.FastPath }
	r.server = &fakeServer{bound: map[string]bool{}, said: make(chan struct{}, 1)}
	r.server.onBind = func(tenant, port string) *planv1.BindResponse {
		r.rev++
		if !r.server.silent {
			go r.send(plan.NewPort(r.rev, portOf(port, name, r.rev)))
		}
		return &planv1.BindResponse{PortUid: port, NetworkUid: "blue", Epoch: r.rev, Revision: r.rev}
	}
	t.Cleanup(func() { r.stop(); r.checkOrder() })
	return r
}

func portOf(uid, host string, epoch int64) *planv1.Port {
	return &planv1.Port{
		Uid: uid, Network: "blue", Macs: [][]byte{{2, 0, 0, 0, uid[0], uid[len(uid)-1]}}, Ips: []string{"10.1.0.5/24"}, Epoch: epoch,
		Active: host, Vtep: host, TenantName: "acme", Name: uid,
	}
}

func networkOf() *planv1.Network {
	return &planv1.Network{Uid: "blue", Vni: 5001, Mtu: 1450, Display: "acme/blue"}
}

// bindPatience is the BindTimeout of rigs: longer than this machine stands still.
const bindPatience = time.Minute

// start is the agent's part of Run that does not touch the machine.
func (r *rig) start() {
	r.t.Helper()
	cfg := Config{
		Name: r.name, Servers: []string{"server1:7348"}, Dir: r.dir, Log: r.log, Uplink: "eth1", ProbeEvery: time.Hour,
		BindTimeout: bindPatience, ReportEvery: time.Hour, AuditEvery: time.Hour, AcceptLoss: r.loss,
	}.withDefaults()
	a := newAgent(cfg, &served{cfg: cfg})
	a.kernel, a.links, a.server, a.xdpEvents = r.kernel, r.links, r.server, r.links.xdp
	var err error
	if a.uplink, err = findUplink(cfg, r.links, datapath.Local{}); err != nil {
		r.t.Fatal(err)
	}
	if err := a.load(r.name); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var loop sync.WaitGroup
	if r.socket != nil {
		a.useProbes(r.socket(), 5, func() string { return "" })
		loop.Go(func() { a.prober.Run(ctx) })
	}
	a.probe()
	a.reconcile()
	frames, err := r.kernel.FirstFrames(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	loop.Go(func() { a.firstFrames(ctx, frames) })
	told, err := r.kernel.Strangers(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	loop.Go(func() { a.meetStrangers(ctx, told) })
	loop.Go(func() {
		if err := a.loop(ctx, r.links.events); err != nil {
			r.t.Error(err)
		}
	})
	r.agent, r.ctx = a, ctx
	r.stop = func() { cancel(); loop.Wait() }
	if !r.server.away {
		a.Connection(ctx, "server1:7348", nil)
	}
}

// restart is a stop and a start; kill starts again without the last snapshot's being written.
func (r *rig) restart() {
	r.stop()
	r.start()
}

// send is an update to the next revision.
func (r *rig) send(upserts ...*plan.Resource) error {
	u := &planv1.Update{StoreId: "s1", Revision: r.revision(), Last: true}
	for _, res := range upserts {
		u.Upserts = append(u.Upserts, res.Proto())
	}
	return r.agent.Receive(r.ctx, u)
}

func (r *rig) revision() int64 {
	r.server.mu.Lock()
	defer r.server.mu.Unlock()
	r.rev++
	return r.rev
}

func vtepOf(uid string, last byte) *plan.Resource {
	return plan.NewVTEP(1, &planv1.Vtep{Uid: uid, Name: uid, Addresses: [][]byte{{192, 0, 2, last}}, UdpPort: 4789})
}

func hostOf() *plan.Resource {
	return plan.NewHost(1, &planv1.Host{Uid: "h1", Name: "h1", Vtep: "h1", Networks: []string{"blue"}, Vteps: []string{"h1", "h2"}})
}

// base is two hosts, one network, and a port that is bound nowhere.
func (r *rig) base() {
	r.t.Helper()
	if err := r.send(hostOf(), vtepOf("h1", 1), vtepOf("h2", 2), plan.NewNetwork(1, networkOf()), plan.NewPort(1, portOf("away", "h2", 5))); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) attach(req *localv1.AttachRequest) (*localv1.Attachment, error) {
	return r.agent.attach(r.ctx, req)
}

func tapRequest(port, tap string) *localv1.AttachRequest {
	return &localv1.AttachRequest{Tenant: "acme", Port: port, Interface: &localv1.AttachRequest_Tap{Tap: tap}}
}

func (r *rig) tables() (s string) {
	if err := r.agent.do(r.ctx, func() { s = r.kernel.String() }); err != nil {
		r.t.Fatal(err)
	}
	return s
}

// until waits for a condition of the loop's.
func (r *rig) until(what string, ok func() bool) {
	r.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		done := false
		if err := r.agent.do(r.ctx, func() { done = ok() }); err != nil {
			r.t.Fatal(err)
		}
		if done {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%s did not happen:\n%s", what, r.tables())
		}
	}
}

func (r *rig) checkOrder() {
	for _, s := range slices.Concat(r.kernel.unsafe, r.links.unsafe) {
		r.t.Errorf("unsafe order: %s", s)
	}
}

func (r *rig) wants(part string) {
	r.t.Helper()
	if s := r.tables(); !strings.Contains(s, part) {
		r.t.Errorf("no %q in:\n%s", part, s)
	}
}

// without waits until the tables have none of that: interfaces are taken away a moment later.
func (r *rig) without(part string) {
	r.t.Helper()
	r.until("an end of "+part, func() bool { return !strings.Contains(r.kernel.String(), part) })
}

func codeOf(t *testing.T, err error, code connect.Code, parts ...string) {
	t.Helper()
	if connect.CodeOf(err) != code || err == nil {
		t.Errorf("got %v, want %v", err, code)
		return
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("%q does not say %q", err, p)
		}
	}
}

// TestAttach turns red when a port is not bound, not opened, or not let go.
func TestAttach(t *testing.T) {
	r := newRig(t)
	r.base()
	r.links.add("tap0", "tuntap")
	at, err := r.attach(tapRequest("web1", "tap0"))
	if err != nil {
		t.Fatal(err)
	}
	if at.State != "active" || at.Mtu != 1450 || at.Vni != 5001 || at.Ips[0] != "10.1.0.5/24" {
		t.Errorf("attached as %v", at)
	}
	r.wants("vni 5001 open")
	again, err := r.attach(tapRequest("web1", "tap0"))
	if err != nil || again.State != "active" {
		t.Errorf("attaching again: %v, %v", again, err)
	}
	if err := r.agent.detach(r.ctx, &localv1.DetachRequest{Tenant: "acme", Port: "web1"}); err != nil {
		t.Fatal(err)
	}
	if s := r.tables(); strings.Contains(s, "port web1") {
		t.Errorf("still there:\n%s", s)
	}
	if r.server.bound["acme/web1"] {
		t.Error("still bound")
	}
	if err := r.send(plan.NewPort(1, portOf("web1", "", 900))); err != nil {
		t.Fatal(err)
	}
	codeOf(t, r.agent.detach(r.ctx, &localv1.DetachRequest{Tenant: "acme", Port: "web1"}), connect.CodeNotFound, "acme/web1", "weft port show")
}

// TestAttachRefused turns red when a refusal leaves something behind, or does not say what to do.
func TestAttachRefused(t *testing.T) {
	r := newRig(t)
	r.base()
	r.links.add("tap0", "tuntap")
	r.links.add("tap1", "tuntap")
	r.links.add("dev0", "bridge")
	try := func(req *localv1.AttachRequest, code connect.Code, parts ...string) {
		t.Helper()
		_, err := r.attach(req)
		codeOf(t, err, code, parts...)
		if s := r.tables(); strings.Contains(s, "port ") {
			t.Errorf("something is left:\n%s", s)
		}
		r.until("no attachment", func() bool { return len(r.agent.atts.byUID) == 0 })
	}
	try(tapRequest("", "tap0"), connect.CodeInvalidArgument, "port:")
	try(tapRequest("web1", "tap9"), connect.CodeNotFound, "tap9", "ip tuntap add")
	try(tapRequest("web1", "dev0"), connect.CodeInvalidArgument, "bridge", "--device")
	try(&localv1.AttachRequest{Tenant: "acme", Port: "web1"}, connect.CodeInvalidArgument, "--netns")
	try(&localv1.AttachRequest{Tenant: "acme", Port: "web1", Interface: &localv1.AttachRequest_Device{Device: "eth1"}}, connect.CodeFailedPrecondition, "eth1")
	try(&localv1.AttachRequest{Tenant: "acme", Port: "web1", Interface: &localv1.AttachRequest_Netns{
		Netns: &localv1.NetnsInterface{Netns: "wefttest-agent-missing"}}}, connect.CodeNotFound, "wefttest-agent-missing", "ip netns list")

	r.server.refuse = connect.NewError(connect.CodeFailedPrecondition, errors.New("port acme/web1 is bound to host h2; move it with `weft port move web1 --host h1`"))
	try(tapRequest("web1", "tap0"), connect.CodeFailedPrecondition, "h2", "weft port move")
	r.server.refuse = nil
	r.server.away = true
	try(tapRequest("web1", "tap0"), connect.CodeUnavailable, "server1:7348", "without a server")
	r.server.away = false

	r.server.silent = true
	r.agent.cfg.BindTimeout = 10 * time.Millisecond
	try(tapRequest("web1", "tap0"), connect.CodeDeadlineExceeded, "plan did not bring it")
	if len(r.server.bound) != 0 {
		t.Errorf("still bound: %v", r.server.bound)
	}
	r.server.silent = false
	r.agent.cfg.BindTimeout = bindPatience

	big := networkOf()
	big.Mtu = 1500
	if err := r.send(plan.NewNetwork(2, big)); err != nil {
		t.Fatal(err)
	}
	try(tapRequest("web1", "tap0"), connect.CodeFailedPrecondition, "1500", "1550")
	if len(r.server.bound) != 0 {
		t.Errorf("still bound: %v", r.server.bound)
	}
	if err := r.send(plan.NewNetwork(3, networkOf())); err != nil {
		t.Fatal(err)
	}
	r.kernel.fdbLimit = 1
	try(tapRequest("web2", "tap0"), connect.CodeResourceExhausted, "table is full")
}

// TestServerAway turns red when what is bound here cannot be attached without a server, or when a detachment is half done.
func TestServerAway(t *testing.T) {
	r := newRig(t)
	r.base()
	if err := r.send(plan.NewPort(1, portOf("web1", "h1", 50))); err != nil {
		t.Fatal(err)
	}
	r.server.away = true
	r.agent.Connection(r.ctx, "", errors.New("gone"))
	r.links.add("tap0", "tuntap")
	if _, err := r.attach(tapRequest("web1", "tap0")); err != nil {
		t.Fatal(err)
	}
	r.wants("vni 5001 open")
	codeOf(t, r.agent.detach(r.ctx, &localv1.DetachRequest{Tenant: "acme", Port: "web1"}), connect.CodeUnavailable, "stays attached")
	r.wants("vni 5001 open")
}

// TestHeadless turns red when a restart without a server writes anything at all into the kernel.
func TestHeadless(t *testing.T) {
	r := newRig(t)
	r.base()
	r.links.add("tap0", "tuntap")
	if _, err := r.attach(tapRequest("web1", "tap0")); err != nil {
		t.Fatal(err)
	}
	r.server.away = true
	before := r.tables()
	r.stop()
	writes := r.kernel.writes
	r.start()
	if after := r.tables(); after != before {
		t.Errorf("was:\n%s\nis:\n%s", before, after)
	}
	if r.kernel.writes != writes {
		t.Errorf("%d writes", r.kernel.writes-writes)
	}
	// A host that rebooted has an empty kernel, and fills it from the snapshot.
	r.stop()
	*r.kernel = *newFakeKernel()
	r.start()
	if after := r.tables(); after != before {
		t.Errorf("after a reboot:\n%s\nwas:\n%s", after, before)
	}
}

// TestNoMemory turns red when an agent that lost its files tears down what works, before or after a server answers.
func TestNoMemory(t *testing.T) {
	r := newRig(t)
	r.base()
	r.links.add("tap0", "tuntap")
	if _, err := r.attach(tapRequest("web1", "tap0")); err != nil {
		t.Fatal(err)
	}
	before := r.tables()
	set := r.agent.staging.Set()
	r.stop()
	if err := os.RemoveAll(r.dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(r.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	writes := r.kernel.writes
	r.start()
	if r.kernel.writes != writes {
		t.Errorf("%d writes without a plan", r.kernel.writes-writes)
	}
	if err := r.send(slices.Collect(set.All())...); err != nil {
		t.Fatal(err)
	}
	if after := r.tables(); after != before || r.kernel.writes != writes {
		t.Errorf("%d writes; was:\n%s\nis:\n%s", r.kernel.writes-writes, before, after)
	}
}

// TestMoveAway turns red when a port that moved is not held and removed, or when a restart without a server opens it again.
func TestMoveAway(t *testing.T) {
	r := newRig(t)
	r.base()
	r.links.add("tap0", "tuntap")
	if _, err := r.attach(tapRequest("web1", "tap0")); err != nil {
		t.Fatal(err)
	}
	if err := r.send(plan.NewPort(1, portOf("web1", "h2", 500))); err != nil {
		t.Fatal(err)
	}
	r.wants("fdb 5001 02:00:00:00:77:31 vtep 1")
	r.without("port web1")
	// An old plan comes back with a server that was restored: the epoch is remembered over restarts.
	r.restart()
	if err := r.send(plan.NewPort(1, portOf("web1", "h1", 400))); err != nil {
		t.Fatal(err)
	}
	if len(r.agent.lastApplied.Errors) != 1 || !strings.Contains(r.agent.lastApplied.Errors[0].Message, "epoch 400 is lower than 500") {
		t.Errorf("errors: %v", r.agent.lastApplied.Errors)
	}
	r.wants("fdb 5001 02:00:00:00:77:31 vtep 1")
}

// TestInterfaceComesBack turns red when a TAP that a VM makes again is not attached again.
func TestInterfaceComesBack(t *testing.T) {
	r := newRig(t)
	r.base()
	r.links.add("tap0", "tuntap")
	if _, err := r.attach(tapRequest("web1", "tap0")); err != nil {
		t.Fatal(err)
	}
	r.links.drop("tap0")
	r.until("the port's end", func() bool { return len(r.kernel.ports) == 0 })
	l := r.links.add("tap0", "tuntap")
	r.until("the port's return", func() bool {
		p, ok := r.kernel.ports[uint32(l.Index)]
		return ok && !p.Held
	})
	if l, err := r.links.Link("tap0"); err != nil || !l.Up {
		t.Errorf("the interface is not up: %v %v", l, err)
	}
}

// TestGuard turns red when a plan that removes most of what is held, without evidence, is taken.
func TestGuard(t *testing.T) {
	r := newRig(t)
	r.base()
	var many []*plan.Resource
	for _, c := range "abcdefghijklmnopqrst" {
		many = append(many, plan.NewPort(1, portOf("port"+string(c), "h2", 7)))
	}
	if err := r.send(many...); err != nil {
		t.Fatal(err)
	}
	before := r.tables()
	err := r.agent.Receive(r.ctx, &planv1.Update{StoreId: "s1", Revision: r.revision(), Last: true, ResetScopes: []string{plan.NetworkScope("blue")}})
	if err == nil {
		t.Fatal("it was taken")
	}
	if last := r.server.applied[len(r.server.applied)-1]; last.Refused == "" {
		t.Errorf("said %v", last)
	}
	if after := r.tables(); after != before {
		t.Errorf("was:\n%s\nis:\n%s", before, after)
	}
	// The next stream brings it with evidence.
	hello, err := r.agent.Hello(r.ctx)
	if err != nil || hello.Revision == 0 || len(hello.Scopes) == 0 {
		t.Fatalf("hello %v, %v", hello, err)
	}
	if err := r.send(); err != nil {
		t.Error(err)
	}
}

// TestUplink turns red when a changed MTU or address does not reach kernel and server, or next hops are not managed.
func TestUplink(t *testing.T) {
	r := newRig(t)
	r.base()
	r.until("the next hop", func() bool {
		r.links.mu.Lock()
		defer r.links.mu.Unlock()
		return len(r.links.managed) == 1
	})
	r.links.mu.Lock()
	l := r.links.links["eth1"]
	l.MTU = 9000
	r.links.links["eth1"] = l
	r.links.mu.Unlock()
	r.links.events <- netdev.Event{Kind: netdev.EventLink, Index: 2, Link: l}
	r.until("the new MTU", func() bool {
		r.server.mu.Lock()
		defer r.server.mu.Unlock()
		return r.kernel.local.UplinkMTU == 9000 && len(r.server.facts) > 0 && r.server.facts[len(r.server.facts)-1].UplinkMtu == 9000
	})
}

// TestLeftovers turns red when an interface that an earlier agent made and nothing explains survives a restart, or one
// that is not weft's does not.
func TestLeftovers(t *testing.T) {
	r := newRig(t)
	r.base()
	name := netdev.PortInterface("gone")
	r.stop()
	r.links.links[name] = netdev.Link{Index: 77, Name: name, Kind: "veth", Alias: netdev.Mark{Instance: "default", Port: "gone"}.String()}
	r.links.links["weftsomething"] = netdev.Link{Index: 78, Name: "weftsomething", Kind: "veth"}
	r.start()
	names := slices.Sorted(maps.Keys(r.links.links))
	if slices.Contains(names, name) || !slices.Contains(names, "weftsomething") {
		t.Errorf("interfaces: %v", names)
	}
}

// TestReport turns red when a report does not say the state of a port.
func TestReport(t *testing.T) {
	r := newRig(t)
	r.base()
	if err := r.send(plan.NewPort(1, portOf("idle", "h1", 60))); err != nil {
		t.Fatal(err)
	}
	r.links.add("tap0", "tuntap")
	if _, err := r.attach(tapRequest("web1", "tap0")); err != nil {
		t.Fatal(err)
	}
	r.until("the report", func() bool {
		r.server.mu.Lock()
		defer r.server.mu.Unlock()
		if len(r.server.reports) == 0 {
			return false
		}
		got := map[string]planv1.PortState{}
		for _, p := range r.server.reports[len(r.server.reports)-1].Ports {
			got[p.Uid] = p.State
		}
		return maps.Equal(got, map[string]planv1.PortState{"idle": planv1.PortState_PORT_STATE_DETACHED, "web1": planv1.PortState_PORT_STATE_ACTIVE})
	})
}

// ownNetns is a namespace that can be opened in any test; the fake takes it for another's.
const ownNetns = "/proc/self/ns/net"

func netnsRequest(port string) *localv1.AttachRequest {
	return &localv1.AttachRequest{Tenant: "acme", Port: port, Interface: &localv1.AttachRequest_Netns{Netns: &localv1.NetnsInterface{Netns: ownNetns}}}
}

// TestVeth turns red when a veth is not made as the plan says, does not follow it, or survives its port; or when a name that is
// taken inside leaves anything behind.
func TestVeth(t *testing.T) {
	r := newRig(t)
	r.base()
	r.links.far[ownNetns] = map[string]bool{"eth0": true}
	_, err := r.attach(netnsRequest("web1"))
	codeOf(t, err, connect.CodeAlreadyExists, "eth0", "--ifname")
	if len(r.server.bound) != 0 {
		t.Errorf("still bound: %v", r.server.bound)
	}
	r.links.far[ownNetns] = map[string]bool{}
	if err := r.send(plan.NewPort(1, portOf("web1", "", 600))); err != nil {
		t.Fatal(err)
	}
	r.rev = 700
	at, err := r.attach(netnsRequest("web1"))
	if err != nil || at.Ifname != "eth0" || at.State != "active" {
		t.Fatalf("%v %v", at, err)
	}
	made := func() veth {
		r.links.mu.Lock()
		defer r.links.mu.Unlock()
		return r.links.veths[at.Interface]
	}
	if v := made(); v.mtu != 1450 || v.mac != (wire.MAC{2, 0, 0, 0, 'w', '1'}) || len(v.ips) != 1 || v.ips[0].String() != "10.1.0.5/24" {
		t.Errorf("made %+v", v)
	}
	if l, err := r.links.Link(at.Interface); err != nil || !l.Up {
		t.Errorf("attached, and not up: %+v %v", l, err)
	}
	smaller := networkOf()
	smaller.Mtu = 1400
	other := portOf("web1", "h1", 900)
	other.Ips = []string{"10.1.0.6/24"}
	if err := r.send(plan.NewNetwork(2, smaller), plan.NewPort(2, other)); err != nil {
		t.Fatal(err)
	}
	if v := made(); v.mtu != 1400 || v.ips[0].String() != "10.1.0.6/24" || len(v.gone) != 1 || v.gone[0].String() != "10.1.0.5/24" {
		t.Errorf("after the change it is %+v", v)
	}
	if err := r.agent.detach(r.ctx, &localv1.DetachRequest{Tenant: "acme", Port: "web1"}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.links.Link(at.Interface); !errors.Is(err, netdev.ErrNotFound) {
		t.Errorf("after the detachment: %v", err)
	}
}

// TestAudit turns red when what somebody else did to the kernel's tables stays.
func TestAudit(t *testing.T) {
	r := newRig(t)
	r.base()
	r.links.add("tap0", "tuntap")
	if _, err := r.attach(tapRequest("web1", "tap0")); err != nil {
		t.Fatal(err)
	}
	before := r.tables()
	if err := r.agent.do(r.ctx, func() {
		clear(r.kernel.fdb)
		for a := range r.kernel.accepts {
			delete(r.kernel.accepts, a)
		}
		r.kernel.accepts[datapath.Accept{VNI: 77, Addr: addrs[1]}] = 0
		r.agent.audit()
	}); err != nil {
		t.Fatal(err)
	}
	if after := r.tables(); after != before {
		t.Errorf("was:\n%s\nis:\n%s", before, after)
	}
}

// TestReportHasTheBooks: what the programs did, why packets changed the lane, and where programs are attached, are said with every report.
// Break it: swap two columns in reportBooks.
func TestReportHasTheBooks(t *testing.T) {
	r := newRig(t)
	r.until("a report with the books", func() bool {
		r.server.mu.Lock()
		defer r.server.mu.Unlock()
		if len(r.server.reports) == 0 {
			return false
		}
		last := r.server.reports[len(r.server.reports)-1]
		want := &planv1.ProgramBooks{Program: "from_port", In: 36, Delivered: 1, Encapsulated: 2, Passed: 4, Dropped: 21, Copies: 5, Answers: 20, Answered: 8}
		return len(last.Books) == 1 && proto.Equal(last.Books[0], want) && len(last.Lanes) == 1 && last.Lanes[0].Reason == "checksum" &&
			last.Lanes[0].Packets == 4 && len(last.Programs) == 1 && len(last.Capabilities) == 2 &&
			proto.Equal(last.Capabilities[1], &planv1.Capability{Name: "GRO", Interface: "eth1", Detail: "gro"})
	})
}
