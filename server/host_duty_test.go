package server

import (
	"path/filepath"
	"slices"
	"testing"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/store"
)

// storeOf is a store of the test's own on the server's etcd.
func (f *fixture) storeOf(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{
		Endpoints: []string{"unix://" + filepath.Join(f.cfg.Dir, "etcd", "sockets", "client")}, CompactEvery: -1,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// TestDrainedHost: it keeps what it has and gets no more, by whatever way, until it is returned; a change of its spec does not return it.
// Break it: leave the duty out of bind, or out of takes.
func TestDrainedHost(t *testing.T) {
	f := ownServer(t, Config{})
	from, to, peer := movers(t, f, "drain")
	peer.acknowledge()
	ok(t, f.ports.CreatePort, &weftv1.CreatePortRequest{Tenant: "drain", Name: "free", Spec: &weftv1.PortSpec{Network: "blue"}})
	ok(t, f.ports.MovePort, &weftv1.MovePortRequest{Tenant: "drain", Name: "p", Host: to.name})
	res := ok(t, f.hosts.DrainHost, &weftv1.DrainHostRequest{Name: to.name})
	if s := res.Host.Status; s.Duty != weftv1.HostDuty_HOST_DUTY_DRAINED || s.DutyMessage != "drained by root" || len(res.Ports) != 1 || res.Ports[0].Name != "p" {
		t.Fatalf("%v", res)
	}
	words := []string{"drained", "weft host return " + to.name}
	refused(t, f.ports.BindPort, &weftv1.BindPortRequest{Tenant: "drain", Name: "free", Host: to.name}, conflict, "host", words...)
	refused(t, to.agent.Bind, &planv1.BindRequest{Tenant: "drain", Port: "free"}, conflict, "host", words...)
	refused(t, f.ports.PrepareMove, &weftv1.PrepareMoveRequest{Tenant: "drain", Name: "q", Host: to.name}, conflict, "host", words...)
	refused(t, f.ports.MovePort, &weftv1.MovePortRequest{Tenant: "drain", Name: "q", Host: to.name}, conflict, "host", words...)
	ok(t, f.hosts.UpdateHost, &weftv1.UpdateHostRequest{Name: to.name, Revision: res.Host.Meta.Revision,
		Spec: &weftv1.HostSpec{Migrates: true, WhenSilent: weftv1.WhenSilent_WHEN_SILENT_FAIL}})
	h := ok(t, f.hosts.GetHost, &weftv1.GetHostRequest{Name: to.name})
	if h.Status.Duty != weftv1.HostDuty_HOST_DUTY_DRAINED || !h.Spec.Migrates || h.Spec.WhenSilent != weftv1.WhenSilent_WHEN_SILENT_FAIL {
		t.Errorf("after a change of its spec: %v", h)
	}
	ok(t, f.ports.MovePort, &weftv1.MovePortRequest{Tenant: "drain", Name: "p", Host: from.name})
	if back := ok(t, f.hosts.ReturnHost, &weftv1.ReturnHostRequest{Name: to.name}); back.Status.Duty != weftv1.HostDuty_HOST_DUTY_ACTIVE || back.Status.DutyMessage != "" {
		t.Errorf("returned: %v", back)
	}
	ok(t, to.agent.Bind, &planv1.BindRequest{Tenant: "drain", Port: "free"})
	refused(t, f.hosts.DrainHost, &weftv1.DrainHostRequest{Name: "nobody"}, notFound, "name", "weft host list")
}

// TestFailedHost: its ports bind elsewhere at once, its VTEP leaves the network's members, the move that was under way says why it ended, and
// what the dead host asks for when it is back is refused. Break it: let FailHost leave the bindings to conduct.
func TestFailedHost(t *testing.T) {
	f := ownServer(t, Config{})
	dead, to, peer := movers(t, f, "fail")
	to.setUnready(true)
	peer.acknowledge()
	epoch := ok(t, f.ports.PrepareMove, &weftv1.PrepareMoveRequest{Tenant: "fail", Name: "p", Host: to.name}).Status.Binding.Epoch
	watched, _ := f.watchMove(t, "fail")
	res := ok(t, f.hosts.FailHost, &weftv1.FailHostRequest{Name: dead.name, Reason: "it burns"})
	if !slices.Equal(res.UnboundPorts, []string{"fail/p"}) || res.Host.Status.Duty != weftv1.HostDuty_HOST_DUTY_FAILED ||
		res.Host.Status.DutyMessage != "declared dead by root: it burns" {
		t.Fatalf("%v", res)
	}
	refused(t, dead.agent.Bind, &planv1.BindRequest{Tenant: "fail", Port: "p"}, conflict, "host", "declared dead", "weft host return "+dead.name)
	s := ok(t, to.agent.Bind, &planv1.BindRequest{Tenant: "fail", Port: "p"})
	if s.Epoch <= epoch {
		t.Errorf("bound elsewhere at epoch %d, after %d", s.Epoch, epoch)
	}
	peer.holds("p", to.uid)
	eventually(t, "the dead host is no member", func() bool { return !slices.Contains(peer.members("fail/blue"), dead.uid) })
	eventually(t, "the dead host's own plan gives the port away", func() bool { return dead.planned("p") == nil })
	if got := <-watched; !slices.Equal(got, []weftv1.MovePhase{preparing, aborted}) {
		t.Errorf("the watcher saw %v", got)
	}
	if m := f.at(t, "fail").Move; m.Phase != aborted || m.Message != "host "+dead.name+" was declared dead" {
		t.Errorf("%v", m)
	}
	refused(t, f.hosts.DrainHost, &weftv1.DrainHostRequest{Name: dead.name}, conflict, "name", "weft host return")
	ok(t, f.hosts.ReturnHost, &weftv1.ReturnHostRequest{Name: dead.name})
	ok(t, f.ports.CreatePort, &weftv1.CreatePortRequest{Tenant: "fail", Name: "free", Spec: &weftv1.PortSpec{Network: "blue"}})
	ok(t, dead.agent.Bind, &planv1.BindRequest{Tenant: "fail", Port: "free"})
}

// TestFailedHalfway: what a server that declared a host dead did not get to, another one does. Break it: leave unbindDead out of conduct.
func TestFailedHalfway(t *testing.T) {
	f := ownServer(t, Config{})
	dead, to, peer := movers(t, f, "half")
	peer.acknowledge()
	if _, err := f.storeOf(t).PutDuty(t.Context(), dead.name, model.DutyFailed, "declared dead by root"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its port is free", func() bool { return f.at(t, "half").State == weftv1.PortState_PORT_STATE_UNBOUND })
	ok(t, to.agent.Bind, &planv1.BindRequest{Tenant: "half", Port: "p"})
}
