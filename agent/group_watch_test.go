package agent

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weftnet/weft/plan"
	"github.com/weftnet/weft/wire"
)

var (
	watchedGroup = netip.MustParseAddr("239.1.1.1")
	senderMAC    = wire.MAC{0x02, 0x6f, 0x77, 1, 1, 0}
	otherMAC     = wire.MAC{0x02, 0x6f, 0x77, 2, 2, 0}
)

// TestGroupWatch: who has not been heard for four intervals is missed, and no one else; not after this process stood still, and no more when one probe
// comes. Probes are due once an interval. Red when hear or tick leaves the time alone, or tick takes a pause of its own for the others'.
func TestGroupWatch(t *testing.T) {
	w, now := newGroupWatch(), time.Unix(1_000_000, 0)
	groups := map[netip.Addr]map[wire.MAC]string{watchedGroup: {senderMAC: "a", otherMAC: "b"}}
	w.Set(groups, now)
	sent := 0
	pass := func(long time.Duration, heard ...wire.MAC) (changes int) {
		for end := now.Add(long); now.Before(end); {
			now = now.Add(groupTick)
			due, changed := w.tick(now)
			sent += len(due)
			if changed {
				changes++
			}
			for _, mac := range heard {
				w.hear(mac, watchedGroup, now)
			}
		}
		return changes
	}
	missed := func() (uids string) {
		for _, g := range w.Said(now) {
			for _, m := range g.GetMissed() {
				uids += m.GetVtep()
			}
		}
		return uids
	}
	const all = missedAfter * groupProbeEvery
	if pass(4*all, senderMAC, otherMAC) != 0 || missed() != "" {
		t.Errorf("missed while all come: %q", missed())
	}
	if least := int(4 * all / groupProbeEvery * 3 / 4); sent < least || sent > 2*least {
		t.Errorf("%d probes were due in %s", sent, 4*all)
	}
	if said := w.Said(now); said[0].GetSendingNanoseconds() < int64(4*all) || said[0].GetEveryNanoseconds() != int64(groupProbeEvery) {
		t.Errorf("said: %v", said)
	}
	pass(all-2*groupTick, otherMAC)
	if missed() != "" {
		t.Errorf("missed too soon: %q", missed())
	}
	if n := pass(3*groupTick, otherMAC); n != 1 || missed() != "a" {
		t.Errorf("missed: %q, and %d changes", missed(), n)
	}
	w.Set(groups, now) // the plan brings it again: nothing is forgotten
	w.hear(senderMAC, netip.MustParseAddr("239.1.1.2"), now)
	if missed() != "a" {
		t.Errorf("missed after a probe to another group: %q", missed())
	}
	if n := pass(groupTick, senderMAC, otherMAC) + pass(groupTick, senderMAC, otherMAC); n != 1 || missed() != "" {
		t.Errorf("missed though it is heard: %q, and %d changes", missed(), n)
	}
	now = now.Add(10 * all)
	if said := w.Said(now); missed() != "" || said[0].GetSendingNanoseconds() != 0 {
		t.Errorf("this process stood still and says: %v", said)
	}
	if pass(2*groupTick) != 0 || missed() != "" {
		t.Errorf("after a pause of its own it misses %q", missed())
	}
	w.Set(nil, now)
	if due, _ := w.tick(now.Add(time.Second)); len(due) > 0 || len(w.Said(now)) > 0 {
		t.Error("a group is watched that there is no more")
	}
}

// TestGroupWatchGrows: the more members, the more seldom each probes.
func TestGroupWatchGrows(t *testing.T) {
	w, senders := newGroupWatch(), map[wire.MAC]string{}
	for i := range 999 {
		senders[wire.MAC{0x02, 0x6f, 0x77, byte(i >> 8), byte(i), 0}] = "x"
	}
	w.Set(map[netip.Addr]map[wire.MAC]string{watchedGroup: senders}, time.Now())
	if every := time.Duration(w.Said(time.Now())[0].GetEveryNanoseconds()); every != 100*time.Second {
		t.Errorf("of 1000 members each probes every %s", every)
	}
}

// TestGroupsAreProbed: a group that floods are sent to is in the FDB of the OAM network as a MAC behind it, and probes are accepted by groups that are
// joined; both go with the network's group. The watch expects the other members. Red when indexGroups or groupsOf leaves the OAM network out.
func TestGroupsAreProbed(t *testing.T) {
	r := newRig(t)
	r.base()
	r.within(func() { r.agent.rec.SetOAM(77); r.agent.reconcile() })
	entry := "fdb 0 " + oamGroupMAC(watchedGroup).String()
	const accepted = "group 0 239.1.1.1"
	if have := r.tables(); strings.Contains(have, entry) || strings.Contains(have, accepted) {
		t.Fatalf("before there is a group:\n%s", have)
	}
	n := networkOf()
	n.Group, n.JoinedGroups = watchedGroup.AsSlice(), [][]byte{watchedGroup.AsSlice()}
	r.take(plan.NewNetwork(1, n, plan.FeatureMulticast))
	r.within(func() {
		for g, members := range r.agent.rec.groupMembers() {
			if g != watchedGroup || len(members) == 0 || members[r.agent.ownVTEP()] {
				t.Errorf("expected to send to %s: %v", g, members)
			}
		}
		if len(r.agent.rec.groupMembers()) != 1 {
			t.Errorf("expected: %v", r.agent.rec.groupMembers())
		}
	})
	if have := r.tables(); !strings.Contains(have, entry) || !strings.Contains(have, accepted) {
		t.Errorf("%q and %q are not in the tables:\n%s", entry, accepted, have)
	}
	r.take(plan.NewNetwork(1, networkOf()))
	if have := r.tables(); strings.Contains(have, entry) || strings.Contains(have, accepted) {
		t.Errorf("after the group has gone:\n%s", have)
	}
}

// TestMissedAreTheSame: of more senders than a report holds it names the same ones each time. Red when Said cuts before it sorts.
func TestMissedAreTheSame(t *testing.T) {
	w, now := newGroupWatch(), time.Unix(1_000_000, 0)
	groups := map[netip.Addr]map[wire.MAC]string{}
	for g := range 2 {
		senders := map[wire.MAC]string{}
		for i := range 80 {
			senders[wire.MAC{2, 0, 0, 0, byte(g), byte(i)}] = fmt.Sprintf("h%02d", i)
		}
		groups[netip.AddrFrom4([4]byte{239, 1, 1, byte(g)})] = senders
	}
	w.Set(groups, now)
	for range 60 {
		now = now.Add(groupTick)
		w.tick(now)
	}
	named := func() (all []string) {
		for _, g := range w.Said(now) {
			for _, m := range g.GetMissed() {
				all = append(all, fmt.Sprint(g.GetGroup(), m.GetVtep()))
			}
		}
		return all
	}
	first := named()
	if len(first) != mostMissed {
		t.Fatalf("%d are named, want %d", len(first), mostMissed)
	}
	for range 10 {
		if again := named(); !slices.Equal(again, first) {
			t.Fatalf("%v, and before %v", again, first)
		}
	}
}
