package server

import (
	"testing"
	"testing/synctest"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/model"
)

// TestWaitSurvivesReload: a store that is loaded anew as it was before a write does not answer for the write; a store that
// took its place does. Break it: let wait return at every load.
func TestWaitSurvivesReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newView()
		take := func(store string, rev model.Revision) {
			w := model.NewWorld(store)
			w.Revision = rev
			v.load(w)
			v.publish()
			synctest.Wait()
		}
		wait := func(rev model.Revision) chan error {
			done := make(chan error, 1)
			go func() { done <- v.wait(t.Context(), rev) }()
			synctest.Wait()
			return done
		}
		take("s1", 10)
		done := wait(20)
		take("s1", 15)
		if len(done) > 0 {
			t.Fatal("revision 15 answered for 20")
		}
		v.apply(20, nil)
		v.publish()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		done = wait(100)
		take("s2", 30)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

// TestFailedNetwork: a list of errors that the agent cut may hide that a network is held still. Break it: look for networks
// alone.
func TestFailedNetwork(t *testing.T) {
	for kind, want := range map[planv1.Kind]bool{
		planv1.Kind_KIND_NETWORK: true, planv1.Kind_KIND_HOST: true, planv1.Kind_KIND_PORT: false, planv1.Kind_KIND_VTEP: false,
	} {
		if got := failedNetwork(&planv1.Applied{Errors: []*planv1.ResourceError{{Kind: kind}}}); got != want {
			t.Errorf("%s: %v", kind, got)
		}
	}
}
