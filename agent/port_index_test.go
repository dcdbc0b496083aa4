package agent

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// TestPortIndex compares an index with a map of sets, over ports that come, go, and are taken out of lists that they are not in. Break it: leave the
// port that fills a gap where it thinks it was, or do not look whether the port is there.
func TestPortIndex(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		x, want := newPortIndex(byVTEP), map[string]map[*port]bool{}
		ports, where := make([]*port, 8), map[*port]string{}
		for i := range ports {
			ports[i] = &port{uid: fmt.Sprint("p", i)}
		}
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			p := rapid.SampledFrom(ports).Draw(rt, "port")
			key := rapid.SampledFrom([]string{"v1", "v2", "v3"}).Draw(rt, "key")
			if rapid.Bool().Draw(rt, "goes") {
				x.remove(key, p)
				if where[p] == key {
					delete(want[key], p)
					delete(where, p)
				}
			} else if where[p] == "" {
				x.add(key, p)
				if want[key] == nil {
					want[key] = map[*port]bool{}
				}
				want[key][p], where[p] = true, key
			}
			for _, key := range []string{"v1", "v2", "v3"} {
				list := x.of[key]
				for _, p := range list {
					if !want[key][p] {
						rt.Fatalf("%s is in %s", p.uid, key)
					}
				}
				if _, there := x.of[key]; len(list) != len(want[key]) || there != (len(list) > 0) {
					rt.Fatalf("%s has %d ports, want %d", key, len(list), len(want[key]))
				}
			}
		}
	})
}
