package bench

import (
	"testing"
	"time"

	"github.com/weftnet/weft/internal/testenv"
)

// TestMeasuresThroughTheKernelsOverlay proves the method itself: every frame is counted, and a frame for nobody is an
// error, not a fast round. Turn the counter's length test off and the second half goes red.
func TestMeasuresThroughTheKernelsOverlay(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.BPF)
	c, err := newBridgeVXLAN("bridge + vxlan", "wefttest-bench-", true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	a, b := c.Workloads()
	ns, err := packetCost(a, b, traffic{Length: 60, Flows: 1000}, 50_000)
	if err != nil || ns <= 0 {
		t.Fatalf("packet cost %v: %v", ns, err)
	}
	t.Logf("%.0f ns a packet", ns)
	nobody := b
	nobody.MAC[5] ^= 0x80
	if _, err := packetCost(a, b, traffic{Length: 2000}, 1000); err == nil {
		t.Error("frames that do not fit were counted as delivered")
	}
	for _, wire := range []bool{true, false} {
		if err := c.SetWire(wire); err != nil {
			t.Fatal(err)
		}
		gbps, err := tcpStream(a, b, 200*time.Millisecond)
		if err != nil || gbps <= 0 {
			t.Fatalf("wire %v: %v Gb/s: %v", wire, gbps, err)
		}
		t.Logf("wire %v: %.1f Gb/s", wire, gbps)
	}
}
