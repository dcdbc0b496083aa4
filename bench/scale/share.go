package scale

import (
	"bytes"
	"sync"
	"weak"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/plan"
)

// shared keeps one copy of each resource, however many agents hold it, and its decoded place if it is a port. The first agent
// that gets a resource checks it as a real one does; the others compare its octets with that copy. So a simulated agent costs
// less than a real one, as a thousand real ones have a thousand machines. What nobody holds goes.
type shared struct {
	mu  sync.Mutex
	all map[[32]byte]weak.Pointer[held]
	// swept is how many the last sweep left.
	swept int
}

// held is one resource.
type held struct {
	plan.Resource
	// active is the host that the port is bound to, at an epoch.
	active string
	epoch  int64
}

func newShared() *shared { return &shared{all: map[[32]byte]weak.Pointer[held]{}} }

// decode is a Staging's Decode.
func (s *shared) decode(m *planv1.Resource) (*plan.Resource, error) {
	if m.GetKind() == planv1.Kind_KIND_HOST || len(m.GetSha256()) != 32 {
		return plan.FromProto(m) // held once
	}
	k := [32]byte(m.GetSha256())
	s.mu.Lock()
	h := s.all[k].Value()
	s.mu.Unlock()
	if h != nil && h.Scope == m.GetScope() && h.UID == m.GetUid() && h.Kind == m.GetKind() && bytes.Equal(h.Body, m.GetBody()) {
		return &h.Resource, nil
	}
	r, err := plan.FromProto(m)
	if err != nil {
		return nil, err
	}
	h = &held{}
	if p := r.Port(); p != nil {
		h.active, h.epoch = p.GetActive(), p.GetEpoch()
	}
	r.Forget() // before others read it
	h.Resource = *r
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[k] = weak.Make(h)
	if len(s.all) > 2*s.swept+1<<16 {
		s.sweep()
	}
	return &h.Resource, nil
}

func (s *shared) sweep() {
	for k, p := range s.all {
		if p.Value() == nil {
			delete(s.all, k)
		}
	}
	s.swept = len(s.all)
}

// place is where a port is, by a resource that decode gave.
func (s *shared) place(r *plan.Resource) (active string, epoch int64) {
	s.mu.Lock()
	h := s.all[r.Hash].Value()
	s.mu.Unlock()
	if h != nil {
		return h.active, h.epoch
	}
	p := r.Port()
	return p.GetActive(), p.GetEpoch()
}
