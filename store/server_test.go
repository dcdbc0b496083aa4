package store

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/weftnet/weft/model"
)

// testServers: who is there is known to all, also when it went. Break it: let present not revoke.
func testServers(t *testing.T, endpoint string) {
	s := open(t, endpoint)
	other := openAt(t, Config{Endpoints: []string{endpoint}, Prefix: s.cfg.Prefix, CompactEvery: -1})
	lists := other.Servers(t.Context())
	is := func(want ...string) (after time.Duration) {
		t.Helper()
		began, deadline := time.Now(), time.After(patience)
		for {
			select {
			case l := <-lists:
				var ids []string
				for _, r := range l {
					ids = append(ids, r.ID+" "+r.Address)
				}
				if len(ids) == len(want) && (len(ids) == 0 || ids[0] == want[0]) {
					return time.Since(began)
				}
			case <-deadline:
				t.Fatalf("the servers are not %v", want)
			}
		}
	}
	is()
	for try := 1; ; try++ { // a machine that stands still may make one farewell late
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			s.Present(ctx, ServerRecord{ID: "a", Address: "192.0.2.1:7348", Started: now})
		}()
		is("a 192.0.2.1:7348")
		cancel()
		<-ended
		after := is()
		if after < presenceTTL/2 { // sooner than a lease ends by itself
			return
		}
		if try == 3 {
			t.Fatalf("a server that went is known to have gone after %s", after)
		}
	}
}

// testHead: it is the revision of the last write, whoever made it, and others' keys do not move it. Break it: take the put of the head
// out of commit.
func testHead(t *testing.T, endpoint string) {
	s := open(t, endpoint)
	other := openAt(t, Config{Endpoints: []string{endpoint}, Prefix: s.cfg.Prefix, CompactEvery: -1})
	first, err := s.Head(t.Context())
	must(t, err)
	a := tenant("acme")
	must(t, other.CreateTenant(t.Context(), a))
	if h, err := s.Head(t.Context()); err != nil || h != a.Revision {
		t.Fatalf("head %d, %v; the last write was %d, and the head before it %d", h, err, a.Revision, first)
	}
	_, err = other.DeleteTenant(t.Context(), "acme")
	must(t, err)
	h, err := s.Head(t.Context())
	must(t, err)
	if _, err := s.cli.Put(t.Context(), "/foreign", "x"); err != nil {
		t.Fatal(err)
	}
	if again, err := s.Head(t.Context()); err != nil || again != h || h <= a.Revision {
		t.Fatalf("head %d, %v after a foreign write; it was %d", again, err, h)
	}
}

// testForeignWrites: what other users of the cluster write is neither in the revision of a World nor missed when it is compacted: two servers
// that load before and after it stand at one revision. Break it: give the World the revision that etcd answers with, or begin the watch behind
// the World's.
func testForeignWrites(t *testing.T, endpoint string) {
	s, ctx := open(t, endpoint), t.Context()
	a := tenant("acme")
	must(t, s.CreateTenant(ctx, a))
	before := ok[*model.World](t)(s.Load(ctx)).Revision
	var foreign int64
	for range 3 {
		resp, err := s.cli.Put(ctx, "/foreign", "x")
		must(t, err)
		foreign = resp.Header.Revision
	}
	_, err := s.cli.Compact(ctx, foreign)
	must(t, err)
	after := ok[*model.World](t)(s.Load(ctx)).Revision
	if after != before || after != a.Revision {
		t.Fatalf("the store stands at %d after foreign writes; it stood at %d, and the last write was %d", after, before, a.Revision)
	}
	// A write that comes before the watch has looked at the store is compacted, for all that the watch knows: then it may be reset.
	watched := func(head model.Revision) (reset bool, now model.Revision) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		events := s.Watch(ctx, head)
		b := tenant("t" + newSuffix())
		must(t, s.CreateTenant(ctx, b))
		e := next(t, events)
		if !e.Reset && e.Revision != b.Revision {
			t.Fatalf("%+v; want what was written at %d", e, b.Revision)
		}
		return e.Reset, b.Revision
	}
	tries := 1
	for reset, head := watched(after); reset; reset, head = watched(head) {
		if at := ok[*model.World](t)(s.Load(ctx)).Revision; at != head {
			t.Fatalf("the store stands at %d after a reset; the last write was %d", at, head)
		}
		resp, err := s.cli.Put(ctx, "/foreign", "x")
		must(t, err)
		if _, err := s.cli.Compact(ctx, resp.Header.Revision); err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
			t.Fatal(err)
		}
		if tries++; tries > 100 {
			t.Fatal("a watch on what foreign writes had compacted was reset every time")
		}
	}
}

// testCA: the first claim stands, and only who knows what it is replaces it. Break it: leave the comparison out of ClaimCA.
func testCA(t *testing.T, endpoint string) {
	s := open(t, endpoint)
	for _, c := range []struct{ was, is, want string }{{"", "aa", "aa"}, {"", "bb", "aa"}, {"cc", "bb", "aa"}, {"aa", "bb", "bb"}} {
		got, err := s.ClaimCA(t.Context(), c.was, c.is)
		must(t, err)
		if got != c.want {
			t.Fatalf("claim %v: the CA is %q", c, got)
		}
	}
}

// testFence: a write whose answer was lost is found, and one that was not done will never be. Break it: let fence
// take any record for that of the write.
func testFence(t *testing.T, endpoint string) {
	s := open(t, endpoint)
	ctx := t.Context()
	must(t, s.CreateTenant(ctx, tenant("acme")))
	v, err := s.look(ctx, list(s.keys.in("audit")))
	must(t, err)
	done := v.all(0)[0]
	settled, rev, err := s.fence(ctx, string(done.Key), false)
	if err != nil || !settled || rev != done.ModRevision {
		t.Fatalf("a write at %d: settled %v at %d, %v", done.ModRevision, settled, rev, err)
	}
	record := s.keys.audit(now, "lost")
	for range 2 { // an answer of the fence may get lost, too
		if settled, rev, err := s.fence(ctx, record, false); err != nil || !settled || rev != 0 {
			t.Fatalf("a write that was not done: settled %v at %d, %v", settled, rev, err)
		}
	}
	records, err := s.Audit(ctx, 0)
	must(t, err)
	if len(records) != 1 {
		t.Fatalf("a fence stands in the audit trail: %+v", records)
	}
}
