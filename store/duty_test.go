package store

import (
	"slices"
	"testing"

	"github.com/weftnet/weft/model"
)

// testDuty: a host that is drained keeps its ports and gets no more, whoever decided it before; a spec that is written meanwhile changes no
// duty. Break it: let receives ask for the presence only, or UpdateHost write the duty that it was given.
func testDuty(t *testing.T, at string) {
	s, ctx := open(t, at), t.Context()
	p, h1, h2 := bindable(t, s)
	q := port("acme", "web2", "blue", 2)
	must(t, s.CreatePort(ctx, q))
	b := ok[model.Binding](t)(s.PutBinding(ctx, model.Binding{Port: p.UID, Active: h2.UID}, 0))
	before := *h2
	drained := ok[*model.Host](t)(s.PutDuty(ctx, "h2", model.DutyDrained, "drained by root"))
	if drained.Duty != model.DutyDrained || drained.Revision <= before.Revision {
		t.Fatalf("%+v", drained)
	}
	again := ok[*model.Host](t)(s.PutDuty(ctx, "h2", model.DutyDrained, "another"))
	if again.DutyMessage != "drained by root" || again.Revision != drained.Revision {
		t.Fatalf("drained again: %+v", again)
	}
	_, err := s.PutBinding(ctx, model.Binding{Port: q.UID, Active: h2.UID}, 0)
	refused(t, err, model.Conflict, "host", "drained")
	bq := ok[model.Binding](t)(s.PutBinding(ctx, model.Binding{Port: q.UID, Active: h1.UID}, 0))
	_, err = s.PutMove(ctx, bq.Preparing(h2.UID), bq.Epoch, &model.Move{From: h1.UID, To: h2.UID, Phase: model.MovePreparing})
	refused(t, err, model.Conflict, "host", "weft host return h2")
	// What it has it keeps, and may give away.
	b = ok[model.Binding](t)(s.PutBinding(ctx, b.Preparing(h1.UID), b.Epoch))
	b = ok[model.Binding](t)(s.PutBinding(ctx, b.Committed(), b.Epoch))
	if b.Draining != h2.UID {
		t.Fatalf("%+v", b)
	}

	spec := *drained
	spec.Duty, spec.Spec.Description = model.DutyActive, "rack 2"
	must(t, s.UpdateHost(ctx, &spec))
	w := ok[*model.World](t)(s.Load(ctx))
	if h := w.HostByName("h2"); h.Duty != model.DutyDrained || h.Spec.Description != "rack 2" || spec.Duty != model.DutyDrained {
		t.Fatalf("after an update of the spec: %+v", h)
	}
	ok[*model.Host](t)(s.PutDuty(ctx, "h2", model.DutyActive, ""))
	ok[model.Binding](t)(s.PutBinding(ctx, model.Binding{Port: q.UID, Active: h2.UID}, bq.Epoch))
	_, err = s.PutDuty(ctx, "none", model.DutyDrained, "")
	refused(t, err, model.NotFound, "name", "none")
}

// testHostFailed: the ports of a host that is declared dead are free, those that were on their way stay where they were, and each move's record
// says why. Break it: leave the moves out of unbindOne, or the other hosts' indices.
func testHostFailed(t *testing.T, at string) {
	s, ctx := open(t, at), t.Context()
	_, dead, other := bindable(t, s)
	type way struct {
		binding, want model.Binding
		phase, ends   model.MovePhase
	}
	ways := []way{
		{binding: model.Binding{Active: dead.UID}},
		{model.Binding{Active: dead.UID, Incoming: other.UID}, model.Binding{}, model.MovePrepared, model.MoveAborted},
		{model.Binding{Active: other.UID, Incoming: dead.UID}, model.Binding{Active: other.UID}, model.MovePreparing, model.MoveAborted},
		{model.Binding{Active: dead.UID, Draining: other.UID}, model.Binding{}, model.MoveDraining, model.MoveDone},
		{model.Binding{Active: other.UID, Draining: dead.UID}, model.Binding{Active: other.UID}, model.MoveDraining, model.MoveDone},
	}
	var ports []*model.Port
	var epochs []model.Epoch
	for i, c := range ways {
		q := port("acme", "p"+string(rune('a'+i)), "blue", byte(20+i))
		must(t, s.CreatePort(ctx, q))
		c.binding.Port = q.UID
		var b model.Binding
		if c.phase == "" {
			b = ok[model.Binding](t)(s.PutBinding(ctx, c.binding, 0))
		} else {
			b = ok[model.Binding](t)(s.PutMove(ctx, c.binding, 0, &model.Move{Phase: c.phase}))
		}
		ports, epochs = append(ports, q), append(epochs, b.Epoch)
	}
	h, unbound, err := s.FailHost(ctx, "h1", "declared dead by root", now)
	must(t, err)
	if h.Duty != model.DutyFailed || h.DutyMessage != "declared dead by root" {
		t.Fatalf("%+v", h)
	}
	w := ok[*model.World](t)(s.Load(ctx))
	for i, c := range ways {
		b, m := w.Bindings[ports[i].UID], w.Moves[ports[i].UID]
		if b.Active != c.want.Active || b.Incoming != "" || b.Draining != "" || b.Epoch <= epochs[i] {
			t.Errorf("%+v became %+v, after epoch %d", c.binding, b, epochs[i])
		}
		if c.phase != "" && (m.Phase != c.ends || m.Message != "host h1 was declared dead" || m.Ended.IsZero()) {
			t.Errorf("the move of %+v: %+v", c.binding, m)
		}
		if free := c.want.Active == ""; free != slices.Contains(unbound, ports[i].UID) {
			t.Errorf("port %d: unbound %v", i, unbound)
		}
	}
	// Nothing is left in the index of ports on hosts but what the bindings say.
	for _, host := range []*model.Host{dead, other} {
		on := ok[*view](t)(s.look(ctx, list(s.keys.in("idx/on", string(host.UID)))))
		n := 0
		for _, b := range w.Bindings {
			for at := range b.Hosts() {
				if at == host.UID {
					n++
				}
			}
		}
		if len(on.all(0)) != n {
			t.Errorf("host %s: %d ports in the index, %d bindings", host.Name, len(on.all(0)), n)
		}
	}
	_, err = s.PutBinding(ctx, model.Binding{Port: ports[0].UID, Active: dead.UID}, w.Bindings[ports[0].UID].Epoch)
	refused(t, err, model.Conflict, "host", "declared dead")
	ok[model.Binding](t)(s.PutBinding(ctx, model.Binding{Port: ports[0].UID, Active: other.UID}, w.Bindings[ports[0].UID].Epoch))
	_, err = s.PutDuty(ctx, "h1", model.DutyDrained, "")
	refused(t, err, model.Conflict, "name", "weft host return")
	_, unbound, err = s.FailHost(ctx, "h1", "again", now)
	if err != nil || len(unbound) > 0 {
		t.Errorf("failed again: %v, %v", unbound, err)
	}
}

// testReturnedHost: what goes on with the unbinding of a dead host, and has not heard that it was taken back into service or removed since,
// takes nothing from it. Break it: leave stillDead out of unbind.
func testReturnedHost(t *testing.T, at string) {
	s, ctx := open(t, at), t.Context()
	p, h, _ := bindable(t, s)
	failed := ok[*model.Host](t)(s.PutDuty(ctx, h.Name, model.DutyFailed, "declared dead by root"))
	ok[*model.Host](t)(s.PutDuty(ctx, h.Name, model.DutyActive, ""))
	b := ok[model.Binding](t)(s.PutBinding(ctx, model.Binding{Port: p.UID, Active: h.UID}, 0))
	_, err := s.UnbindFailed(ctx, failed, now)
	refused(t, err, model.Conflict, "host", "taken back into service")
	w := ok[*model.World](t)(s.Load(ctx))
	if w.Hosts[h.UID].Duty != model.DutyActive || *w.Bindings[p.UID] != b {
		t.Fatalf("%+v, %+v", w.Hosts[h.UID], w.Bindings[p.UID])
	}
	ok[*model.Host](t)(s.PutDuty(ctx, h.Name, model.DutyFailed, "declared dead by root"))
	if freed := ok[[]model.UID](t)(s.UnbindFailed(ctx, failed, now)); len(freed) != 1 || freed[0] != p.UID {
		t.Fatalf("freed %v", freed)
	}
}
