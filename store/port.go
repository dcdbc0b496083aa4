package store

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/wire"
)

// CreatePort makes a port and claims p.Alloc's MACs and IPs in its network. A port of this uid that is there already is what an
// earlier try of the same made: it is read into p. The network is as it was when the IPs were
// checked against its subnets, or they are checked again.
func (s *Store) CreatePort(ctx context.Context, p *model.Port) error {
	key, what := s.keys.port(p.Tenant, p.Name), "port "+p.Tenant+"/"+p.Name
	rev, err := s.write(ctx, func(ctx context.Context) (*edit, error) {
		v, err := s.look(ctx, get(key), get(s.keys.network(p.Tenant, p.Spec.Network)), get(s.keys.tenant(p.Tenant)), get(s.keys.tombstone(p.UID)))
		if err != nil {
			return nil, err
		}
		switch {
		case v.one(2) == nil:
			return nil, noTenant("tenant", p.Tenant)
		case v.one(0) != nil:
			return nil, takenOrOwn(v, v.one(0), p, &p.Meta, what)
		case v.one(3) != nil:
			return nil, goneAgain(what)
		case v.one(1) == nil:
			return nil, noNetwork("spec.network", p.Tenant, p.Spec.Network)
		}
		n, err := decode[model.Network](v.one(1))
		if err != nil {
			return nil, err
		}
		if p.Alloc.NetworkUID != "" && p.Alloc.NetworkUID != n.UID {
			return nil, replaced(p, n)
		}
		p.Alloc.NetworkUID = n.UID
		e := v.edit("create", what)
		e.absent(key)
		e.absent(s.keys.tombstone(p.UID))
		e.same(s.keys.network(p.Tenant, n.Name), v.one(1))
		if err := s.claim(ctx, e, nil, p, n); err != nil {
			return nil, err
		}
		e.put(key, p)
		e.put(s.keys.idxUID("port", p.UID), portRef(p))
		e.put(s.keys.idxIn(n.UID, p.UID), portRef(p))
		return e, nil
	})
	if err == nil && rev != 0 {
		p.Revision = rev
	}
	return err
}

// UpdatePort writes the port if p.Revision is the current one, claims the addresses that are new in p.Alloc and gives back
// those that are gone. The port stays in its network.
func (s *Store) UpdatePort(ctx context.Context, p *model.Port) error {
	key, what := s.keys.port(p.Tenant, p.Name), "port "+p.Tenant+"/"+p.Name
	based := p.Revision
	rev, err := s.write(ctx, func(ctx context.Context) (*edit, error) {
		v, err := s.look(ctx, get(key), get(s.keys.network(p.Tenant, p.Spec.Network)))
		if err != nil {
			return nil, err
		}
		kv := v.one(0)
		if kv == nil {
			return nil, noPort("name", p.Tenant, p.Name)
		}
		if err := stale(v, kv, based, what); err != nil {
			return nil, err
		}
		old, err := decode[model.Port](kv)
		if err != nil {
			return nil, err
		}
		if p.Spec.Network != old.Spec.Network {
			return nil, model.Errorf(model.Invalid, "spec.network", "make another port there", "a port stays in its network, which is %s", old.Spec.Network)
		}
		if v.one(1) == nil {
			return nil, noNetwork("spec.network", p.Tenant, p.Spec.Network)
		}
		n, err := decode[model.Network](v.one(1))
		if err != nil {
			return nil, err
		}
		p.UID, p.Created, p.Alloc.NetworkUID = old.UID, old.Created, old.Alloc.NetworkUID
		if unchanged(kv, p) {
			return nil, nil
		}
		e := v.edit("update", what)
		e.same(key, kv)
		e.same(s.keys.network(p.Tenant, n.Name), v.one(1))
		if err := s.claim(ctx, e, old, p, n); err != nil {
			return nil, err
		}
		e.put(key, p)
		return e, nil
	})
	if err == nil && rev != 0 {
		p.Revision = rev
	}
	return err
}

// claim indexes the addresses that are new, after seeing that nobody has them and that the network's subnets hold them,
// and gives back the others. The index is per network: two networks never meet here.
func (s *Store) claim(ctx context.Context, e *edit, old, p *model.Port, n *model.Network) error {
	var had model.PortAlloc
	if old != nil {
		had = old.Alloc
	}
	var gets []clientv3.Op
	var keys, fields, whats []string
	want := func(key, field, what string) {
		gets, keys, fields, whats = append(gets, get(key)), append(keys, key), append(fields, field), append(whats, what)
	}
	for i, mac := range p.Alloc.MACs {
		if !slices.Contains(had.MACs, mac) && !slices.Contains(p.Alloc.MACs[:i], mac) {
			want(s.keys.idxMAC(n.UID, mac), fieldOf("spec.macs", p.Spec.MACs, mac), "MAC "+mac.String())
		}
	}
	ips, hadIPs := addresses(p.Alloc.IPs), addresses(had.IPs)
	for i, ip := range ips {
		if slices.Contains(hadIPs, ip) || slices.Contains(ips[:i], ip) {
			continue
		}
		field := fieldOf("spec.ips", p.Spec.IPs, ip)
		if !slices.ContainsFunc(n.Spec.Subnets, func(s netip.Prefix) bool { return s.Contains(ip) }) {
			return model.Errorf(model.Invalid, field, "choose one inside, or add a subnet to the network",
				"%s is outside the subnets of network %s (%v)", ip, n.Name, n.Spec.Subnets)
		}
		want(s.keys.idxIP(n.UID, ip), field, "IP "+ip.String())
	}
	// In pieces: a read has etcd's limit of operations too.
	for at := 0; at < len(gets); at += pageOps {
		end := min(at+pageOps, len(gets))
		v, err := s.look(ctx, gets[at:end]...)
		if err != nil {
			return err
		}
		for i := at; i < end; i++ {
			if kv := v.one(i - at); kv != nil {
				return addressTaken(kv, fields[i], whats[i], n)
			}
			e.absent(keys[i])
			e.put(keys[i], portRef(p))
		}
	}
	for _, mac := range had.MACs {
		if !slices.Contains(p.Alloc.MACs, mac) {
			e.remove(s.keys.idxMAC(n.UID, mac))
		}
	}
	for _, ip := range hadIPs {
		if !slices.Contains(ips, ip) {
			e.remove(s.keys.idxIP(n.UID, ip))
		}
	}
	return nil
}

func addressTaken(kv *keyValue, field, what string, n *model.Network) error {
	by, err := decode[ref](kv)
	if err != nil {
		return err
	}
	return model.Errorf(model.Taken, field, "choose another, or leave it out to have one allocated",
		"%s is taken in network %s by port %s", what, n.Name, by.Name)
}

// DeletePort removes a port that no host holds, with its binding, its last move, its counters and its claims, and leaves a tombstone.
func (s *Store) DeletePort(ctx context.Context, tenant, name string, now time.Time) (model.Revision, error) {
	key := s.keys.port(tenant, name)
	return s.write(ctx, func(ctx context.Context) (*edit, error) {
		v, err := s.look(ctx, get(key))
		if err != nil {
			return nil, err
		}
		kv := v.one(0)
		if kv == nil {
			return nil, noPort("port", tenant, name)
		}
		p, err := decode[model.Port](kv)
		if err != nil {
			return nil, err
		}
		e := v.edit("delete", "port "+tenant+"/"+name)
		e.same(key, kv)
		if v, err = s.look(ctx, get(s.keys.binding(p.UID))); err != nil {
			return nil, err
		}
		e.same(s.keys.binding(p.UID), v.one(0))
		if kv := v.one(0); kv != nil {
			b, err := decode[model.Binding](kv)
			if err != nil {
				return nil, err
			}
			for host := range b.Hosts() {
				return nil, model.Errorf(model.Conflict, "port", fmt.Sprintf("detach it first: `weft port detach %s --tenant %s`", name, tenant),
					"port %s/%s is bound to host %s", tenant, name, s.hostName(ctx, host))
			}
			e.remove(s.keys.binding(p.UID))
			e.remove(s.keys.move(p.UID))
			e.remove(s.keys.counters(p.UID))
		}
		for _, mac := range dedupe(p.Alloc.MACs) {
			e.remove(s.keys.idxMAC(p.Alloc.NetworkUID, mac))
		}
		for _, ip := range dedupe(addresses(p.Alloc.IPs)) {
			e.remove(s.keys.idxIP(p.Alloc.NetworkUID, ip))
		}
		e.remove(key)
		e.remove(s.keys.idxUID("port", p.UID))
		e.remove(s.keys.idxIn(p.Alloc.NetworkUID, p.UID))
		e.put(s.keys.tombstone(p.UID), model.Tombstone{
			Kind: model.KindPort, UID: p.UID, Network: p.Alloc.NetworkUID, Name: name, Deleted: now.UTC(),
		})
		return e, nil
	})
}

// pageOps bounds the operations of one read.
const pageOps = 100

func portRef(p *model.Port) ref {
	return ref{UID: p.UID, Tenant: p.Tenant, Name: p.Name, Network: p.Alloc.NetworkUID}
}

// fieldOf names the element of a spec's list that an address was stated in, or the list when it was allocated.
func fieldOf[T wire.MAC | netip.Addr](list string, stated []T, address T) string {
	if i := slices.Index(stated, address); i >= 0 {
		return fmt.Sprintf("%s[%d]", list, i)
	}
	return list
}

func addresses(prefixes []netip.Prefix) []netip.Addr {
	ips := make([]netip.Addr, 0, len(prefixes))
	for _, p := range prefixes {
		ips = append(ips, p.Addr().Unmap())
	}
	return ips
}

func dedupe[T comparable](in []T) []T {
	var out []T
	for _, v := range in {
		if !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}

func replaced(p *model.Port, n *model.Network) error {
	return model.Errorf(model.Stale, "spec.network", "try again", "network %s/%s was deleted and made again meanwhile", p.Tenant, n.Name)
}

func noPort(field, tenant, name string) error {
	return missing(field, fmt.Sprintf("port %s of tenant %s", name, tenant), "weft port list --tenant "+tenant)
}
