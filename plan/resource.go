package plan

import (
	"crypto/sha256"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
)

// Key names a resource. A uid is never reused, so a key says one life of one object.
type Key struct {
	Kind planv1.Kind
	UID  string
}

// String is "port/<uid>", for messages.
func (k Key) String() string { return KindName(k.Kind) + "/" + k.UID }

// KindName is the word for a kind: "host", "network", "port", "vtep".
func KindName(k planv1.Kind) string {
	switch k {
	case planv1.Kind_KIND_HOST:
		return "host"
	case planv1.Kind_KIND_NETWORK:
		return "network"
	case planv1.Kind_KIND_PORT:
		return "port"
	case planv1.Kind_KIND_VTEP:
		return "vtep"
	default:
		return fmt.Sprintf("kind %d", int32(k))
	}
}

// Resource is one thing that a host must hold: the same octets for every host that holds it. It is shared and never
// modified once made.
type Resource struct {
	// Scope is the unit of subscription and resync: HostScope, UnderlayScope, NetworkScope or VTEPScope.
	Scope string
	UID   string
	Kind  planv1.Kind
	// Revision of the store at which it was compiled. Two servers may differ in it for the same octets: it is no part
	// of the identity and of the digest.
	Revision int64
	// Hash is sha256 of Body.
	Hash [sha256.Size]byte
	Body []byte
	// Requires names the features that an agent must know to apply it.
	Requires []string

	wire *planv1.Resource
	// decoded is the body's message, from FromProto until Forget.
	decoded proto.Message
}

// NewResource marshals a Host, Network, Port or Vtep, deterministically: equal messages give equal octets.
func NewResource(scope string, kind planv1.Kind, uid string, revision int64, msg proto.Message, requires ...string) *Resource {
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(msg)
	if err != nil {
		// Only a string that is not UTF-8 does this, and no validated name is one.
		panic(fmt.Sprintf("marshal %s %s: %v", KindName(kind), uid, err))
	}
	r := &Resource{Scope: scope, UID: uid, Kind: kind, Revision: revision, Hash: sha256.Sum256(body), Body: body, Requires: requires}
	r.wire = r.message()
	return r
}

// NewHost makes the resource of a host.
func NewHost(revision int64, h *planv1.Host, requires ...string) *Resource {
	return NewResource(HostScope(h.GetUid()), planv1.Kind_KIND_HOST, h.GetUid(), revision, h, requires...)
}

// NewNetwork makes the resource of a network.
func NewNetwork(revision int64, n *planv1.Network, requires ...string) *Resource {
	return NewResource(NetworkScope(n.GetUid()), planv1.Kind_KIND_NETWORK, n.GetUid(), revision, n, requires...)
}

// NewPort makes the resource of a port, in the scope of its network.
func NewPort(revision int64, p *planv1.Port, requires ...string) *Resource {
	return NewResource(NetworkScope(p.GetNetwork()), planv1.Kind_KIND_PORT, p.GetUid(), revision, p, requires...)
}

// NewVTEP makes the resource of a VTEP, in the underlay's scope if it is a host's.
func NewVTEP(revision int64, v *planv1.Vtep, requires ...string) *Resource {
	return NewResource(scopeOfVTEP(v), planv1.Kind_KIND_VTEP, v.GetUid(), revision, v, requires...)
}

// Key of the resource.
func (r *Resource) Key() Key { return Key{r.Kind, r.UID} }

// Proto is the resource as it travels; shared by all who ask, so it must not be modified.
func (r *Resource) Proto() *planv1.Resource {
	if r.wire != nil {
		return r.wire
	}
	return r.message()
}

func (r *Resource) message() *planv1.Resource {
	return &planv1.Resource{
		Scope: r.Scope, Kind: r.Kind, Uid: r.UID, Revision: r.Revision, Sha256: r.Hash[:], Body: r.Body, Requires: r.Requires,
	}
}

// FromProto takes a resource from the wire and checks everything that can be checked of it alone: a known kind, the
// hash, a body that decodes, the uid inside it, and the scope that such a resource belongs to. The decoded message is kept for
// those who look at it next, until Forget.
func FromProto(m *planv1.Resource) (*Resource, error) {
	r := &Resource{
		Scope: m.GetScope(), UID: m.GetUid(), Kind: m.GetKind(), Revision: m.GetRevision(),
		Hash: sha256.Sum256(m.GetBody()), Body: m.GetBody(), Requires: m.GetRequires(),
	}
	if r.UID == "" {
		return nil, fmt.Errorf("a %s without uid in scope %q", KindName(r.Kind), r.Scope)
	}
	if string(m.GetSha256()) != string(r.Hash[:]) {
		return nil, fmt.Errorf("%s: the sha256 is not that of its body", r.Key())
	}
	body, err := r.Decode()
	if err != nil {
		return nil, err
	}
	uid, scope := "", ""
	switch b := body.(type) {
	case *planv1.Host:
		uid, scope = b.GetUid(), HostScope(b.GetUid())
	case *planv1.Network:
		uid, scope = b.GetUid(), NetworkScope(b.GetUid())
	case *planv1.Port:
		uid, scope = b.GetUid(), NetworkScope(b.GetNetwork())
	case *planv1.Vtep:
		uid, scope = b.GetUid(), scopeOfVTEP(b)
	}
	if uid != r.UID {
		return nil, fmt.Errorf("%s: its body says uid %q", r.Key(), uid)
	}
	if scope != r.Scope {
		return nil, fmt.Errorf("%s: stands in scope %q and belongs in %q", r.Key(), r.Scope, scope)
	}
	r.wire, r.decoded = m, body
	return r, nil
}

// Forget drops the decoded message: what a host holds would take twice the memory. Others may read the resource meanwhile only if it was
// done before.
func (r *Resource) Forget() {
	if r.decoded != nil {
		r.decoded = nil
	}
}

// Decode unmarshals the body into the message of its kind, which must not be modified.
func (r *Resource) Decode() (proto.Message, error) {
	if r.decoded != nil {
		return r.decoded, nil
	}
	var m proto.Message
	switch r.Kind {
	case planv1.Kind_KIND_HOST:
		m = new(planv1.Host)
	case planv1.Kind_KIND_NETWORK:
		m = new(planv1.Network)
	case planv1.Kind_KIND_PORT:
		m = new(planv1.Port)
	case planv1.Kind_KIND_VTEP:
		m = new(planv1.Vtep)
	default:
		return nil, fmt.Errorf("%s: unknown kind", r.Key())
	}
	if err := proto.Unmarshal(r.Body, m); err != nil {
		return nil, fmt.Errorf("%s: decode its body: %w", r.Key(), err)
	}
	return m, nil
}

// Spread calls look for each of 0 to n-1, in any order, and perhaps several at once. The zero one does so one after the other.
type Spread func(n int, look func(i int))

func (s Spread) each(n int, look func(i int)) {
	if s != nil {
		s(n, look)
		return
	}
	for i := range n {
		look(i)
	}
}

// Host is the body of a resource of kind host, or nil.
func (r *Resource) Host() *planv1.Host { return decode[*planv1.Host](r) }

// Network is the body of a resource of kind network, or nil.
func (r *Resource) Network() *planv1.Network { return decode[*planv1.Network](r) }

// Port is the body of a resource of kind port, or nil.
func (r *Resource) Port() *planv1.Port { return decode[*planv1.Port](r) }

// VTEP is the body of a resource of kind vtep, or nil.
func (r *Resource) VTEP() *planv1.Vtep { return decode[*planv1.Vtep](r) }

func decode[M proto.Message](r *Resource) M {
	var none M
	if r == nil {
		return none
	}
	m, err := r.Decode()
	if err != nil {
		return none
	}
	t, ok := m.(M)
	if !ok {
		return none
	}
	return t
}

// Removal says that a resource is gone, and the revision that is the evidence for it; 0 is none. One with the zero Key
// speaks of the host's interest in a whole scope.
type Removal struct {
	Scope    string
	Key      Key
	Revision int64
}

// Proto is the removal as it travels.
func (r Removal) Proto() *planv1.Removal {
	return &planv1.Removal{Scope: r.Scope, Kind: r.Key.Kind, Uid: r.Key.UID, Revision: r.Revision}
}

// RemovalFromProto takes a removal from the wire.
func RemovalFromProto(m *planv1.Removal) Removal {
	return Removal{Scope: m.GetScope(), Key: Key{m.GetKind(), m.GetUid()}, Revision: m.GetRevision()}
}

const (
	hostPrefix    = "host/"
	networkPrefix = "network/"
	vtepPrefix    = "vtep/"
)

// UnderlayScope holds the VTEP of every host; every host subscribes to it.
const UnderlayScope = "underlay"

// HostScope holds one host's own resource.
func HostScope(uid string) string { return hostPrefix + uid }

// NetworkScope holds a network and its ports.
func NetworkScope(uid string) string { return networkPrefix + uid }

// VTEPScope holds one external VTEP.
func VTEPScope(uid string) string { return vtepPrefix + uid }

func scopeOfVTEP(v *planv1.Vtep) string {
	if v.GetExternal() {
		return VTEPScope(v.GetUid())
	}
	return UnderlayScope
}

// SplitScope is the reverse of the three: what a scope is about. ok is false for anything else, the underlay included.
func SplitScope(scope string) (kind planv1.Kind, uid string, ok bool) {
	if uid, ok := strings.CutPrefix(scope, hostPrefix); ok && uid != "" {
		return planv1.Kind_KIND_HOST, uid, true
	}
	if uid, ok := strings.CutPrefix(scope, networkPrefix); ok && uid != "" {
		return planv1.Kind_KIND_NETWORK, uid, true
	}
	if uid, ok := strings.CutPrefix(scope, vtepPrefix); ok && uid != "" {
		return planv1.Kind_KIND_VTEP, uid, true
	}
	return planv1.Kind_KIND_UNSPECIFIED, "", false
}

// Subscription lists the scopes that a host holds: its own, the underlay's, its networks' and their external VTEPs'.
func Subscription(h *planv1.Host) []string {
	scopes := make([]string, 0, 2+len(h.GetNetworks())+len(h.GetVteps()))
	scopes = append(scopes, HostScope(h.GetUid()), UnderlayScope)
	for _, uid := range h.GetNetworks() {
		scopes = append(scopes, NetworkScope(uid))
	}
	for _, uid := range h.GetVteps() {
		scopes = append(scopes, VTEPScope(uid))
	}
	return scopes
}
