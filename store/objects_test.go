package store

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/wire"
)

func testTenant(t *testing.T, at string) {
	s, ctx := open(t, at), t.Context()
	acme := tenant("acme")
	must(t, s.CreateTenant(ctx, acme))
	if acme.Revision == 0 {
		t.Fatal("no revision")
	}
	refused(t, s.CreateTenant(ctx, tenant("acme")), model.Taken, "name", "acme")
	first := acme.Revision
	acme.Spec.Description = "x"
	must(t, s.UpdateTenant(ctx, acme))
	if acme.Revision <= first {
		t.Fatalf("revision %d after %d", acme.Revision, first)
	}
	second := acme.Revision
	must(t, s.UpdateTenant(ctx, acme)) // nothing differs
	if acme.Revision != second {
		t.Fatal("an update without a difference was written")
	}
	acme.Revision = first
	refused(t, s.UpdateTenant(ctx, acme), model.Stale, "revision", fmt.Sprint(second))
	refused(t, s.UpdateTenant(ctx, tenant("none")), model.NotFound, "name", "none")

	must(t, s.CreateNetwork(ctx, network("acme", "blue", 5000)))
	_, err := s.DeleteTenant(ctx, "acme")
	refused(t, err, model.Conflict, "tenant", "1 network")
	_, err = s.DeleteNetwork(ctx, "acme", "blue", now)
	must(t, err)
	must(t, s.CreateAPIToken(ctx, &model.APIToken{Name: "t", ID: "i", Tenant: "acme"}))
	rev := ok[model.Revision](t)(s.DeleteTenant(ctx, "acme"))
	if rev <= second {
		t.Fatalf("deleted at %d", rev)
	}
	_, err = s.APITokenByID(ctx, "i")
	refused(t, err, model.NotFound, "token", "")
	_, err = s.DeleteTenant(ctx, "acme")
	refused(t, err, model.NotFound, "tenant", "acme")
	refused(t, s.CreateAPIToken(ctx, &model.APIToken{Name: "t", ID: "i", Tenant: "acme"}), model.NotFound, "tenant", "acme")
}

func testNetwork(t *testing.T, at string) {
	s, ctx := open(t, at), t.Context()
	refused(t, s.CreateNetwork(ctx, network("acme", "blue", 5001)), model.NotFound, "tenant", "acme")
	must(t, s.CreateTenant(ctx, tenant("acme")))
	must(t, s.CreateTenant(ctx, tenant("umbrella")))
	blue := network("acme", "blue", 5001, "10.1.0.0/24")
	must(t, s.CreateNetwork(ctx, blue))
	refused(t, s.CreateNetwork(ctx, network("acme", "blue", 5002)), model.Taken, "name", "acme/blue")
	refused(t, s.CreateNetwork(ctx, network("acme", "red", 5001)), model.Taken, "spec.vni", "acme/blue")
	err := s.CreateNetwork(ctx, network("umbrella", "red", 5001))
	refused(t, err, model.Taken, "spec.vni", "another tenant")
	if strings.Contains(err.Error(), "acme") {
		t.Fatalf("another tenant's name is told: %v", err)
	}
	n := network("acme", "red", 5002)
	n.Spec.VTEPs = []model.NetworkVTEP{{VTEP: "ext1"}}
	refused(t, s.CreateNetwork(ctx, n), model.NotFound, "spec.vteps[0].vtep", "ext1")
	n.Spec.VTEPs, n.Spec.VNIPool = nil, "none"
	refused(t, s.CreateNetwork(ctx, n), model.NotFound, "spec.vni_pool", "none")

	w := ok[*model.World](t)(s.Load(ctx))
	got := w.NetworkByName("acme", "blue")
	if got == nil || got.UID != blue.UID || got.Revision != blue.Revision || got.Alloc.VNI != 5001 {
		t.Fatalf("loaded %+v, created %+v", got, blue)
	}
	if use := w.VNIs[5001]; use == nil || use.Network != blue.UID || use.Quarantined {
		t.Fatalf("use of the VNI: %+v", use)
	}
	must(t, s.CreatePort(ctx, port("acme", "web1", "blue", 1, "10.1.0.2/24")))
	_, err = s.DeleteNetwork(ctx, "acme", "blue", now)
	refused(t, err, model.Conflict, "network", "1 port")
	_, err = s.DeletePort(ctx, "acme", "web1", now)
	must(t, err)
	rev := ok[model.Revision](t)(s.DeleteNetwork(ctx, "acme", "blue", now))
	w = ok[*model.World](t)(s.Load(ctx))
	tomb := w.Tombstones[blue.UID]
	if tomb == nil || tomb.Kind != model.KindNetwork || tomb.Revision != rev || !tomb.Deleted.Equal(now) {
		t.Fatalf("tombstone %+v, deleted at %d", tomb, rev)
	}
	if w.VNIs[5001] != nil {
		t.Fatalf("no host held the VNI, and it is not free: %+v", w.VNIs[5001])
	}
	must(t, s.CreateNetwork(ctx, network("umbrella", "red", 5001)))
	_, err = s.DeleteNetwork(ctx, "acme", "blue", now)
	refused(t, err, model.NotFound, "network", "blue")
}

func testNetworkUpdate(t *testing.T, at string) {
	s, ctx := open(t, at), t.Context()
	must(t, s.CreateTenant(ctx, tenant("acme")))
	must(t, s.CreateVTEP(ctx, vtep("ext1")))
	n := network("acme", "blue", 5001, "10.1.0.0/24", "10.2.0.0/24")
	must(t, s.CreateNetwork(ctx, n))
	must(t, s.CreatePort(ctx, port("acme", "web1", "blue", 1, "10.1.0.2/24")))

	shrink := *n
	shrink.Spec.Subnets = []netip.Prefix{netip.MustParsePrefix("10.2.0.0/24")}
	refused(t, s.UpdateNetwork(ctx, &shrink), model.Conflict, "spec.subnets", "acme/web1")
	shrink.Spec.Subnets = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")}
	shrink.Alloc.VNI = 77 // what is allocated is not the caller's to change
	shrink.Spec.VTEPs = []model.NetworkVTEP{{VTEP: "ext1"}}
	must(t, s.UpdateNetwork(ctx, &shrink))
	if shrink.Alloc.VNI != 5001 || shrink.Revision <= n.Revision {
		t.Fatalf("%+v", shrink)
	}
	refused(t, s.UpdateNetwork(ctx, n), model.Stale, "revision", "acme/blue")
	refused(t, s.CreatePort(ctx, port("acme", "web2", "blue", 2, "10.2.0.2/24")), model.Invalid, "spec.ips", "10.2.0.2")

	_, err := s.DeleteVTEP(ctx, "ext1", now)
	refused(t, err, model.Conflict, "vtep", "1 network")
	shrink.Spec.VTEPs = nil
	must(t, s.UpdateNetwork(ctx, &shrink))
	_, err = s.DeleteVTEP(ctx, "ext1", now)
	must(t, err)
	shrink.Spec.VTEPs = []model.NetworkVTEP{{VTEP: "ext1"}}
	refused(t, s.UpdateNetwork(ctx, &shrink), model.NotFound, "spec.vteps[0].vtep", "ext1")
}

func testPort(t *testing.T, at string) {
	s, ctx := open(t, at), t.Context()
	for _, name := range []string{"acme", "umbrella"} {
		must(t, s.CreateTenant(ctx, tenant(name)))
	}
	refused(t, s.CreatePort(ctx, port("none", "web1", "blue", 1)), model.NotFound, "tenant", "none")
	refused(t, s.CreatePort(ctx, port("acme", "web1", "blue", 1)), model.NotFound, "spec.network", "blue")
	must(t, s.CreateNetwork(ctx, network("acme", "blue", 5001, "10.1.0.0/24", "fd00:1::/64")))
	must(t, s.CreateNetwork(ctx, network("acme", "red", 5002, "10.1.0.0/24")))
	must(t, s.CreateNetwork(ctx, network("umbrella", "blue", 5003, "10.1.0.0/24")))
	web1 := port("acme", "web1", "blue", 1, "10.1.0.2/24", "fd00:1::2/64")
	must(t, s.CreatePort(ctx, web1))
	if web1.Alloc.NetworkUID == "" || web1.Revision == 0 {
		t.Fatalf("%+v", web1)
	}
	refused(t, s.CreatePort(ctx, port("acme", "web1", "red", 9)), model.Taken, "name", "web1")
	refused(t, s.CreatePort(ctx, port("acme", "web2", "blue", 1)), model.Taken, "spec.macs", "web1")
	p := port("acme", "web2", "blue", 2, "10.1.0.9/24", "fd00:1::2/64")
	p.Spec.IPs = []netip.Addr{netip.MustParseAddr("10.1.0.9"), netip.MustParseAddr("fd00:1::2")}
	refused(t, s.CreatePort(ctx, p), model.Taken, "spec.ips[1]", "web1")
	// Nothing of the refused port was claimed.
	must(t, s.CreatePort(ctx, port("acme", "web3", "blue", 2, "10.1.0.9/24")))
	// Networks and tenants share nothing.
	must(t, s.CreatePort(ctx, port("acme", "web4", "red", 1, "10.1.0.2/24")))
	must(t, s.CreatePort(ctx, port("umbrella", "web1", "blue", 1, "10.1.0.2/24")))

	_, err := s.DeleteTenant(ctx, "umbrella")
	refused(t, err, model.Conflict, "tenant", "1 port")
	rev := ok[model.Revision](t)(s.DeletePort(ctx, "acme", "web1", now))
	w := ok[*model.World](t)(s.Load(ctx))
	tomb := w.Tombstones[web1.UID]
	if tomb == nil || tomb.Kind != model.KindPort || tomb.Network != web1.Alloc.NetworkUID || tomb.Revision != rev {
		t.Fatalf("tombstone %+v, deleted at %d", tomb, rev)
	}
	// Its name and addresses are free again, under another uid.
	must(t, s.CreatePort(ctx, port("acme", "web1", "blue", 1, "10.1.0.2/24", "fd00:1::2/64")))
	_, err = s.DeletePort(ctx, "acme", "none", now)
	refused(t, err, model.NotFound, "port", "none")
	p = port("acme", "web9", "blue", 99)
	p.Alloc.NetworkUID = "another"
	refused(t, s.CreatePort(ctx, p), model.Stale, "spec.network", "made again")
}

func testPortUpdate(t *testing.T, at string) {
	s, ctx := open(t, at), t.Context()
	must(t, s.CreateTenant(ctx, tenant("acme")))
	must(t, s.CreateNetwork(ctx, network("acme", "blue", 5001, "10.1.0.0/24")))
	must(t, s.CreateNetwork(ctx, network("acme", "red", 5002, "10.1.0.0/24")))
	p := port("acme", "web1", "blue", 1, "10.1.0.2/24", "10.1.0.3/24")
	must(t, s.CreatePort(ctx, p))
	must(t, s.CreatePort(ctx, port("acme", "web2", "blue", 2, "10.1.0.4/24")))
	old := *p

	p.Alloc.IPs = []netip.Prefix{netip.MustParsePrefix("10.1.0.3/24"), netip.MustParsePrefix("10.1.0.4/24")}
	refused(t, s.UpdatePort(ctx, p), model.Taken, "spec.ips", "web2")
	p.Alloc.IPs[1] = netip.MustParsePrefix("10.1.0.5/24")
	p.Alloc.MACs = []wire.MAC{{2, 0, 0, 0, 0, 9}}
	must(t, s.UpdatePort(ctx, p))
	refused(t, s.UpdatePort(ctx, &old), model.Stale, "revision", "web1")
	must(t, s.CreatePort(ctx, port("acme", "web3", "blue", 1, "10.1.0.2/24"))) // given back
	refused(t, s.CreatePort(ctx, port("acme", "web4", "blue", 4, "10.1.0.5/24")), model.Taken, "spec.ips", "web1")
	refused(t, s.CreatePort(ctx, port("acme", "web4", "blue", 9)), model.Taken, "spec.macs", "web1")
	refused(t, s.CreatePort(ctx, port("acme", "web4", "blue", 4, "10.1.0.3/24")), model.Taken, "spec.ips", "web1")
	q := *p
	q.Spec.Network = "red"
	refused(t, s.UpdatePort(ctx, &q), model.Invalid, "spec.network", "blue")
	_, err := s.DeletePort(ctx, "acme", "web1", now)
	must(t, err)
	must(t, s.CreatePort(ctx, port("acme", "web4", "blue", 9, "10.1.0.3/24", "10.1.0.5/24")))
}

// testPortManyIPs: what fits fits, and what does not says so instead of naming an operation limit.
func testPortManyIPs(t *testing.T, at string) {
	s, ctx := open(t, at), t.Context()
	must(t, s.CreateTenant(ctx, tenant("acme")))
	must(t, s.CreateNetwork(ctx, network("acme", "blue", 5001, "10.1.0.0/16")))
	many := func(name string, third byte, n int) *model.Port {
		p := port("acme", name, "blue", 0)
		for i := range n {
			p.Alloc.IPs = append(p.Alloc.IPs, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, third + byte(i/250), byte(1 + i%250)}), 16))
		}
		return p
	}
	must(t, s.CreatePort(ctx, many("some", 0, 120)))
	_, err := s.DeletePort(ctx, "acme", "some", now)
	must(t, err)
	// Within the embedded etcd's limit of operations, and above an external one's default.
	if err = s.CreatePort(ctx, many("more", 5, 300)); err != nil {
		refused(t, err, model.Exhausted, "spec", "one etcd transaction")
	}
	refused(t, s.CreatePort(ctx, many("many", 10, 10_000)), model.Exhausted, "spec", "one etcd request")
}

func testBinding(t *testing.T, at string) {
	s, ctx := open(t, at), t.Context()
	p, h1, h2 := bindable(t, s)
	bind := func(b model.Binding, expected model.Epoch) (model.Binding, error) {
		b.Port = p.UID
		return s.PutBinding(ctx, b, expected)
	}
	_, err := s.PutBinding(ctx, model.Binding{Port: "none", Active: h1.UID}, 0)
	refused(t, err, model.NotFound, "port", "none")
	_, err = bind(model.Binding{Active: "none"}, 0)
	refused(t, err, model.NotFound, "host", "none")
	_, err = bind(model.Binding{Active: h1.UID}, 7)
	refused(t, err, model.Stale, "epoch", "epoch 0, not 7")

	b1 := ok[model.Binding](t)(bind(model.Binding{Active: h1.UID}, 0))
	if b1.Epoch == 0 || b1.Network != p.Alloc.NetworkUID {
		t.Fatalf("%+v", b1)
	}
	again := ok[model.Binding](t)(bind(model.Binding{Active: h1.UID}, b1.Epoch))
	if again != b1 {
		t.Fatalf("the same binding again: %+v, before %+v", again, b1)
	}
	_, err = bind(model.Binding{Active: h2.UID}, 0)
	refused(t, err, model.Stale, "epoch", "web1")
	_, err = s.DeletePort(ctx, "acme", "web1", now)
	refused(t, err, model.Conflict, "port", "h1")
	b2 := ok[model.Binding](t)(bind(model.Binding{Active: h1.UID, Incoming: h2.UID}, b1.Epoch))
	b3 := ok[model.Binding](t)(bind(model.Binding{Active: h2.UID, Draining: h1.UID}, b2.Epoch))
	if b2.Epoch <= b1.Epoch || b3.Epoch <= b2.Epoch {
		t.Fatalf("epochs %d %d %d", b1.Epoch, b2.Epoch, b3.Epoch)
	}
	w := ok[*model.World](t)(s.Load(ctx))
	if got := w.Bindings[p.UID]; got == nil || *got != b3 {
		t.Fatalf("loaded %+v, want %+v", got, b3)
	}
	b4 := ok[model.Binding](t)(bind(model.Binding{}, b3.Epoch))
	_, err = s.DeletePort(ctx, "acme", "web1", now)
	must(t, err)
	// The next life of the port has a greater epoch.
	p2 := port("acme", "web1", "blue", 1, "10.1.0.2/24")
	must(t, s.CreatePort(ctx, p2))
	b5 := ok[model.Binding](t)(s.PutBinding(ctx, model.Binding{Port: p2.UID, Active: h1.UID}, 0))
	if b5.Epoch <= b4.Epoch {
		t.Fatalf("epoch %d after %d", b5.Epoch, b4.Epoch)
	}
}

func bindable(t *testing.T, s *Store) (*model.Port, *model.Host, *model.Host) {
	t.Helper()
	ctx := t.Context()
	must(t, s.CreateTenant(ctx, tenant("acme")))
	must(t, s.CreateNetwork(ctx, network("acme", "blue", 5001, "10.1.0.0/24")))
	p, h1, h2 := port("acme", "web1", "blue", 1, "10.1.0.2/24"), host("h1"), host("h2")
	must(t, s.CreatePort(ctx, p))
	must(t, s.CreateHost(ctx, h1))
	must(t, s.CreateHost(ctx, h2))
	return p, h1, h2
}

func testHost(t *testing.T, at string) {
	s, ctx := open(t, at), t.Context()
	p, h1, h2 := bindable(t, s)
	refused(t, s.CreateHost(ctx, host("h1")), model.Taken, "name", "h1")
	h1.Spec.Description = "rack 1"
	must(t, s.UpdateHost(ctx, h1))
	must(t, s.PutFacts(ctx, model.HostFacts{Host: h1.UID, UplinkMTU: 1500}))
	must(t, s.CreateJoinToken(ctx, &model.JoinToken{ID: "a", Host: "h1"}))
	must(t, s.CreateJoinToken(ctx, &model.JoinToken{ID: "b", Host: "h2"}))
	b := ok[model.Binding](t)(s.PutBinding(ctx, model.Binding{Port: p.UID, Active: h2.UID, Draining: h1.UID}, 0))
	_, _, err := s.DeleteHost(ctx, "h1", false, now)
	refused(t, err, model.Conflict, "host", "1 bound")
	ok[model.Binding](t)(s.PutBinding(ctx, model.Binding{Port: p.UID, Active: h2.UID}, b.Epoch))
	rev, unbound, err := s.DeleteHost(ctx, "h1", false, now)
	must(t, err)
	if rev == 0 || len(unbound) != 0 {
		t.Fatalf("revision %d, unbound %v", rev, unbound)
	}
	w := ok[*model.World](t)(s.Load(ctx))
	if w.HostByName("h1") != nil || len(w.Facts) != 0 {
		t.Fatalf("hosts %v facts %v", w.Hosts, w.Facts)
	}
	// What is remembered lets other hosts take its VTEP away.
	if tomb := w.Tombstones[h1.UID]; tomb == nil || tomb.Kind != model.KindHost || tomb.Name != "h1" || tomb.Revision != rev {
		t.Fatalf("tombstone %+v", tomb)
	}
	_, err = s.GetJoinToken(ctx, "a")
	refused(t, err, model.NotFound, "token", "")
	ok[*model.JoinToken](t)(s.GetJoinToken(ctx, "b"))
	refused(t, s.PutFacts(ctx, model.HostFacts{Host: h1.UID}), model.NotFound, "host", string(h1.UID))
	_, _, err = s.DeleteHost(ctx, "h1", false, now)
	refused(t, err, model.NotFound, "host", "h1")
}

func testHostForced(t *testing.T, at string) {
	s, ctx := open(t, at), t.Context()
	p, h1, h2 := bindable(t, s)
	var ports []model.UID
	// More than one batch.
	for i := range unbindBatch + 5 {
		q := port("acme", fmt.Sprintf("p%d", i), "blue", byte(10+i))
		must(t, s.CreatePort(ctx, q))
		ok[model.Binding](t)(s.PutBinding(ctx, model.Binding{Port: q.UID, Active: h1.UID}, 0))
		ports = append(ports, q.UID)
	}
	// It stays where it is, so it is not unbound.
	b := ok[model.Binding](t)(s.PutBinding(ctx, model.Binding{Port: p.UID, Active: h2.UID, Incoming: h1.UID}, 0))
	_, unbound, err := s.DeleteHost(ctx, "h1", true, now)
	must(t, err)
	slices.Sort(ports)
	slices.Sort(unbound)
	if !slices.Equal(ports, unbound) {
		t.Fatalf("unbound %v, want %v", unbound, ports)
	}
	w := ok[*model.World](t)(s.Load(ctx))
	for _, b := range w.Bindings {
		for h := range b.Hosts() {
			if h == h1.UID {
				t.Fatalf("still bound: %+v", b)
			}
		}
	}
	if got := w.Bindings[p.UID]; got.Active != h2.UID || got.Epoch <= b.Epoch {
		t.Fatalf("%+v after %+v", got, b)
	}
}

func testJoin(t *testing.T, at string) {
	s, ctx := open(t, at), t.Context()
	must(t, s.CreateJoinToken(ctx, &model.JoinToken{ID: "a", Host: "h1", Expires: now.Add(time.Hour)}))
	refused(t, s.CreateJoinToken(ctx, &model.JoinToken{ID: "a", Host: "h1"}), model.Taken, "name", "")
	join := func(h *model.Host, id, csr string, at time.Time) (*model.Host, error) {
		return s.JoinHost(ctx, h, id, []byte(csr), at)
	}
	_, err := join(host("h1"), "none", "csr", now)
	refused(t, err, model.NotFound, "token", "")
	_, err = join(host("h2"), "a", "csr", now)
	refused(t, err, model.Denied, "token", "h1")
	_, err = join(host("h1"), "a", "csr", now.Add(time.Hour))
	refused(t, err, model.Denied, "token", "expired")
	h := ok[*model.Host](t)(join(host("h1"), "a", "csr", now))
	if h.Revision == 0 {
		t.Fatal("no revision")
	}
	again := ok[*model.Host](t)(join(host("h1"), "a", "csr", now))
	if again.UID != h.UID || again.Revision != h.Revision {
		t.Fatalf("the same CSR gave another host: %+v, before %+v", again, h)
	}
	_, err = join(host("h1"), "a", "other", now)
	refused(t, err, model.Denied, "token", "used")
	must(t, s.CreateJoinToken(ctx, &model.JoinToken{ID: "b", Host: "h1", Expires: now.Add(time.Hour)}))
	_, err = join(host("h1"), "b", "csr", now)
	refused(t, err, model.Taken, "name", "h1")
}

func testFacts(t *testing.T, at string) {
	s, ctx := open(t, at), t.Context()
	h := host("h1")
	must(t, s.CreateHost(ctx, h))
	f := model.HostFacts{Host: h.UID, UplinkMTU: 1500, VTEPAddresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}
	must(t, s.PutFacts(ctx, f))
	audits := len(ok[[]AuditRecord](t)(s.Audit(ctx, 0)))
	must(t, s.PutFacts(ctx, f))
	if n := len(ok[[]AuditRecord](t)(s.Audit(ctx, 0))); n != audits {
		t.Fatal("the same facts were written again")
	}
	f.UplinkMTU = 9000
	must(t, s.PutFacts(ctx, f))
	if got := ok[*model.World](t)(s.Load(ctx)).Facts[h.UID]; got.UplinkMTU != 9000 {
		t.Fatalf("%+v", got)
	}
}

func testVTEPAndPool(t *testing.T, at string) {
	s, ctx := open(t, at), t.Context()
	vt := vtep("ext1")
	must(t, s.CreateVTEP(ctx, vt))
	refused(t, s.CreateVTEP(ctx, vtep("ext1")), model.Taken, "name", "ext1")
	vt.Spec.UDPPort = 8472
	must(t, s.UpdateVTEP(ctx, vt))
	rev := ok[model.Revision](t)(s.DeleteVTEP(ctx, "ext1", now))
	w := ok[*model.World](t)(s.Load(ctx))
	if tomb := w.Tombstones[vt.UID]; tomb == nil || tomb.Kind != model.KindVTEP || tomb.Revision != rev {
		t.Fatalf("%+v", tomb)
	}
	if w.Pools[model.DefaultPool] == nil || w.Pools[model.DefaultPool].Revision == 0 {
		t.Fatal("no default pool")
	}
	pool := &model.VNIPool{Meta: meta1(), Name: "lab", Spec: model.VNIPoolSpec{First: 10, Last: 20}}
	must(t, s.CreatePool(ctx, pool))
	pool.Spec.Last = 30
	must(t, s.UpdatePool(ctx, pool))
	must(t, s.CreateTenant(ctx, tenant("acme")))
	n := network("acme", "blue", 10)
	n.Spec.VNIPool = "lab"
	must(t, s.CreateNetwork(ctx, n))
	_, err := s.DeletePool(ctx, "lab")
	refused(t, err, model.Conflict, "pool", "1 network")
	_, err = s.DeleteNetwork(ctx, "acme", "blue", now)
	must(t, err)
	_, err = s.DeletePool(ctx, "lab")
	must(t, err)
	_, err = s.DeletePool(ctx, model.DefaultPool)
	refused(t, err, model.Conflict, "pool", "default")
}

func testQuarantine(t *testing.T, at string) {
	s, ctx := open(t, at), t.Context()
	p, h1, h2 := bindable(t, s)
	b := ok[model.Binding](t)(s.PutBinding(ctx, model.Binding{Port: p.UID, Active: h1.UID}, 0))
	b = ok[model.Binding](t)(s.PutBinding(ctx, model.Binding{Port: p.UID, Active: h2.UID}, b.Epoch))
	ok[model.Binding](t)(s.PutBinding(ctx, model.Binding{Port: p.UID}, b.Epoch))
	ok[model.Revision](t)(s.DeletePort(ctx, "acme", "web1", now))
	freed := ok[model.Revision](t)(s.DeleteNetwork(ctx, "acme", "blue", now))
	quarantined := func(hosts ...model.UID) {
		t.Helper()
		use := ok[*model.World](t)(s.Load(ctx)).VNIs[5001]
		if len(hosts) == 0 {
			if use != nil {
				t.Fatalf("still there: %+v", use)
			}
			return
		}
		slices.Sort(hosts)
		if use == nil || !use.Quarantined || use.Freed != freed || !slices.Equal(slices.Sorted(slices.Values(use.Holders)), hosts) {
			t.Fatalf("use %+v, want holders %v freed at %d", use, hosts, freed)
		}
	}
	quarantined(h1.UID, h2.UID)
	refused(t, s.CreateNetwork(ctx, network("acme", "red", 5001)), model.Taken, "spec.vni", "h1")
	must(t, s.AcknowledgeVNIs(ctx, h1.UID, freed-1)) // before
	quarantined(h1.UID, h2.UID)
	must(t, s.AcknowledgeVNIs(ctx, h1.UID, freed))
	quarantined(h2.UID) // and freed is what it was
	must(t, s.AcknowledgeVNIs(ctx, h1.UID, freed+10))
	quarantined(h2.UID)
	must(t, s.AcknowledgeVNIs(ctx, h2.UID, freed+10))
	quarantined()
	must(t, s.CreateNetwork(ctx, network("acme", "red", 5001)))
}

func testQuarantineHostGone(t *testing.T, at string) {
	s, ctx := open(t, at), t.Context()
	p, h1, h2 := bindable(t, s)
	b := ok[model.Binding](t)(s.PutBinding(ctx, model.Binding{Port: p.UID, Active: h1.UID}, 0))
	b = ok[model.Binding](t)(s.PutBinding(ctx, model.Binding{Port: p.UID, Active: h2.UID}, b.Epoch))
	ok[model.Binding](t)(s.PutBinding(ctx, model.Binding{Port: p.UID}, b.Epoch))
	_, _, err := s.DeleteHost(ctx, "h1", false, now) // before the network
	must(t, err)
	ok[model.Revision](t)(s.DeletePort(ctx, "acme", "web1", now))
	ok[model.Revision](t)(s.DeleteNetwork(ctx, "acme", "blue", now))
	if use := ok[*model.World](t)(s.Load(ctx)).VNIs[5001]; use == nil || !slices.Equal(use.Holders, []model.UID{h2.UID}) {
		t.Fatalf("%+v", use)
	}
	_, _, err = s.DeleteHost(ctx, "h2", false, now) // after the network
	must(t, err)
	if use := ok[*model.World](t)(s.Load(ctx)).VNIs[5001]; use != nil {
		t.Fatalf("all holders are gone, and the VNI is not free: %+v", use)
	}
}

// testQuarantineSweep: a host and a quarantine that come while a sweep is under way. Red when a sweep takes out of every
// quarantine what it did not see.
func testQuarantineSweep(t *testing.T, at string) {
	s, ctx := open(t, at), t.Context()
	must(t, s.CreateTenant(ctx, tenant("acme")))
	must(t, s.CreateNetwork(ctx, network("acme", "red", 5002, "10.1.0.0/24")))
	old := host("h0")
	must(t, s.CreateHost(ctx, old))
	q := port("acme", "q", "red", 9, "10.1.0.9/24")
	must(t, s.CreatePort(ctx, q))
	b := ok[model.Binding](t)(s.PutBinding(ctx, model.Binding{Port: q.UID, Active: old.UID}, 0))
	ok[model.Binding](t)(s.PutBinding(ctx, model.Binding{Port: q.UID}, b.Epoch))
	ok[model.Revision](t)(s.DeletePort(ctx, "acme", "q", now))
	ok[model.Revision](t)(s.DeleteNetwork(ctx, "acme", "red", now))

	v := ok[*view](t)(s.look(ctx, count(s.keys.in("quarantine")), names(s.keys.in("holder")), names(s.keys.in("idx/host"))))
	must(t, s.CreateNetwork(ctx, network("acme", "blue", 5001, "10.1.0.0/24")))
	h := host("h1")
	must(t, s.CreateHost(ctx, h))
	p := port("acme", "p", "blue", 1, "10.1.0.2/24")
	must(t, s.CreatePort(ctx, p))
	b = ok[model.Binding](t)(s.PutBinding(ctx, model.Binding{Port: p.UID, Active: h.UID}, 0))
	ok[model.Binding](t)(s.PutBinding(ctx, model.Binding{Port: p.UID}, b.Epoch))
	ok[model.Revision](t)(s.DeletePort(ctx, "acme", "p", now))
	ok[model.Revision](t)(s.DeleteNetwork(ctx, "acme", "blue", now))
	must(t, s.sweepAsOf(ctx, v))
	if use := ok[*model.World](t)(s.Load(ctx)).VNIs[5001]; use == nil || !slices.Equal(use.Holders, []model.UID{h.UID}) {
		t.Fatalf("the sweep took a living host out of a quarantine: %+v", use)
	}
}

func testTokens(t *testing.T, at string) {
	s, ctx := open(t, at), t.Context()
	must(t, s.CreateAPIToken(ctx, &model.APIToken{Name: "ci", ID: "i1", Scope: model.ScopeAdmin, Hash: []byte{1}}))
	refused(t, s.CreateAPIToken(ctx, &model.APIToken{Name: "ci", ID: "i2"}), model.Taken, "name", "ci")
	if got := ok[*model.APIToken](t)(s.APITokenByID(ctx, "i1")); got.Name != "ci" || got.Scope != model.ScopeAdmin {
		t.Fatalf("%+v", got)
	}
	_, err := s.DeleteAPIToken(ctx, "ci")
	must(t, err)
	_, err = s.APITokenByID(ctx, "i1")
	refused(t, err, model.NotFound, "token", "")
	_, err = s.DeleteAPIToken(ctx, "ci")
	refused(t, err, model.NotFound, "name", "ci")

	must(t, s.CreateJoinToken(ctx, &model.JoinToken{ID: "a", Host: "h1", Expires: now}))
	must(t, s.CreateJoinToken(ctx, &model.JoinToken{ID: "b", Host: "h2", Expires: now.Add(time.Hour)}))
	must(t, s.UseJoinToken(ctx, "a", "u1", []byte("csr")))
	must(t, s.UseJoinToken(ctx, "a", "u1", []byte("csr")))
	refused(t, s.UseJoinToken(ctx, "a", "u1", []byte("other")), model.Denied, "token", "used")
	refused(t, s.UseJoinToken(ctx, "a", "u2", []byte("csr")), model.Denied, "token", "used")
	refused(t, s.UseJoinToken(ctx, "none", "u2", nil), model.NotFound, "token", "")
	if n := ok[int](t)(s.PruneJoinTokens(ctx, now.Add(time.Minute))); n != 1 {
		t.Fatalf("pruned %d", n)
	}
	_, err = s.GetJoinToken(ctx, "a")
	refused(t, err, model.NotFound, "token", "")
	ok[*model.JoinToken](t)(s.GetJoinToken(ctx, "b"))
}

func testAudit(t *testing.T, at string) {
	s := open(t, at)
	ctx := WithActor(t.Context(), "alice")
	acme := tenant("acme")
	must(t, s.CreateTenant(ctx, acme))
	for i := range 5 {
		must(t, s.CreateTenant(ctx, tenant(fmt.Sprintf("t%d", i))))
	}
	all := ok[[]AuditRecord](t)(s.Audit(ctx, 0))
	if len(all) != 6 {
		t.Fatalf("%+v", all)
	}
	if r := all[5]; r.Who != "alice" || r.What != "create" || r.Object != "tenant acme" || r.Revision != acme.Revision || time.Since(r.Time) > time.Hour {
		t.Fatalf("%+v", r)
	}
	must(t, s.pruneAudit(ctx, 2))
	left := ok[[]AuditRecord](t)(s.Audit(ctx, 0))
	if len(left) != 2 || left[0] != all[0] || left[1] != all[1] {
		t.Fatalf("left %+v of %+v", left, all)
	}
	if one := ok[[]AuditRecord](t)(s.Audit(ctx, 1)); len(one) != 1 || one[0] != all[0] {
		t.Fatalf("%+v", one)
	}
	// Many are removed in small parts, also by two servers at once.
	const many = 2*pruneAtOnce + 300
	for i := 0; i < many; i += 100 {
		var ops []clientv3.Op
		for j := range 100 {
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("%s%08d", s.keys.in("audit"), i+j), `{"who":"old"}`))
		}
		ok[*clientv3.TxnResponse](t)(s.cli.Txn(ctx).Then(ops...).Commit())
	}
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	gone := s.cli.Watch(watching, s.keys.in("audit"), clientv3.WithPrefix(), clientv3.WithRev(ok[*view](t)(s.look(ctx)).rev+1))
	race(func(int) error { return s.pruneAudit(ctx, 2) })
	removed := map[int64]int{}
	for n := 0; n < many; {
		select {
		case r := <-gone:
			for _, ev := range r.Events {
				removed[ev.Kv.ModRevision]++
				n++
			}
		case <-time.After(patience):
			t.Fatalf("%d records of %d are gone", n, many)
		}
	}
	for rev, n := range removed {
		if n > pruneAtOnce {
			t.Errorf("%d records were removed at revision %d", n, rev)
		}
	}
	if left := ok[[]AuditRecord](t)(s.Audit(ctx, 0)); len(left) != 2 || left[0] != all[0] || left[1] != all[1] {
		t.Errorf("left %+v", left)
	}
}

func testTombstones(t *testing.T, at string) {
	s, ctx := open(t, at), t.Context()
	for i := range 3 {
		name := fmt.Sprintf("ext%d", i)
		must(t, s.CreateVTEP(ctx, vtep(name)))
		ok[model.Revision](t)(s.DeleteVTEP(ctx, name, now.Add(time.Duration(i)*time.Hour)))
	}
	if n := ok[int](t)(s.PruneTombstones(ctx, now.Add(time.Hour))); n != 1 {
		t.Fatalf("pruned %d", n)
	}
	if w := ok[*model.World](t)(s.Load(ctx)); len(w.Tombstones) != 2 {
		t.Fatalf("%v", w.Tombstones)
	}
}

func testSize(t *testing.T, at string) {
	s := open(t, at)
	octets, _, err := s.Size(t.Context())
	if err != nil || octets == 0 {
		t.Fatalf("%d octets, %v", octets, err)
	}
}

func unavailable(t *testing.T, err error, part string) {
	t.Helper()
	var e *UnavailableError
	if !errors.As(err, &e) || !strings.Contains(err.Error(), part) || e.Tried == 0 {
		t.Fatalf("want an UnavailableError with %q, got %v", part, err)
	}
}
