package agent

import (
	"sync"
	"testing"
	"time"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
)

// TestEndWhileAttaching turns red when a request that is under way when the agent ends waits for a loop that is gone.
func TestEndWhileAttaching(t *testing.T) {
	r := newRig(t)
	r.base()
	r.links.add("tap0", "tuntap")
	r.server.mu.Lock()
	r.server.silent = true // bound, and the plan never comes
	r.server.mu.Unlock()
	var requests sync.WaitGroup
	ended := make(chan error, 1)
	requests.Go(func() {
		_, err := r.agent.attach(t.Context(), &localv1.AttachRequest{Tenant: "acme", Port: "web1",
			Interface: &localv1.AttachRequest_Tap{Tap: "tap0"}})
		ended <- err
	})
	r.until("the request waits", func() bool { return len(r.agent.waiting) > 0 })
	r.stop()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("attached by an agent that ended")
		}
	case <-time.After(bindPatience / 2):
		t.Fatal("the request waits for a loop that is gone")
	}
	requests.Wait()
}
