package server

import (
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/model"
)

func vtepSpecIn(s *weftv1.VTEPSpec) (model.VTEPSpec, error) {
	out := model.VTEPSpec{OuterChecksum: s.GetOuterChecksum(), Description: s.GetDescription()}
	if s.GetUdpPort() > 65535 {
		return out, model.Errorf(model.Invalid, "spec.udp_port", "use 1..65535, or leave it out for 4789",
			"%d is not a UDP port", s.GetUdpPort())
	}
	out.UDPPort = uint16(s.GetUdpPort())
	a, err := addrIn("spec.address", s.GetAddress())
	out.Address = a
	return out, err
}

func vtepOut(v *model.VTEP, status *weftv1.VTEPStatus) *weftv1.VTEP {
	spec := &weftv1.VTEPSpec{
		UdpPort: uint32(v.Spec.UDPPort), OuterChecksum: v.Spec.OuterChecksum, Description: v.Spec.Description,
	}
	if v.Spec.Address.IsValid() {
		spec.Address = v.Spec.Address.String()
	}
	return &weftv1.VTEP{Name: v.Name, Meta: metaOut(v.Meta), Spec: spec, Status: status}
}
