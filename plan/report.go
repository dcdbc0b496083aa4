package plan

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
)

// PortCounts is what a port counted, seen from its workload: ingress is what came to it. Octets are those of whole frames.
type PortCounts struct {
	IngressPackets, IngressOctets, EgressPackets, EgressOctets uint64
}

// countsOfPort is how many of Report.counts are one port's.
const countsOfPort = 4

// errFollowsNone ends a stream on which something follows what was never said.
var errFollowsNone = errors.New("a report follows another, and there was none on this stream")

// Shorten is the report now as it goes on a stream whose other side has the one before: of ports that are what they were only the counters are
// said, and programs and capabilities that are what they were not at all. Without one before, or where it cannot be said so, it is the whole.
// Neither of them is changed, and what is returned shares what is in them.
func Shorten(before, now *planv1.Report) *planv1.Report {
	if before == nil || !ascend(before.GetPorts()) || !ascend(now.GetPorts()) ||
		len(before.GetPrograms()) > 0 && len(now.GetPrograms()) == 0 || len(before.GetCapabilities()) > 0 && len(now.GetCapabilities()) == 0 {
		return now
	}
	short := &planv1.Report{
		Follows: true, Counts: countsOf(now.GetPorts()), Conditions: now.GetConditions(), Drops: now.GetDrops(), Books: now.GetBooks(), Lanes: now.GetLanes(),
		Silent: now.GetSilent(), Learned: now.GetLearned(), Floods: now.GetFloods(), ProbedGroups: now.GetProbedGroups(),
	}
	if !slices.Equal(before.GetPrograms(), now.GetPrograms()) {
		short.Programs = now.GetPrograms()
	}
	if !slices.EqualFunc(before.GetCapabilities(), now.GetCapabilities(), sameCapability) {
		short.Capabilities = now.GetCapabilities()
	}
	was := before.GetPorts()
	for _, p := range now.GetPorts() {
		for len(was) > 0 && was[0].GetUid() < p.GetUid() {
			short.Gone = append(short.Gone, was[0].GetUid())
			was = was[1:]
		}
		if len(was) > 0 && was[0].GetUid() == p.GetUid() {
			same := sameButCounts(was[0], p)
			if was = was[1:]; same {
				continue
			}
		}
		short.Ports = append(short.Ports, p)
	}
	for _, p := range was {
		short.Gone = append(short.Gone, p.GetUid())
	}
	return short
}

// Restore makes a report whole that follows the one before, which was restored itself: ports ascend, and what they counted stands in counts and nowhere
// else. It takes now over, and shares what is in before, which it does not change.
func Restore(before, now *planv1.Report) (*planv1.Report, error) {
	if !ascend(now.GetPorts()) { // of an agent that has no order
		slices.SortStableFunc(now.Ports, byUID)
		now.Ports = slices.CompactFunc(now.Ports, func(a, b *planv1.PortReport) bool { return a.GetUid() == b.GetUid() })
	}
	added := now.GetPorts()
	if now.GetFollows() {
		if before == nil {
			return nil, errFollowsNone
		}
		now.Ports = merge(before.GetPorts(), now.GetGone(), now.GetPorts())
		if len(now.GetPrograms()) == 0 {
			now.Programs = before.GetPrograms()
		}
		if len(now.GetCapabilities()) == 0 {
			now.Capabilities = before.GetCapabilities()
		}
		now.Follows, now.Gone = false, nil
	} else if len(now.GetCounts()) == 0 {
		now.Counts = countsOf(now.GetPorts())
	}
	for _, p := range added {
		p.IngressPackets, p.IngressOctets, p.EgressPackets, p.EgressOctets = 0, 0, 0, 0
	}
	if have, want := len(now.GetCounts()), countsOfPort*len(now.GetPorts()); have != want {
		return nil, fmt.Errorf("a report has %d counters, and its %d ports need %d", have, len(now.GetPorts()), want)
	}
	return now, nil
}

// merge is before without those that are gone, and with those that are new or changed. It is before itself where nothing is.
func merge(before []*planv1.PortReport, gone []string, changed []*planv1.PortReport) []*planv1.PortReport {
	if len(gone) == 0 && len(changed) == 0 {
		return before
	}
	left := make(map[string]bool, len(gone))
	for _, uid := range gone {
		left[uid] = true
	}
	out := make([]*planv1.PortReport, 0, len(before)+len(changed))
	for _, p := range before {
		for len(changed) > 0 && changed[0].GetUid() < p.GetUid() {
			out, changed = append(out, changed[0]), changed[1:]
		}
		switch {
		case len(changed) > 0 && changed[0].GetUid() == p.GetUid():
			out, changed = append(out, changed[0]), changed[1:]
		case !left[p.GetUid()]:
			out = append(out, p)
		}
	}
	return append(out, changed...)
}

// PortIn is what a restored report says of a port, and what that counted; nil where it says nothing.
func PortIn(rep *planv1.Report, uid string) (*planv1.PortReport, PortCounts) {
	i, ok := slices.BinarySearchFunc(rep.GetPorts(), uid, func(p *planv1.PortReport, uid string) int { return strings.Compare(p.GetUid(), uid) })
	if !ok {
		return nil, PortCounts{}
	}
	c := rep.GetCounts()[countsOfPort*i:]
	return rep.GetPorts()[i], PortCounts{IngressPackets: c[0], IngressOctets: c[1], EgressPackets: c[2], EgressOctets: c[3]}
}

func byUID(a, b *planv1.PortReport) int { return strings.Compare(a.GetUid(), b.GetUid()) }

// ascend reports whether the uids do, each once.
func ascend(ports []*planv1.PortReport) bool {
	for i := 1; i < len(ports); i++ {
		if ports[i-1].GetUid() >= ports[i].GetUid() {
			return false
		}
	}
	return true
}

func countsOf(ports []*planv1.PortReport) []uint64 {
	if len(ports) == 0 {
		return nil
	}
	counts := make([]uint64, 0, countsOfPort*len(ports))
	for _, p := range ports {
		counts = append(counts, p.GetIngressPackets(), p.GetIngressOctets(), p.GetEgressPackets(), p.GetEgressOctets())
	}
	return counts
}

// sameButCounts compares what reports say of one port, but for what it counted. It is done for every port of every report, and proto.Equal goes by reflection.
func sameButCounts(a, b *planv1.PortReport) bool {
	return a.GetEpoch() == b.GetEpoch() && a.GetState() == b.GetState() && a.GetMessage() == b.GetMessage() && a.GetInterface() == b.GetInterface() &&
		a.GetFastPath() == b.GetFastPath() && a.GetFastPathMessage() == b.GetFastPathMessage() && a.GetPrepared() == b.GetPrepared() &&
		sameServices(a.GetServices(), b.GetServices()) && slices.EqualFunc(a.GetDrops(), b.GetDrops(), sameDrop)
}

func sameServices(a, b *planv1.ServiceCounts) bool {
	return (a == nil) == (b == nil) && a.GetRequests() == b.GetRequests() && a.GetAnswers() == b.GetAnswers() &&
		a.GetRefused() == b.GetRefused() && a.GetAdvertisements() == b.GetAdvertisements()
}

func sameDrop(a, b *planv1.Drop) bool {
	return a.GetReason() == b.GetReason() && a.GetPackets() == b.GetPackets() && a.GetSource() == b.GetSource()
}

func sameCapability(a, b *planv1.Capability) bool {
	return a.GetName() == b.GetName() && a.GetInterface() == b.GetInterface() && a.GetPresent() == b.GetPresent() && a.GetDetail() == b.GetDetail()
}
