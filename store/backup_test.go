package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/weftnet/weft/model"
)

// stripped is a world without what a restore changes: ids and revisions.
func stripped(w *model.World) *model.World {
	w.StoreID, w.Revision = "", 0
	for _, o := range w.Tenants {
		o.Revision = 0
	}
	for _, o := range w.Networks {
		o.Revision = 0
	}
	for _, o := range w.Ports {
		o.Revision = 0
	}
	for _, o := range w.Hosts {
		o.Revision = 0
	}
	for _, o := range w.VTEPs {
		o.Revision = 0
	}
	for _, o := range w.GroupPools {
		o.Revision = 0
	}
	for _, o := range w.Pools {
		o.Revision = 0
	}
	for _, o := range w.Bindings {
		o.Epoch = 0
	}
	for _, o := range w.Tombstones {
		o.Revision = 0
	}
	for _, o := range w.VNIs {
		o.Freed = 0
	}
	return w
}

func filled(t *testing.T, s *Store) model.Binding {
	t.Helper()
	ctx := t.Context()
	p, h1, h2 := bindable(t, s)
	b := ok[model.Binding](t)(s.PutBinding(ctx, model.Binding{Port: p.UID, Active: h1.UID, Incoming: h2.UID}, 0))
	must(t, s.PutFacts(ctx, model.HostFacts{Host: h1.UID, Kernel: "<6.18> & later"}))
	must(t, s.CreateVTEP(ctx, vtep("ext1")))
	must(t, s.CreateGroupPool(ctx, groupPool("groups", "239.1.0.0", "239.1.0.9", 3)))
	must(t, s.CreateAPIToken(ctx, &model.APIToken{Name: "ci", ID: "i", Hash: []byte{1, 2}}))
	must(t, s.CreateJoinToken(ctx, &model.JoinToken{ID: "j", Host: "h3"}))
	must(t, s.CreateNetwork(ctx, network("acme", "gone", 6001)))
	q := port("acme", "q", "gone", 1)
	must(t, s.CreatePort(ctx, q))
	qb := ok[model.Binding](t)(s.PutBinding(ctx, model.Binding{Port: q.UID, Active: h1.UID}, 0))
	ok[model.Binding](t)(s.PutBinding(ctx, model.Binding{Port: q.UID}, qb.Epoch))
	ok[model.Revision](t)(s.DeletePort(ctx, "acme", "q", now))
	ok[model.Revision](t)(s.DeleteNetwork(ctx, "acme", "gone", now))
	return b
}

func testBackupRestore(t *testing.T, at string) {
	s, ctx := open(t, at), t.Context()
	b := filled(t, s)
	before := ok[*model.World](t)(s.Load(ctx))
	var file bytes.Buffer
	must(t, s.Backup(ctx, &file))

	for _, to := range []*Store{s, open(t, at)} { // over itself, and into another
		must(t, to.CreateTenant(ctx, tenant("later")))
		high := ok[model.Revision](t)(to.Revision(ctx))
		id := to.ID()
		events := to.Watch(ctx, high)
		n, err := to.Restore(ctx, bytes.NewReader(file.Bytes()))
		must(t, err)
		if n == 0 || to.ID() == id || to.ID() == before.StoreID {
			t.Fatalf("%d objects, store id %s after %s", n, to.ID(), id)
		}
		if e := next(t, events); !e.Reset {
			t.Fatalf("%+v", e)
		}
		ended(t, events)
		w := ok[*model.World](t)(to.Load(ctx))
		if w.Revision <= max(high, before.Revision)+revisionGap {
			t.Fatalf("revision %d, and %d and %d were handed out", w.Revision, high, before.Revision)
		}
		got := w.Bindings[b.Port]
		if got == nil || got.Epoch <= max(b.Epoch, model.Epoch(high)) {
			t.Fatalf("binding %+v, before %+v", got, b)
		}
		epoch := got.Epoch
		if e := next(t, to.Watch(ctx, high)); !e.Reset { // a revision of the old life
			t.Fatalf("%+v", e)
		}
		if !reflect.DeepEqual(stripped(before), stripped(w)) {
			t.Fatalf("restored\n%+v\nwant\n%+v", w, before)
		}
		// It goes on: taken addresses are taken, epochs count, watches watch.
		refused(t, to.CreatePort(ctx, port("acme", "web2", "blue", 1)), model.Taken, "spec.macs", "web1")
		_, err = to.PutBinding(ctx, model.Binding{Port: b.Port}, b.Epoch)
		refused(t, err, model.Stale, "epoch", "web1")
		ok[model.Binding](t)(to.PutBinding(ctx, model.Binding{Port: b.Port}, epoch))
		if ok[*model.APIToken](t)(to.APITokenByID(ctx, "i")).Name != "ci" {
			t.Fatal("the API token is gone")
		}
		ok[*model.JoinToken](t)(to.GetJoinToken(ctx, "j"))
		freed := ok[model.Revision](t)(to.Revision(ctx))
		for _, h := range w.Hosts {
			must(t, to.AcknowledgeVNIs(ctx, h.UID, freed))
		}
		if use := ok[*model.World](t)(to.Load(ctx)).VNIs[6001]; use != nil {
			t.Fatalf("%+v", use)
		}
		if audit := ok[[]AuditRecord](t)(to.Audit(ctx, 0)); len(audit) == 0 {
			t.Fatal("no audit trail")
		}
	}
}

func testBadBackups(t *testing.T, at string) {
	s, ctx := open(t, at), t.Context()
	filled(t, s)
	var file bytes.Buffer
	must(t, s.Backup(ctx, &file))
	whole := file.String()
	id, rev := s.ID(), ok[*model.World](t)(s.Load(ctx))
	lines := strings.SplitAfter(whole, "\n")
	lines = lines[:len(lines)-1]
	for name, bad := range map[string]string{
		"empty":        "",
		"foreign":      "PK\x03\x04 something else\n",
		"foreign json": `{"kind":"List"}` + "\n",
		"long line":    strings.Repeat("x", backupLine+10),
		"no trailer":   strings.Join(lines[:len(lines)-1], ""),
		"half a line":  whole[:len(whole)/2],
		"last newline": whole[:len(whole)-1],
		"line gone":    strings.Join(append(append([]string{}, lines[:3]...), lines[4:]...), ""),
		"changed":      strings.Replace(whole, `"acme"`, `"acne"`, 1),
		"more":         whole + "{}\n",
		"swapped":      strings.Join(append([]string{lines[0], lines[2], lines[1]}, lines[3:]...), ""),
		"version":      strings.Replace(whole, `"version":1`, `"version":2`, 1),
	} {
		_, err := s.Restore(ctx, strings.NewReader(bad))
		if err == nil {
			t.Fatalf("%s: restored", name)
		}
		refused(t, err, model.Invalid, "backup", "")
	}
	if _, err := s.Restore(ctx, io.MultiReader(strings.NewReader(whole[:100]), failingReader{})); err == nil {
		t.Fatal("a reader's error is no error")
	}
	w := ok[*model.World](t)(s.Load(ctx))
	w.Revision = rev.Revision
	if s.ID() != id || !reflect.DeepEqual(w, rev) {
		t.Fatal("a refused backup changed something")
	}
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errors.New("disk on fire") }

// testRestoreInterrupted: after a restore that stopped in the middle, everything is refused clearly but another restore.
func testRestoreInterrupted(t *testing.T, at string) {
	s, ctx := open(t, at), t.Context()
	for i := range 2 * restoreOps {
		must(t, s.CreateTenant(ctx, tenant(fmt.Sprintf("t%d", i))))
	}
	var file bytes.Buffer
	must(t, s.Backup(ctx, &file))
	high := ok[model.Revision](t)(s.Revision(ctx))
	other := openAt(t, Config{Endpoints: []string{at}, Prefix: s.cfg.Prefix, CompactEvery: -1})
	events := other.Watch(ctx, high)

	// The first steps of Restore, and then nothing.
	stop, cancel := context.WithCancel(ctx)
	v, err := s.peek(ctx)
	must(t, err)
	m := v.meta
	m.ID, m.Restoring, m.Base = "half", now, int64(high)+revisionGap
	e := v.edit("", "")
	e.quiet = true
	e.put(s.keys.meta(), m)
	e.removeBelow(s.keys.root())
	m.mod, err = s.step(ctx, e)
	must(t, err)
	cancel()
	if _, err := s.refill(stop, m, bytes.NewReader(file.Bytes())); err == nil {
		t.Fatal("refilled with an ended context")
	}

	if e := next(t, events); !e.Reset {
		t.Fatalf("%+v", e)
	}
	interrupted := func(s *Store) {
		t.Helper()
		var is *InterruptedError
		if _, err := s.Load(ctx); !errors.As(err, &is) {
			t.Fatalf("load: %v", err)
		}
		if err := s.CreateTenant(ctx, tenant("acme")); !errors.As(err, &is) {
			t.Fatalf("write: %v", err)
		}
		if err := s.Backup(ctx, io.Discard); !errors.As(err, &is) {
			t.Fatalf("backup: %v", err)
		}
	}
	interrupted(s)
	interrupted(other)
	again := openAt(t, Config{Endpoints: []string{at}, Prefix: s.cfg.Prefix, CompactEvery: -1})
	interrupted(again)
	_, err = again.Restore(ctx, strings.NewReader("no backup"))
	refused(t, err, model.Invalid, "backup", "")
	interrupted(again)
	ok[int](t)(again.Restore(ctx, bytes.NewReader(file.Bytes())))
	for _, s := range []*Store{s, other, again} {
		w := ok[*model.World](t)(s.Load(ctx))
		if len(w.Tenants) != 2*restoreOps || w.Revision <= high+revisionGap {
			t.Fatalf("%d tenants at revision %d", len(w.Tenants), w.Revision)
		}
	}
}
