package cli

import (
	"context"
	"net/netip"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/client"
	"github.com/weftnet/weft/wire"
)

// object is what the API answers for every kind.
type object interface {
	proto.Message
	GetMeta() *weftv1.Meta
}

// kind of object that a manifest may hold. The kinds stand in the order in which they are applied: each needs only those
// before it.
type kind struct {
	name string
	// owned by a tenant.
	owned bool
	// spec is an empty one.
	spec func() proto.Message
	// specOf an object.
	specOf func(object) proto.Message
	// needs are the objects (objectName) that must be there first.
	needs func(d *document) []string
	// networks ("tenant/name") whose hosts apply a change of it.
	networks func(d *document, o object) []string
	get      func(ctx context.Context, c *client.Client, d *document) (object, error)
	create   func(ctx context.Context, c *client.Client, d *document) (object, error)
	update   func(ctx context.Context, c *client.Client, d *document, revision int64) (object, error)
}

var kinds = [...]kind{
	{
		name:     "Tenant",
		spec:     func() proto.Message { return &weftv1.TenantSpec{} },
		specOf:   func(o object) proto.Message { return o.(*weftv1.Tenant).GetSpec() },
		needs:    func(*document) []string { return nil },
		networks: func(*document, object) []string { return nil },
		get: func(ctx context.Context, c *client.Client, d *document) (object, error) {
			return call(ctx, c.Tenants.GetTenant, &weftv1.GetTenantRequest{Name: d.name})
		},
		create: func(ctx context.Context, c *client.Client, d *document) (object, error) {
			return call(ctx, c.Tenants.CreateTenant, &weftv1.CreateTenantRequest{Name: d.name, Spec: d.spec.(*weftv1.TenantSpec)})
		},
		update: func(ctx context.Context, c *client.Client, d *document, revision int64) (object, error) {
			return call(ctx, c.Tenants.UpdateTenant, &weftv1.UpdateTenantRequest{Name: d.name, Revision: revision, Spec: d.spec.(*weftv1.TenantSpec)})
		},
	},
	{
		name:     "VNIPool",
		spec:     func() proto.Message { return &weftv1.VNIPoolSpec{} },
		specOf:   func(o object) proto.Message { return o.(*weftv1.VNIPool).GetSpec() },
		needs:    func(*document) []string { return nil },
		networks: func(*document, object) []string { return nil },
		get: func(ctx context.Context, c *client.Client, d *document) (object, error) {
			return call(ctx, c.VNIPools.GetVNIPool, &weftv1.GetVNIPoolRequest{Name: d.name})
		},
		create: func(ctx context.Context, c *client.Client, d *document) (object, error) {
			return call(ctx, c.VNIPools.CreateVNIPool, &weftv1.CreateVNIPoolRequest{Name: d.name, Spec: d.spec.(*weftv1.VNIPoolSpec)})
		},
		update: func(ctx context.Context, c *client.Client, d *document, revision int64) (object, error) {
			return call(ctx, c.VNIPools.UpdateVNIPool, &weftv1.UpdateVNIPoolRequest{Name: d.name, Revision: revision, Spec: d.spec.(*weftv1.VNIPoolSpec)})
		},
	},
	{
		name:     "GroupPool",
		spec:     func() proto.Message { return &weftv1.GroupPoolSpec{} },
		specOf:   func(o object) proto.Message { return o.(*weftv1.GroupPool).GetSpec() },
		needs:    func(*document) []string { return nil },
		networks: func(*document, object) []string { return nil },
		get: func(ctx context.Context, c *client.Client, d *document) (object, error) {
			return call(ctx, c.GroupPools.GetGroupPool, &weftv1.GetGroupPoolRequest{Name: d.name})
		},
		create: func(ctx context.Context, c *client.Client, d *document) (object, error) {
			return call(ctx, c.GroupPools.CreateGroupPool, &weftv1.CreateGroupPoolRequest{Name: d.name, Spec: d.spec.(*weftv1.GroupPoolSpec)})
		},
		update: func(ctx context.Context, c *client.Client, d *document, revision int64) (object, error) {
			return call(ctx, c.GroupPools.UpdateGroupPool, &weftv1.UpdateGroupPoolRequest{Name: d.name, Revision: revision, Spec: d.spec.(*weftv1.GroupPoolSpec)})
		},
	},
	{
		name:     "VTEP",
		spec:     func() proto.Message { return &weftv1.VTEPSpec{} },
		specOf:   func(o object) proto.Message { return o.(*weftv1.VTEP).GetSpec() },
		needs:    func(*document) []string { return nil },
		networks: func(_ *document, o object) []string { return o.(*weftv1.VTEP).GetStatus().GetNetworks() },
		get: func(ctx context.Context, c *client.Client, d *document) (object, error) {
			return call(ctx, c.VTEPs.GetVTEP, &weftv1.GetVTEPRequest{Name: d.name})
		},
		create: func(ctx context.Context, c *client.Client, d *document) (object, error) {
			return call(ctx, c.VTEPs.CreateVTEP, &weftv1.CreateVTEPRequest{Name: d.name, Spec: d.spec.(*weftv1.VTEPSpec)})
		},
		update: func(ctx context.Context, c *client.Client, d *document, revision int64) (object, error) {
			return call(ctx, c.VTEPs.UpdateVTEP, &weftv1.UpdateVTEPRequest{Name: d.name, Revision: revision, Spec: d.spec.(*weftv1.VTEPSpec)})
		},
	},
	{
		name: "Network", owned: true,
		spec:   func() proto.Message { return &weftv1.NetworkSpec{} },
		specOf: func(o object) proto.Message { return o.(*weftv1.Network).GetSpec() },
		needs: func(d *document) []string {
			spec := d.spec.(*weftv1.NetworkSpec)
			needs := []string{objectName("Tenant", "", d.tenant), objectName("VNIPool", "", spec.GetVniPool()), objectName("GroupPool", "", spec.GetGroupPool())}
			for _, v := range spec.GetVteps() {
				needs = append(needs, objectName("VTEP", "", v.GetVtep()))
			}
			return needs
		},
		networks: func(d *document, _ object) []string { return []string{d.tenant + "/" + d.name} },
		get: func(ctx context.Context, c *client.Client, d *document) (object, error) {
			return call(ctx, c.Networks.GetNetwork, &weftv1.GetNetworkRequest{Tenant: d.tenant, Name: d.name})
		},
		create: func(ctx context.Context, c *client.Client, d *document) (object, error) {
			return call(ctx, c.Networks.CreateNetwork, &weftv1.CreateNetworkRequest{Tenant: d.tenant, Name: d.name, Spec: d.spec.(*weftv1.NetworkSpec)})
		},
		update: func(ctx context.Context, c *client.Client, d *document, revision int64) (object, error) {
			return call(ctx, c.Networks.UpdateNetwork,
				&weftv1.UpdateNetworkRequest{Tenant: d.tenant, Name: d.name, Revision: revision, Spec: d.spec.(*weftv1.NetworkSpec)})
		},
	},
	{
		name: "Port", owned: true,
		spec:   func() proto.Message { return &weftv1.PortSpec{} },
		specOf: func(o object) proto.Message { return o.(*weftv1.Port).GetSpec() },
		needs: func(d *document) []string {
			return []string{objectName("Tenant", "", d.tenant), objectName("Network", d.tenant, d.spec.(*weftv1.PortSpec).GetNetwork())}
		},
		networks: func(d *document, _ object) []string {
			return []string{d.tenant + "/" + d.spec.(*weftv1.PortSpec).GetNetwork()}
		},
		get: func(ctx context.Context, c *client.Client, d *document) (object, error) {
			return call(ctx, c.Ports.GetPort, &weftv1.GetPortRequest{Tenant: d.tenant, Name: d.name})
		},
		create: func(ctx context.Context, c *client.Client, d *document) (object, error) {
			return call(ctx, c.Ports.CreatePort, &weftv1.CreatePortRequest{Tenant: d.tenant, Name: d.name, Spec: d.spec.(*weftv1.PortSpec)})
		},
		update: func(ctx context.Context, c *client.Client, d *document, revision int64) (object, error) {
			return call(ctx, c.Ports.UpdatePort,
				&weftv1.UpdatePortRequest{Tenant: d.tenant, Name: d.name, Revision: revision, Spec: d.spec.(*weftv1.PortSpec)})
		},
	},
}

func kindNames() string {
	var all []string
	for _, k := range kinds {
		all = append(all, k.name)
	}
	return strings.Join(all, ", ")
}

// sameSpec compares what two specs mean: addresses by value, however they are written.
func sameSpec(a, b proto.Message) bool {
	a, b = proto.Clone(a), proto.Clone(b)
	canonical(a.ProtoReflect())
	canonical(b.ProtoReflect())
	return proto.Equal(a, b)
}

func canonical(msg protoreflect.Message) {
	msg.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsList():
			list := v.List()
			for i := range list.Len() {
				if fd.Kind() == protoreflect.MessageKind {
					canonical(list.Get(i).Message())
				} else if fd.Kind() == protoreflect.StringKind {
					list.Set(i, protoreflect.ValueOfString(canonicalText(fd.Name(), list.Get(i).String())))
				}
			}
		case fd.Kind() == protoreflect.MessageKind:
			canonical(v.Message())
		case fd.Kind() == protoreflect.StringKind:
			msg.Set(fd, protoreflect.ValueOfString(canonicalText(fd.Name(), v.String())))
		}
		return true
	})
}

func canonicalText(field protoreflect.Name, s string) string {
	switch field {
	case "mac", "macs":
		if m, err := wire.ParseMAC(s); err == nil {
			return m.String()
		}
	case "ip", "ips", "address", "gateway", "gateways", "dns_servers", "group", "first", "last":
		if a, err := netip.ParseAddr(s); err == nil {
			return a.String()
		}
	case "subnets", "prefix":
		if p, err := netip.ParsePrefix(s); err == nil {
			return p.String()
		}
	}
	return s
}
