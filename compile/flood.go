package compile

import (
	"net/netip"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/plan"
)

// flood fills in the groups of a network, and returns the features that they require of an agent.
func flood(f model.FloodAlloc, m *planv1.Network) []string {
	if f.Sends.IsValid() {
		m.Group = f.Sends.AsSlice()
	}
	for _, g := range f.Joined {
		m.JoinedGroups = append(m.JoinedGroups, g.AsSlice())
	}
	if len(m.JoinedGroups) == 0 {
		return nil
	}
	return []string{plan.FeatureMulticast}
}

// receivesGroup reports whether an external VTEP gets floods by the group.
func receivesGroup(part model.NetworkVTEP, v *model.VTEP, group netip.Addr) bool {
	return part.Flood == model.VTEPFloodGroup && v.Spec.Address.Unmap().Is4() == group.Is4()
}
