package server

import (
	"context"
	"slices"
	"sync"
	"testing"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/plan"
	"github.com/weftnet/weft/trust"
)

// double is an agent written by hand: it joins, opens a stream, takes plans by the rules of plan, and acknowledges.
type double struct {
	*clients
	t     *testing.T
	name  string
	uid   string
	id    *trust.HostIdentity
	token string

	mu      sync.Mutex
	staging *plan.Staging
	stream  agentStream
	// brought is how much updates have brought: resources, removals, and scopes that begin anew or end.
	brought int
	// mute: takes plans and does not acknowledge them.
	mute bool
	// plain is how a double opens its streams by stream.Protocol, and not by gRPC: with what, at which address.
	plain func() (agentStream, error)
	// old: of a version that knows no moves by steps.
	old bool
	// fails is why it cannot hold what is on its way to it.
	fails string
	// unready: does not report that it is prepared for a port.
	unready bool
	// prepared is the epoch at which it reported that, by port.
	prepared map[string]int64
	// follows: the server has said that reports may follow each other; reported is the last on this stream.
	follows  bool
	reported *planv1.Report
	ended    chan struct{}
	err      error
	cancel   context.CancelFunc
}

// agentStream is an agent's side of a stream.
type agentStream interface {
	Send(*planv1.AgentMessage) error
	Receive() (*planv1.ServerMessage, error)
	CloseRequest() error
	CloseResponse() error
}

// join makes a host with a token and joins with it.
func (f *fixture) join(t *testing.T, name string) *double {
	t.Helper()
	token := ok(t, f.hosts.CreateHostToken, &weftv1.CreateHostTokenRequest{Host: name}).Token
	d := &double{t: t, name: name, token: token}
	d.rejoin(f)
	return d
}

// rejoin joins with the double's token.
func (d *double) rejoin(f *fixture) {
	d.t.Helper()
	j, err := trust.PrepareJoin(d.t.TempDir())
	if err != nil {
		d.t.Fatal(err)
	}
	res := ok(d.t, f.bearer(d.t, "").agent.Join, &planv1.JoinRequest{Token: d.token, Host: d.name, Csr: j.CSR})
	if d.id, err = j.Accept(res.Certificates, f.pin(d.t), f.clock.now()); err != nil {
		d.t.Fatal(err)
	}
	d.uid = res.HostUid
	d.clients = f.tlsClients(d.t, trust.Pin{}, "", d.id)
	d.staging = plan.NewStaging(d.uid, plan.NewSet(), "", 0)
}

// facts of a host whose uplink has an MTU.
func facts(addr string, mtu uint32) *planv1.Facts {
	return &planv1.Facts{VtepAddresses: []string{addr}, UdpPort: 4789, UplinkMtu: mtu, Uplink: "eth1", Kernel: "6.18"}
}

// open opens a stream and takes plans until it ends.
func (d *double) open(facts *planv1.Facts) {
	d.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	d.cancel = cancel
	d.stream = d.agent.Stream(ctx)
	if d.plain != nil {
		var err error
		if d.stream, err = d.plain(); err != nil {
			d.t.Fatal(err)
		}
	}
	d.ended = make(chan struct{})
	d.err = nil
	// A server that refuses the stream may do so before the hello is out: Receive says why.
	hello := d.staging.Hello("test", facts)
	if d.old {
		hello.Features = nil
	}
	d.mu.Lock()
	d.prepared, d.follows, d.reported = map[string]int64{}, false, nil
	d.mu.Unlock()
	_ = d.stream.Send(&planv1.AgentMessage{Message: &planv1.AgentMessage_Hello{Hello: hello}})
	go func(stream agentStream, ended chan struct{}) {
		defer close(ended)
		defer cancel()
		for {
			m, err := stream.Receive()
			if err != nil {
				d.mu.Lock()
				d.err = err
				d.mu.Unlock()
				stream.CloseRequest()
				stream.CloseResponse()
				return
			}
			if w := m.GetWelcome(); w != nil {
				d.mu.Lock()
				if stream == d.stream {
					d.follows = w.GetFollows() && !d.old
				}
				d.mu.Unlock()
				continue
			}
			d.takeUpdate(stream, m.GetUpdate())
		}
	}(d.stream, d.ended)
	d.t.Cleanup(d.hangUp)
}

func (d *double) takeUpdate(stream agentStream, u *planv1.Update) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if stream != d.stream {
		return // of one that a newer has replaced
	}
	d.brought += len(u.GetUpserts()) + len(u.GetRemovals()) + len(u.GetResetScopes()) + len(u.GetDropScopes())
	applied := &planv1.Applied{StoreId: u.GetStoreId(), Revision: u.GetRevision()}
	step, err := d.staging.Receive(u)
	switch {
	case err != nil:
		applied.Refused = err.Error()
		d.t.Errorf("host %s: %v", d.name, err)
	case step == nil:
		return
	}
	for r := range d.staging.Set().All() {
		if p := r.Port(); d.fails != "" && r.Kind == planv1.Kind_KIND_PORT && p.GetIncoming() == d.uid {
			applied.Errors = append(applied.Errors, &planv1.ResourceError{Kind: planv1.Kind_KIND_PORT, Uid: p.GetUid(), Message: d.fails})
		}
	}
	if !d.mute {
		_ = stream.Send(&planv1.AgentMessage{Message: &planv1.AgentMessage_Applied{Applied: applied}})
		d.prepare(stream)
	}
}

// prepare reports what the double is prepared for, if that is news.
func (d *double) prepare(stream agentStream) {
	report := &planv1.Report{}
	news := false
	for r := range d.staging.Set().All() {
		if p := r.Port(); r.Kind == planv1.Kind_KIND_PORT && p.GetIncoming() == d.uid && !d.unready {
			report.Ports = append(report.Ports, &planv1.PortReport{Uid: p.GetUid(), Epoch: p.GetEpoch(), Prepared: true, State: planv1.PortState_PORT_STATE_HELD})
			news = news || d.prepared[p.GetUid()] != p.GetEpoch()
			d.prepared[p.GetUid()] = p.GetEpoch()
		}
	}
	if news {
		_ = stream.Send(d.shorten(report))
	}
}

// shorten is the message of a report, as an agent sends it. The lock is held.
func (d *double) shorten(r *planv1.Report) *planv1.AgentMessage {
	short := r
	if d.follows {
		short = plan.Shorten(d.reported, r)
	}
	d.reported = r
	return &planv1.AgentMessage{Message: &planv1.AgentMessage_Report{Report: short}}
}

// acknowledge sends what a mute double kept back, and unmutes it.
func (d *double) acknowledge() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mute = false
	_ = d.stream.Send(&planv1.AgentMessage{Message: &planv1.AgentMessage_Applied{Applied: &planv1.Applied{
		StoreId: d.staging.StoreID(), Revision: d.staging.Revision(),
	}}})
	d.prepare(d.stream)
}

// setUnready says whether the double reports what it is prepared for. It takes effect with the next update or acknowledge.
func (d *double) setUnready(unready bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unready = unready
}

func (d *double) setMute(mute bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mute = mute
}

func (d *double) say(m *planv1.AgentMessage) {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.stream.Send(m); err != nil {
		d.t.Fatalf("host %s: send: %v", d.name, err)
	}
}

func (d *double) following() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.follows
}

func (d *double) report(r *planv1.Report) {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.stream.Send(d.shorten(r)); err != nil {
		d.t.Fatalf("host %s: send: %v", d.name, err)
	}
}

// hangUp ends the stream from this side and waits for it.
func (d *double) hangUp() {
	if d.ended == nil {
		return
	}
	// net/http does not look at the context while it waits for more of a request's body.
	d.stream.CloseRequest()
	d.cancel()
	<-d.ended
}

// end waits until the server ends the stream, and says with what.
func (d *double) end() error {
	d.t.Helper()
	eventually(d.t, "the stream of "+d.name+" ended", func() bool {
		select {
		case <-d.ended:
			return true
		default:
			return false
		}
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// holds waits until the double's plan has a port of that name, bound to the host of that uid ("": held by nobody).
func (d *double) holds(port, activeUID string) {
	d.t.Helper()
	eventually(d.t, "host "+d.name+" holds port "+port+" at "+activeUID, func() bool {
		p := d.planned(port)
		return p != nil && p.GetActive() == activeUID
	})
}

// planned is the port of that name in the double's plan, or nil.
func (d *double) planned(port string) *planv1.Port {
	d.mu.Lock()
	defer d.mu.Unlock()
	for r := range d.staging.Set().All() {
		if p := r.Port(); r.Kind == planv1.Kind_KIND_PORT && p.GetName() == port {
			return p
		}
	}
	return nil
}

// network is the network of that display name in the double's plan, or nil.
func (d *double) network(display string) *planv1.Network {
	d.mu.Lock()
	defer d.mu.Unlock()
	for r := range d.staging.Set().All() {
		if r.Kind == planv1.Kind_KIND_NETWORK && r.Network().GetDisplay() == display {
			return r.Network()
		}
	}
	return nil
}

// members are the hosts of a network in the double's plan that ports name and that have a VTEP, sorted.
func (d *double) members(display string) []string {
	n := d.network(display)
	if n == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []string
	for r := range d.staging.Set().Scope(plan.NetworkScope(n.GetUid())) {
		p := r.Port()
		for _, host := range []string{p.GetActive(), p.GetIncoming(), p.GetDraining()} {
			if d.staging.Set().Get(plan.Key{Kind: planv1.Kind_KIND_VTEP, UID: host}) != nil {
				list = append(list, host)
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}
