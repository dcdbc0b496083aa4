package server

import (
	"net/netip"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/model"
)

func hostSpecIn(s *weftv1.HostSpec) model.HostSpec {
	return model.HostSpec{Description: s.GetDescription()}
}

func hostOut(h *model.Host, status *weftv1.HostStatus) *weftv1.Host {
	return &weftv1.Host{
		Name: h.Name, Meta: metaOut(h.Meta),
		Spec:   &weftv1.HostSpec{Description: h.Spec.Description},
		Status: status,
	}
}

// factsIn reads what an agent says of its host. Version and features come with the hello that opened the stream.
func factsIn(host model.UID, f *planv1.Facts, version string, features []string) (model.HostFacts, error) {
	out := model.HostFacts{
		Host: host, UplinkMTU: int(f.GetUplinkMtu()), Uplink: f.GetUplink(), Kernel: f.GetKernel(),
		Version: version, Features: features,
	}
	if f.GetUdpPort() == 0 || f.GetUdpPort() > 65535 {
		return out, model.Errorf(model.Invalid, "facts.udp_port", "use 1..65535", "%d is not a UDP port", f.GetUdpPort())
	}
	out.UDPPort = uint16(f.GetUdpPort())
	for i, text := range f.GetVtepAddresses() {
		a, err := netip.ParseAddr(text)
		if err != nil || !a.IsValid() || a.Zone() != "" || a.IsMulticast() || a.IsUnspecified() {
			return out, model.Errorf(model.Invalid, item("facts.vtep_addresses", i), "use a unicast address of the uplink",
				"%q cannot be a VTEP address", text)
		}
		out.VTEPAddresses = append(out.VTEPAddresses, a.Unmap())
	}
	return out, nil
}
