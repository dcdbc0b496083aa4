package server

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestProfilesAreForRoot turns red when the check of the caller is taken out of profiles: they show what is in memory.
func TestProfilesAreForRoot(t *testing.T) {
	a := &api{}
	g := &guard{api: a}
	h := g.withConnection(profiles())
	for _, c := range []struct {
		name string
		who  connection
		want int
	}{
		{"root on the socket", connection{local: true}, http.StatusOK},
		{"another user on the socket", connection{local: true, uid: 1000}, http.StatusNotFound},
		{"the network", connection{}, http.StatusNotFound},
	} {
		req := httptest.NewRequest(http.MethodGet, profilePath+"heap?debug=1", nil)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req.WithContext(context.WithValue(req.Context(), connectionKey{}, c.who)))
		if w.Code != c.want {
			t.Errorf("%s gets %d, want %d", c.name, w.Code, c.want)
		}
	}
}
