package server

import (
	"net/http"
	"net/http/pprof"
)

// profilePath is where Go's own profiles are: `curl --unix-socket /run/weft/server.sock http://weft/debug/pprof/heap?debug=1`.
const profilePath = "/debug/pprof/"

// profiles serves them to root on this machine, and to nobody else: they tell what is in memory.
func profiles() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc(profilePath, pprof.Index)
	mux.HandleFunc(profilePath+"profile", pprof.Profile)
	mux.HandleFunc(profilePath+"trace", pprof.Trace)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c := connectionOf(r.Context()); !c.local || c.uid != 0 {
			http.NotFound(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}
