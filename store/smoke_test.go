package store

import "testing"

func TestSmoke(t *testing.T) {
	s := open(t, embeddedEndpoint(t))
	must(t, s.CreateTenant(t.Context(), tenant("acme")))
	n := network("acme", "blue", 5001, "10.1.0.0/24")
	must(t, s.CreateNetwork(t.Context(), n))
	must(t, s.CreatePort(t.Context(), port("acme", "web1", "blue", 1, "10.1.0.2/24")))
	w, err := s.Load(t.Context())
	must(t, err)
	if len(w.Ports) != 1 || len(w.Networks) != 1 || len(w.Pools) != 1 {
		t.Fatalf("%+v", w)
	}
	refused(t, s.CreatePort(t.Context(), port("acme", "web2", "blue", 1, "10.1.0.3/24")), "taken", "spec.macs", "web1")
}
