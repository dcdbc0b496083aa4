package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
)

// The limits of what an agent takes in.
const (
	// GuardResources: an update that removes more than this many resources, and more than half of what is held, must
	// bring evidence for them.
	GuardResources = 10
	// MaxStagedResources bounds one update, so that a broken server cannot exhaust a host's memory.
	MaxStagedResources = 4_000_000
	// mostExpected bounds the room that is made because a server says that so many will come.
	mostExpected = 1 << 17
)

// Refusal is an update that was not taken: the last good plan stays as it was. After one, the agent says Applied.refused,
// ends the stream and says Hello again from what it holds, which makes the server send what differs.
type Refusal struct{ Reason string }

// Error is the reason.
func (r *Refusal) Error() string { return "plan refused: " + r.Reason }

// Step is an update that was taken as a whole.
type Step struct {
	StoreID  string
	Revision int64
	// Upserts are the resources that are new or differ from what was held, hosts and VTEPs before networks before ports.
	Upserts []*Resource
	// Removed are the resources that were held and are gone, in the opposite order.
	Removed []*Resource
}

// Staging assembles the chunks of updates and takes each update whole or not at all. One a stream; not safe for
// concurrent use.
type Staging struct {
	// AcceptLoss switches the removal guard off: an operator said that the loss is meant.
	AcceptLoss bool
	// Decode reads and checks a resource from the wire; nil is FromProto. Many stagings in one process can share what it returns.
	Decode func(*planv1.Resource) (*Resource, error)
	// Spread is how the resources of a message are decoded.
	Spread Spread

	host     string
	set      *Set
	storeID  string
	revision int64
	pending  *pending
	refused  *Refusal
}

type pending struct {
	storeID  string
	revision int64
	reset    map[string]bool
	drop     map[string]bool
	upserts  map[Key]*Resource
	removals map[Removal]bool // with Revision 0
	evidence map[Removal]bool // with Revision 0: there is evidence
	order    []*Resource
}

// NewStaging continues from what a host holds: set is changed in place when an update is taken, and only then. storeID
// is empty and revision 0 when it holds nothing. A host resource of another uid than host is refused; "" takes any.
func NewStaging(host string, set *Set, storeID string, revision int64) *Staging {
	return &Staging{host: host, set: set, storeID: storeID, revision: revision}
}

// Set is what is held now. It changes with every Step.
func (s *Staging) Set() *Set { return s.set }

// StoreID of the last update taken.
func (s *Staging) StoreID() string { return s.storeID }

// Revision of the last update taken.
func (s *Staging) Revision() int64 { return s.revision }

// Hello fills in what the server must know of what is held: store id, revision, digests and features.
func (s *Staging) Hello(version string, facts *planv1.Facts) *planv1.Hello {
	return &planv1.Hello{
		Version: version, StoreId: s.storeID, Revision: s.revision, Scopes: s.set.Digests(), Facts: facts, Features: Features(),
	}
}

// Receive takes one message. It returns nil, nil while more chunks are to come, the Step at the last one, or a *Refusal;
// after a refusal every further message is refused with the same reason, as it builds on what was not taken.
func (s *Staging) Receive(u *planv1.Update) (*Step, error) {
	if s.refused != nil {
		return nil, s.refused
	}
	step, err := s.receive(u)
	if err != nil {
		s.pending = nil
		s.refused = &Refusal{Reason: err.Error()}
		return nil, s.refused
	}
	return step, nil
}

func (s *Staging) receive(u *planv1.Update) (*Step, error) {
	if err := s.begin(u); err != nil {
		return nil, err
	}
	p := s.pending
	for _, scope := range u.GetResetScopes() {
		mark(&p.reset, scope)
	}
	for _, scope := range u.GetDropScopes() {
		mark(&p.drop, scope)
	}
	for _, m := range u.GetRemovals() {
		r := RemovalFromProto(m)
		evidence := r.Revision != 0
		r.Revision = 0
		if r.Key != (Key{}) {
			mark(&p.removals, r)
		}
		if evidence {
			mark(&p.evidence, r)
		}
	}
	resources, err := s.decode(u.GetUpserts())
	if err != nil {
		return nil, err
	}
	for _, r := range resources {
		if err := s.stage(r); err != nil {
			return nil, err
		}
	}
	if len(p.order)+len(p.removals) > MaxStagedResources {
		return nil, fmt.Errorf("more than %d resources in one update", MaxStagedResources)
	}
	if !u.GetLast() {
		return nil, nil
	}
	return s.commit()
}

// begin opens an update, or checks that a chunk continues the one that is open.
func (s *Staging) begin(u *planv1.Update) error {
	if p := s.pending; p != nil {
		if u.GetStoreId() != p.storeID || u.GetRevision() != p.revision {
			return fmt.Errorf("broken sequence: a chunk of revision %d of store %q inside the update to revision %d of store %q",
				u.GetRevision(), u.GetStoreId(), p.revision, p.storeID)
		}
		return nil
	}
	if u.GetStoreId() == "" {
		return fmt.Errorf("the update names no store")
	}
	if u.GetStoreId() == s.storeID && u.GetRevision() < s.revision {
		return fmt.Errorf("revision %d is older than %d, which is held", u.GetRevision(), s.revision)
	}
	s.pending = &pending{storeID: u.GetStoreId(), revision: u.GetRevision()}
	if expected := min(u.GetResources(), mostExpected); expected > 1 {
		s.pending.upserts, s.pending.order = make(map[Key]*Resource, expected), make([]*Resource, 0, expected)
	}
	return nil
}

// mark notes a name in a set that is made when it is first needed: most updates are one changed resource, and a fleet takes many.
func mark[K comparable](set *map[K]bool, name K) {
	if *set == nil {
		*set = map[K]bool{}
	}
	(*set)[name] = true
}

// decode reads and checks what a message brings.
func (s *Staging) decode(list []*planv1.Resource) ([]*Resource, error) {
	decode := FromProto
	if s.Decode != nil {
		decode = s.Decode
	}
	resources, errs := make([]*Resource, len(list)), make([]error, len(list))
	s.Spread.each(len(list), func(i int) { resources[i], errs[i] = decode(list[i]) })
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return resources, nil
}

func (s *Staging) stage(r *Resource) error {
	if r.Kind == planv1.Kind_KIND_HOST && s.host != "" && r.UID != s.host {
		return fmt.Errorf("%s is another host", r.Key())
	}
	if s.pending.upserts == nil {
		s.pending.upserts = map[Key]*Resource{}
	}
	if s.pending.upserts[r.Key()] = r; len(s.pending.upserts) == len(s.pending.order) {
		return fmt.Errorf("%s is twice in one update", r.Key())
	}
	s.pending.order = append(s.pending.order, r)
	return nil
}

// commit checks the update as a whole against what is held, and only then changes the set.
func (s *Staging) commit() (*Step, error) {
	p := s.pending
	if err := s.checkScopes(); err != nil {
		return nil, err
	}
	gone := s.gone()
	if err := s.checkNetworks(gone); err != nil {
		return nil, err
	}
	if err := s.guard(gone); err != nil {
		return nil, err
	}
	step := &Step{StoreID: p.storeID, Revision: p.revision}
	for _, r := range gone {
		step.Removed = append(step.Removed, s.set.Remove(r.Key()))
	}
	if len(p.order) > 0 {
		step.Upserts = make([]*Resource, 0, len(p.order))
		s.set.expect(len(p.order))
	}
	for rank := range ranks {
		for _, r := range p.order {
			if rankOf(r.Kind) == rank && s.set.Put(r) {
				step.Upserts = append(step.Upserts, r)
			}
		}
	}
	slices.SortFunc(step.Removed, func(a, b *Resource) int {
		return cmp.Or(cmp.Compare(rankOf(b.Kind), rankOf(a.Kind)), cmp.Compare(a.UID, b.UID))
	})
	s.storeID, s.revision, s.pending = p.storeID, p.revision, nil
	return step, nil
}

// ranks is how many there are.
const ranks = 4

// rankOf orders kinds so that what is named comes before what names it.
func rankOf(k planv1.Kind) int {
	switch k {
	case planv1.Kind_KIND_VTEP:
		return 0
	case planv1.Kind_KIND_NETWORK:
		return 1
	case planv1.Kind_KIND_PORT:
		return 2
	default:
		return 3
	}
}

// checkScopes refuses what contradicts itself, and a change of store that leaves something of the old one standing.
func (s *Staging) checkScopes() error {
	p := s.pending
	for scope := range p.drop {
		if p.reset[scope] {
			return fmt.Errorf("scope %q is both sent whole and dropped", scope)
		}
	}
	for _, r := range p.order {
		if p.drop[r.Scope] {
			return fmt.Errorf("%s is in scope %q, which is dropped", r.Key(), r.Scope)
		}
	}
	if s.storeID != "" && p.storeID != s.storeID {
		for _, scope := range s.set.Scopes() {
			if !p.reset[scope] && !p.drop[scope] {
				return fmt.Errorf("the store changed from %q to %q and scope %q is not sent whole", s.storeID, p.storeID, scope)
			}
		}
	}
	return nil
}

// gone lists the resources held now that will not be held after the update.
func (s *Staging) gone() []*Resource {
	p := s.pending
	var gone []*Resource
	for _, scopes := range []map[string]bool{p.reset, p.drop} {
		for scope := range scopes {
			for r := range s.set.Scope(scope) {
				if p.upserts[r.Key()] == nil {
					gone = append(gone, r)
				}
			}
		}
	}
	for removal := range p.removals {
		r := s.set.Get(removal.Key)
		if r == nil || r.Scope != removal.Scope || p.upserts[removal.Key] != nil || p.reset[r.Scope] || p.drop[r.Scope] {
			continue
		}
		gone = append(gone, r)
	}
	return gone
}

// checkNetworks refuses a port without its network: nothing would say which tenant's segment it is in.
func (s *Staging) checkNetworks(gone []*Resource) error {
	var away map[Key]bool
	var lost map[string]bool
	for _, r := range gone {
		mark(&away, r.Key())
		if r.Kind == planv1.Kind_KIND_NETWORK {
			mark(&lost, r.Scope)
		}
	}
	found := "" // the scope that the one before was in: mostly that of the next
	for _, r := range s.pending.order {
		if r.Kind != planv1.Kind_KIND_PORT {
			continue
		}
		if r.Scope == found {
			continue
		}
		_, uid, _ := SplitScope(r.Scope)
		k := Key{planv1.Kind_KIND_NETWORK, uid}
		if s.pending.upserts[k] == nil && (s.set.Get(k) == nil || away[k]) {
			return fmt.Errorf("%s is in network %s, which is not in the plan", r.Key(), uid)
		}
		found = r.Scope
	}
	for _, scope := range slices.Sorted(maps.Keys(lost)) {
		for r := range s.set.Scope(scope) {
			if r.Kind == planv1.Kind_KIND_PORT && !away[r.Key()] && s.pending.upserts[r.Key()] == nil {
				return fmt.Errorf("%s would be left without its network", r.Key())
			}
		}
	}
	return nil
}

// guard refuses an update that takes away most of what is held without naming the revisions that did so: a wiped or
// wrong store must not empty a fleet.
func (s *Staging) guard(gone []*Resource) error {
	if s.AcceptLoss || len(gone) <= GuardResources || 2*len(gone) <= s.set.Len() {
		return nil
	}
	without := 0
	for _, r := range gone {
		p := s.pending
		if p.evidence[Removal{Scope: r.Scope, Key: r.Key()}] || p.drop[r.Scope] && p.evidence[Removal{Scope: r.Scope}] {
			continue
		}
		without++
	}
	if without > GuardResources && 2*without > s.set.Len() {
		return fmt.Errorf("it removes %d of %d resources and names no revision that deleted %d of them; if that is meant, start the agent once with --accept-loss", len(gone), s.set.Len(), without)
	}
	return nil
}
