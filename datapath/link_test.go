package datapath

import (
	"slices"
	"testing"
)

// TestFewPorts: of many ports' programs a few are named, of the host's all. Red when fewPorts counts the uplinks' as ports', or leaves one of
// them out because there are many ports.
func TestFewPorts(t *testing.T) {
	names := []string{"from_port_7", "from_port_8", "from_port_9", "from_uplink_2", "from_vxlan", "to_uplink_2", "xdp_from_port_7", "xdp_from_uplink_2"}
	few, more := fewPorts(names, 2)
	if want := []string{"from_port_7", "from_port_8", "from_uplink_2", "from_vxlan", "to_uplink_2", "xdp_from_uplink_2"}; !slices.Equal(few, want) || more != 2 {
		t.Errorf("%q and %d more, want %q and 2", few, more, want)
	}
	if few, more := fewPorts(names, 4); !slices.Equal(few, names) || more != 0 {
		t.Errorf("%q and %d more, want all", few, more)
	}
}
