package store

import (
	"fmt"
	"testing"

	"github.com/weftnet/weft/model"
)

// BenchmarkPort is a port's whole life: create, bind, unbind, delete; each is a transaction on disk.
func BenchmarkPort(b *testing.B) {
	s := open(b, embeddedEndpoint(b))
	ctx := b.Context()
	must(b, s.CreateTenant(ctx, tenant("acme")))
	must(b, s.CreateNetwork(ctx, network("acme", "blue", 5001, "10.1.0.0/24")))
	h := host("h1")
	must(b, s.CreateHost(ctx, h))
	for b.Loop() {
		p := port("acme", "web1", "blue", 1, "10.1.0.2/24")
		must(b, s.CreatePort(ctx, p))
		bound := ok[model.Binding](b)(s.PutBinding(ctx, model.Binding{Port: p.UID, Active: h.UID}, 0))
		ok[model.Binding](b)(s.PutBinding(ctx, model.Binding{Port: p.UID}, bound.Epoch))
		ok[model.Revision](b)(s.DeletePort(ctx, "acme", "web1", now))
	}
}

// BenchmarkOpen is a start with what is there already.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	for b.Loop() {
		s, err := Open(b.Context(), Config{Dir: dir, CompactEvery: -1})
		must(b, err)
		must(b, s.Close())
	}
}

// BenchmarkLoad reads a world of 2,000 ports.
func BenchmarkLoad(b *testing.B) {
	s := open(b, embeddedEndpoint(b))
	ctx := b.Context()
	must(b, s.CreateTenant(ctx, tenant("acme")))
	must(b, s.CreateNetwork(ctx, network("acme", "blue", 5001, "10.1.0.0/16")))
	for i := range 2000 {
		must(b, s.CreatePort(ctx, port("acme", fmt.Sprintf("p%d", i), "blue", 0, fmt.Sprintf("10.1.%d.%d/16", 1+i/200, 1+i%200))))
	}
	for b.Loop() {
		ok[*model.World](b)(s.Load(ctx))
	}
}
