package distribute

import (
	"maps"
	"slices"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/plan"
)

// subscriptions are who must hold what, by the host resources. The lists are sorted, share their strings and are never
// modified: with 1,000 hosts that all hold 1,000 VTEPs they are what takes the memory.
type subscriptions struct {
	scopes map[string][]string            // by host
	hosts  map[string]map[string]struct{} // by scope, of networks only: nearly every host holds every VTEP
	names  map[string]string              // one copy of each scope's name
	swept  int                            // how many names the last sweep left
}

func newSubscriptions() subscriptions {
	return subscriptions{scopes: map[string][]string{}, hosts: map[string]map[string]struct{}{}, names: map[string]string{}}
}

func (s *subscriptions) put(host string, scopes []string) {
	s.remove(host)
	for i, scope := range scopes {
		if one, ok := s.names[scope]; ok {
			scopes[i] = one
		} else {
			s.names[scope] = scope
		}
		if kind, _, _ := plan.SplitScope(scope); kind == planv1.Kind_KIND_NETWORK {
			if s.hosts[scope] == nil {
				s.hosts[scope] = map[string]struct{}{}
			}
			s.hosts[scope][host] = struct{}{}
		}
	}
	slices.Sort(scopes)
	s.scopes[host] = slices.Clip(slices.Compact(scopes))
	// Names that nobody holds any longer go with the next sweep.
	if len(s.names) > 2*s.swept+1024 {
		s.sweep()
	}
}

func (s *subscriptions) sweep() {
	clear(s.names)
	for _, scopes := range s.scopes {
		for _, scope := range scopes {
			s.names[scope] = scope
		}
	}
	s.swept = len(s.names)
}

func (s *subscriptions) remove(host string) {
	for _, scope := range s.scopes[host] {
		if hosts := s.hosts[scope]; hosts != nil {
			delete(hosts, host)
			if len(hosts) == 0 {
				delete(s.hosts, scope)
			}
		}
	}
	delete(s.scopes, host)
}

// resolve adds to hosts those that hold one of the scopes, where the scope knows them, and takes it from the scopes.
func (s *subscriptions) resolve(scopes, hosts map[string]struct{}) {
	for scope := range scopes {
		if kind, _, _ := plan.SplitScope(scope); kind == planv1.Kind_KIND_NETWORK {
			maps.Copy(hosts, s.hosts[scope])
			delete(scopes, scope)
		}
	}
}

// any reports whether a host holds one of the scopes.
func (s *subscriptions) any(host string, scopes map[string]struct{}) bool {
	list := s.scopes[host]
	for scope := range scopes {
		if holds(list, scope) {
			return true
		}
	}
	return false
}

func (s *subscriptions) hostsOf(scope string) []string {
	if kind, _, _ := plan.SplitScope(scope); kind == planv1.Kind_KIND_NETWORK {
		return slices.Sorted(maps.Keys(s.hosts[scope]))
	}
	var out []string
	for host, scopes := range s.scopes {
		if holds(scopes, scope) {
			out = append(out, host)
		}
	}
	slices.Sort(out)
	return out
}

func holds(sorted []string, scope string) bool {
	_, found := slices.BinarySearch(sorted, scope)
	return found
}
