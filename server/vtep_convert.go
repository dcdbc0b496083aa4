package server

import (
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/model"
)

func vtepSpecIn(s *weftv1.VTEPSpec) (model.VTEPSpec, error) {
	out := model.VTEPSpec{OuterChecksum: s.GetOuterChecksum(), Description: s.GetDescription()}
	port, bad := model.ParseUDPPort("spec.udp_port", s.GetUdpPort())
	if bad != nil {
		return out, bad
	}
	addr, bad := model.ParseAddr("spec.address", s.GetAddress())
	if bad != nil {
		return out, bad
	}
	out.UDPPort, out.Address = port, addr
	return out, nil
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
