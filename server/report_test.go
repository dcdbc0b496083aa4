package server

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
)

// TestReportsFollow: what a report leaves out stands as the one before it on the stream said, whichever way the stream came, and a stream on which one
// follows nothing ends and says why. Break it: restore a report from what the host said on an earlier stream, or take one in without restoring it.
func TestReportsFollow(t *testing.T) {
	f := ownServer(t, Config{})
	h := f.join(t, "follow-h")
	ok(t, f.tenants.CreateTenant, &weftv1.CreateTenantRequest{Name: "follow"})
	ok(t, f.networks.CreateNetwork, &weftv1.CreateNetworkRequest{Tenant: "follow", Name: "blue"})
	uids, epochs := map[string]string{}, map[string]int64{}
	for _, name := range []string{"p", "q"} {
		p := ok(t, f.ports.CreatePort, &weftv1.CreatePortRequest{Tenant: "follow", Name: name, Spec: &weftv1.PortSpec{Network: "blue"}})
		uids[name], epochs[name] = p.Meta.Uid, ok(t, f.ports.BindPort, &weftv1.BindPortRequest{Tenant: "follow", Name: name, Host: h.name}).Status.Binding.Epoch
	}
	port := func(name string, counted uint64, message string) *planv1.PortReport {
		return &planv1.PortReport{Uid: uids[name], Epoch: epochs[name], State: planv1.PortState_PORT_STATE_HELD, Message: message, IngressPackets: counted}
	}
	is := func(name string, counted uint64, message string) {
		t.Helper()
		eventually(t, fmt.Sprintf("%s is %q with %d packets", name, message, counted), func() bool {
			s := ok(t, f.ports.GetPort, &weftv1.GetPortRequest{Tenant: "follow", Name: name}).Status
			return s.Message == message && s.Counters.IngressPackets == counted
		})
	}
	say := func(ports ...*planv1.PortReport) *planv1.Report {
		if len(ports) == 2 && ports[0].Uid > ports[1].Uid {
			ports[0], ports[1] = ports[1], ports[0]
		}
		return &planv1.Report{Ports: ports, Programs: []string{"from_port on weftp1"}}
	}
	round := func(n uint64) {
		t.Helper()
		h.report(say(port("p", n, "first"), port("q", n, "first")))
		is("p", n, "first")
		is("q", n, "first")
		h.report(say(port("p", n+1, "first"), port("q", n+2, "first")))
		is("p", n+1, "first")
		is("q", n+2, "first")
		h.report(say(port("p", n+3, "changed"), port("q", n+4, "first")))
		is("p", n+3, "changed")
		is("q", n+4, "first")
		h.report(say(port("p", n+5, "changed")))
		is("p", n+5, "changed")
		is("q", 0, "")
		if got := ok(t, f.hosts.GetHost, &weftv1.GetHostRequest{Name: h.name}).Status.Programs; len(got) != 1 {
			t.Errorf("programs: %q", got)
		}
	}
	open := func() {
		t.Helper()
		h.open(facts("192.0.2.61", 1500))
		eventually(t, "the server says that reports may follow each other", h.following)
	}
	open()
	round(10)
	h.hangUp()
	h.plain = func() (agentStream, error) { return f.plain(t, h.id) }
	open()
	round(20)
	h.hangUp()
	h.old = true // it knows nothing of that
	h.open(facts("192.0.2.61", 1500))
	round(30)
	h.say(&planv1.AgentMessage{Message: &planv1.AgentMessage_Report{Report: &planv1.Report{Follows: true, Counts: []uint64{40, 0, 0, 0}}}})
	is("p", 40, "changed")
	h.hangUp()
	h.open(facts("192.0.2.61", 1500))
	h.say(&planv1.AgentMessage{Message: &planv1.AgentMessage_Report{Report: &planv1.Report{Follows: true, Counts: []uint64{50, 0, 0, 0}}}})
	if err := h.end(); !strings.Contains(err.Error(), "none on this stream") {
		t.Errorf("the stream ended with: %v", err)
	}
}

// TestReportsDoNotAddUp: what a server keeps of a host's reports, however many of them there are, is no more than one message may be. Break it: leave the
// limit out of restore.
func TestReportsDoNotAddUp(t *testing.T) {
	f := ownServer(t, Config{})
	h := f.join(t, "adds-h")
	h.open(facts("192.0.2.62", 1500))
	eventually(t, "the server says that reports may follow each other", h.following)
	var r planv1.Report
	for uid := range 3 { // of 6 MiB
		r.Ports = append(r.Ports, &planv1.PortReport{Uid: fmt.Sprint(uid), Message: strings.Repeat("x", 6<<20)})
		h.report(proto.Clone(&r).(*planv1.Report))
	}
	if err := h.end(); !strings.Contains(err.Error(), "at most 16777216 are kept of a host") {
		t.Errorf("the stream ended with: %v", err)
	}
}
