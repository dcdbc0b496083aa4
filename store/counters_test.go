package store

import (
	"bytes"
	"sync"
	"testing"

	"github.com/weftnet/weft/model"
)

// testSettle: many hosts settle at once, each of them several times, and the sum has each once; it is restored, and goes with its port. Break it:
// leave the comparison with what was seen out of Settle.
func testSettle(t *testing.T, at string) {
	s, ctx := open(t, at), t.Context()
	p, h1, h2 := bindable(t, s)
	b := ok[model.Binding](t)(s.PutBinding(ctx, model.Binding{Port: p.UID, Active: h1.UID}, 0))
	b = ok[model.Binding](t)(s.PutBinding(ctx, model.Binding{Port: p.UID, Active: h2.UID, Draining: h1.UID}, b.Epoch))
	b = ok[model.Binding](t)(s.PutBinding(ctx, model.Binding{Port: p.UID}, b.Epoch))
	counts := model.PortCounts{IngressPackets: 1, IngressOctets: 100, EgressPackets: 2, EgressOctets: 300}
	var wg sync.WaitGroup
	for range 8 {
		for _, h := range []*model.Host{h1, h2} {
			wg.Go(func() {
				if err := s.Settle(ctx, p.UID, h.UID, b.Epoch, counts); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	want := counts.Plus(counts)
	w := ok[*model.World](t)(s.Load(ctx))
	c := w.Counters[p.UID]
	if c == nil || c.Sum != want || c.Settled[h1.UID] != b.Epoch || c.Settled[h2.UID] != b.Epoch || c.Revision == 0 {
		t.Fatalf("%+v", c)
	}
	refused(t, s.Settle(ctx, p.UID, h1.UID, 0, counts), model.Invalid, "epoch", "web1")
	refused(t, s.Settle(ctx, p.UID, "other", b.Epoch, counts), model.Denied, "port_uid", "web1")
	var backup bytes.Buffer
	must(t, s.Backup(ctx, &backup))
	ok[model.Revision](t)(s.DeletePort(ctx, "acme", "web1", now))
	must(t, s.Settle(ctx, p.UID, h1.UID, b.Epoch+1, counts))
	if w := ok[*model.World](t)(s.Load(ctx)); len(w.Counters) != 0 {
		t.Fatalf("the counters outlived their port: %+v", w.Counters)
	}
	ok[int](t)(s.Restore(ctx, &backup))
	if w := ok[*model.World](t)(s.Load(ctx)); w.Counters[p.UID] == nil || w.Counters[p.UID].Sum != want {
		t.Fatalf("restored %+v", w.Counters)
	}
}
