package agent

import (
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/plan"
)

// oamHub is the OAM network of two hosts.
type oamHub struct {
	mu   sync.Mutex
	ends [2]chan []byte
	cut  bool
}

// open is an end's socket; an earlier one of the same end hears nothing more.
func (h *oamHub) open(i int) probeSocket {
	h.mu.Lock()
	defer h.mu.Unlock()
	in := make(chan []byte, 1000)
	h.ends[i] = in
	return &oamEnd{hub: h, i: i, in: in}
}

func (h *oamHub) setCut(cut bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cut = cut
}

type oamEnd struct {
	hub  *oamHub
	i    int
	in   chan []byte
	once sync.Once
}

func (e *oamEnd) Send(frame []byte, _ int) error {
	e.hub.mu.Lock()
	defer e.hub.mu.Unlock()
	if out := e.hub.ends[1-e.i]; out != nil && !e.hub.cut {
		select {
		case out <- frame:
		default: // as a full queue does
		}
	}
	return nil
}

func (e *oamEnd) Receive() ([]byte, error) {
	b, ok := <-e.in
	if !ok {
		return nil, io.EOF
	}
	return b, nil
}

func (e *oamEnd) Close() error {
	e.hub.mu.Lock()
	defer e.hub.mu.Unlock()
	e.once.Do(func() {
		close(e.in)
		if e.hub.ends[e.i] == e.in {
			e.hub.ends[e.i] = nil
		}
	})
	return nil
}

// mover is two hosts on fakes, one network, and a port that is on h1 and on its way to h2.
type mover struct {
	t              *testing.T
	hub            *oamHub
	source, target *rig
	rev            int64
}

const (
	preparedAt = 300
	macOfWeb1  = "02:00:00:00:77:31"
)

// going is the port on its way, by the plan.
func going(epoch int64, active, incoming, draining string) *plan.Resource {
	p := portOf("web1", active, epoch)
	p.Incoming, p.Draining = incoming, draining
	return plan.NewPort(epoch, p)
}

func newMover(t *testing.T) *mover {
	m := &mover{t: t, hub: &oamHub{}, source: makeRig(t, "h1"), target: makeRig(t, "h2"), rev: 100}
	m.target.links.addrs[0].Prefix = netip.MustParsePrefix("192.0.2.2/24")
	for i, r := range []*rig{m.source, m.target} {
		r.socket = func() probeSocket { return m.hub.open(i) }
		r.links.add("tap0", "tuntap")
		r.start()
	}
	m.send(plan.NewHost(1, &planv1.Host{Uid: "h1", Name: "h1", Vtep: "h1", Networks: []string{"blue"}, Vteps: []string{"h1", "h2"}}),
		vtepOf("h1", 1), vtepOf("h2", 2), plan.NewNetwork(1, networkOf()), going(200, "h1", "", ""))
	if _, err := m.source.attach(tapRequest("web1", "tap0")); err != nil {
		t.Fatal(err)
	}
	return m
}

// send gives both hosts an update of the plan.
func (m *mover) send(list ...*plan.Resource) {
	m.t.Helper()
	for _, r := range []*rig{m.source, m.target} {
		m.sendTo(r, list...)
	}
}

func (m *mover) sendTo(r *rig, list ...*plan.Resource) {
	m.t.Helper()
	m.rev++
	u := &planv1.Update{StoreId: "s1", Revision: m.rev, Last: true}
	for _, res := range list {
		if res.Kind == planv1.Kind_KIND_HOST {
			res = plan.NewHost(1, &planv1.Host{Uid: r.name, Name: r.name, Vtep: r.name, Networks: []string{"blue"}, Vteps: []string{"h1", "h2"}})
		}
		u.Upserts = append(u.Upserts, res.Proto())
	}
	if err := r.agent.Receive(r.ctx, u); err != nil {
		m.t.Fatal(err)
	}
}

// prepare makes the port incoming on the target, where it is attached.
func (m *mover) prepare() {
	m.t.Helper()
	m.send(going(preparedAt, "h1", "h2", ""))
	if at, err := m.target.attach(tapRequest("web1", "tap0")); err != nil || at.State != "held" || at.Move != "incoming" {
		m.t.Fatalf("attached as %v, %v", at, err)
	}
}

func (m *mover) commit() (*localv1.Attachment, error) {
	return m.target.agent.commit(m.target.ctx, &localv1.CommitRequest{Tenant: "acme", Port: "web1"})
}

func (m *mover) mustCommit() *localv1.Attachment {
	m.t.Helper()
	at, err := m.commit()
	if err != nil {
		m.t.Fatal(err)
	}
	return at
}

// has waits until a host's tables have all of these lines, or parts of them.
func (r *rig) has(what string, parts ...string) {
	r.t.Helper()
	r.until(what, func() bool {
		s := r.kernel.String()
		return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(s, p) })
	})
}

const (
	held      = "port web1 id 2 if 11 vni 5001 held"
	open      = "port web1 id 2 if 11 vni 5001 open"
	here      = "fdb 5001 " + macOfWeb1 + " if 11"
	there     = "fdb 5001 " + macOfWeb1 + " vtep 1\n"
	forwarded = "fdb 5001 " + macOfWeb1 + " vtep 1 forward"
)

// report is the last one that says something of a port.
func (r *rig) report(uid string) *planv1.PortReport {
	r.server.mu.Lock()
	defer r.server.mu.Unlock()
	for _, rep := range slices.Backward(r.server.reports) {
		for _, p := range rep.Ports {
			if p.Uid == uid {
				return p
			}
		}
	}
	return &planv1.PortReport{}
}

func (r *rig) commits() []*planv1.CommitRequest {
	r.server.mu.Lock()
	defer r.server.mu.Unlock()
	return slices.Clone(r.server.commits)
}

func (r *rig) attached() *localv1.Attachment {
	r.t.Helper()
	var at *localv1.Attachment
	if err := r.agent.do(r.ctx, func() { at = r.agent.attachmentProto(r.agent.attachmentOf("web1")) }); err != nil {
		r.t.Fatal(err)
	}
	return at
}

func (r *rig) setAway(away bool) {
	r.server.mu.Lock()
	r.server.away = away
	r.server.mu.Unlock()
	if away {
		r.agent.Connection(r.ctx, "", errors.New("gone"))
	} else {
		r.agent.Connection(r.ctx, "server1:7348", nil)
	}
}
