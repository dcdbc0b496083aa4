package server

import (
	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/model"
)

func hostSpecIn(s *weftv1.HostSpec) (model.HostSpec, error) {
	out := model.HostSpec{Description: s.GetDescription(), OuterChecksum: s.GetOuterChecksum(), Migrates: s.GetMigrates()}
	switch s.GetWhenSilent() {
	case weftv1.WhenSilent_WHEN_SILENT_SHOW:
	case weftv1.WhenSilent_WHEN_SILENT_FAIL:
		out.WhenSilent = model.WhenSilentFail
	default:
		return out, model.Errorf(model.Invalid, "spec.when_silent", "use show or fail", "%d is not a known value", s.GetWhenSilent())
	}
	return out, nil
}

func hostOut(h *model.Host, status *weftv1.HostStatus) *weftv1.Host {
	spec := &weftv1.HostSpec{Description: h.Spec.Description, OuterChecksum: h.Spec.OuterChecksum, Migrates: h.Spec.Migrates}
	if h.Spec.WhenSilent == model.WhenSilentFail {
		spec.WhenSilent = weftv1.WhenSilent_WHEN_SILENT_FAIL
	}
	status.Duty, status.DutyMessage = dutiesOut[h.Duty], h.DutyMessage
	return &weftv1.Host{Name: h.Name, Meta: metaOut(h.Meta), Spec: spec, Status: status}
}

var dutiesOut = map[model.HostDuty]weftv1.HostDuty{
	model.DutyActive: weftv1.HostDuty_HOST_DUTY_ACTIVE, model.DutyDrained: weftv1.HostDuty_HOST_DUTY_DRAINED, model.DutyFailed: weftv1.HostDuty_HOST_DUTY_FAILED,
}

// factsIn reads what an agent says of its host. Version and features come with the hello that opened the stream.
func factsIn(host model.UID, f *planv1.Facts, version string, features []string) (model.HostFacts, error) {
	out := model.HostFacts{
		Host: host, UplinkMTU: int(f.GetUplinkMtu()), Uplink: f.GetUplink(), Kernel: f.GetKernel(),
		Version: version, Features: features,
	}
	port, bad := model.ParseUDPPort("udp_port", f.GetUdpPort())
	if bad != nil {
		return out, bad
	}
	out.UDPPort = port
	for i, text := range f.GetVtepAddresses() {
		a, bad := model.ParseAddr(item("vtep_addresses", i), text)
		if bad != nil {
			return out, bad
		}
		out.VTEPAddresses = append(out.VTEPAddresses, a)
	}
	return out, nil
}

func booksOut(in []*planv1.ProgramBooks) []*weftv1.ProgramBooks {
	var out []*weftv1.ProgramBooks
	for _, b := range in {
		out = append(out, &weftv1.ProgramBooks{
			Program: b.GetProgram(), In: b.GetIn(), Delivered: b.GetDelivered(), Encapsulated: b.GetEncapsulated(),
			Passed: b.GetPassed(), Dropped: b.GetDropped(), Copies: b.GetCopies(), Answers: b.GetAnswers(),
			Answered: b.GetAnswered(),
		})
	}
	return out
}

func lanesOut(in []*planv1.LaneCount) []*weftv1.LaneCount {
	var out []*weftv1.LaneCount
	for _, l := range in {
		out = append(out, &weftv1.LaneCount{Reason: l.GetReason(), Packets: l.GetPackets()})
	}
	return out
}

func capabilitiesOut(in []*planv1.Capability) []*weftv1.Capability {
	var out []*weftv1.Capability
	for _, c := range in {
		out = append(out, &weftv1.Capability{Name: c.GetName(), Interface: c.GetInterface(), Present: c.GetPresent(), Detail: c.GetDetail()})
	}
	return out
}
