package agent

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/weftnet/weft/datapath/netdev"
)

// A port whose plan says so is put in the XDP lane, if its interface is a veth whose other end is fit for it (netdev.FeaturesForXDP). The
// agent makes it so once, in the workload's namespace, and writes down what it changed. From then on it only looks: a workload
// may change its own interface, and its port is then in the tc lane until that is as it must be. Looking is at once where the kernel tells
// of a change, and else in turns: so many ports every two seconds.

// fastPath is what is known of a port that is to be in the XDP lane.
type fastPath struct {
	// ifindex that was looked at.
	ifindex uint32
	// why it cannot be in the XDP lane, and what to do; empty: it can.
	why string
	// refused: the kernel would not attach the program. Only an audit tries again.
	refused bool
}

// fitted is what was done to the workload's end.
type fitted struct {
	// Ifindex of the interface on the host.
	Ifindex uint32 `json:"ifindex"`
	// Was has the features that were changed, as they were.
	Was map[netdev.Feature]bool `json:"was"`
}

// wantsFast reports whether the plan has the port here, or coming here, and in the XDP lane.
func (a *Agent) wantsFast(uid string) bool {
	p := a.rec.view.ports[uid]
	return p != nil && p.fastPath && (p.place.active == a.rec.self || p.place.comes(a.rec.self))
}

// inFastPath reports whether the port is in the XDP lane.
func (a *Agent) inFastPath(uid string) bool {
	l := a.rec.locals[uid]
	return l != nil && l.ifindex != 0 && a.rec.tables.ports[l.ifindex].UID == uid && a.rec.tables.ports[l.ifindex].FastPath
}

// xdpChanged follows an event of what an interface can do with XDP: one port's, or an uplink's; 0 is any, of which the ports have their turns.
func (a *Agent) xdpChanged(index int) {
	if a.swept && index != 0 {
		// Of a port that was not made fit there is nothing to see, and making it fit must not follow its own events.
		uid := a.rec.tables.ports[uint32(index)].UID
		if at, attached := a.atts.byUID[uid]; attached {
			if at.Fitted != nil && a.look(uid, at) {
				a.reconcile()
			}
			return
		}
	}
	if index == 0 || slices.Contains(a.uplink.indexes, index) {
		a.checkXDP()
	}
}

// checkXDP looks at the uplinks.
func (a *Agent) checkXDP() {
	if err := a.kernel.CheckXDP(); err != nil {
		a.log.Error("what the uplinks can do for the XDP lane cannot be written", "err", err)
	}
	a.probe()
}

// probe asks what kernel and uplinks can do, and says what is new of it.
func (a *Agent) probe() {
	had := a.can
	a.can = a.kernel.Capabilities()
	for _, c := range a.can {
		if !slices.Contains(had, c) {
			a.log.Info("a capability", "name", c.Name, "interface", c.Interface, "present", c.Present, "detail", c.Detail)
			later(&a.reportAt, reportDelay)
		}
	}
}

// checkFastPaths looks at the interfaces of ports that are new to the XDP lane, and forgets those that are not to be there any more. Nothing is
// written to the kernel's tables before the next Flush.
func (a *Agent) checkFastPaths() {
	for uid := range a.rec.fast {
		if _, attached := a.atts.byUID[uid]; !attached || !a.wantsFast(uid) {
			if a.rec.SetFast(uid, fastPath{}) {
				later(&a.reportAt, reportDelay)
			}
		}
	}
	for uid, at := range a.atts.byUID {
		if l := a.rec.locals[uid]; l != nil && a.rec.fast[uid].ifindex != l.ifindex {
			a.look(uid, at)
		}
	}
}

// looksATurn bounds what a turn takes: a look is half a millisecond in another namespace, in which the loop does nothing else.
const looksATurn = 200

// lookAround looks again at ports that are to be in the XDP lane, all in their turns.
func (a *Agent) lookAround() {
	for _, uid := range a.nextLooks() {
		if at, attached := a.atts.byUID[uid]; attached {
			a.look(uid, at)
		}
	}
}

// nextLooks are the ports of the next turn.
func (a *Agent) nextLooks() (turn []string) {
	if len(a.looks) == 0 {
		a.looks = slices.Collect(maps.Keys(a.rec.fast))
	}
	n := min(len(a.looks), looksATurn)
	turn, a.looks = a.looks[:n], a.looks[n:]
	return turn
}

// look looks at one port's interface, if the port is to be in the XDP lane, and reports a change.
func (a *Agent) look(uid string, at attachment) bool {
	l, have := a.rec.locals[uid], a.rec.fast[uid]
	if !a.wantsFast(uid) || l == nil || l.ifindex == 0 || have.refused && have.ifindex == l.ifindex {
		return false
	}
	changed := a.rec.SetFast(uid, fastPath{ifindex: l.ifindex, why: a.fit(at, l)})
	if changed {
		later(&a.reportAt, reportDelay)
	}
	return changed
}

// forgiveFastPaths has the kernel asked again where it refused a program.
func (a *Agent) forgiveFastPaths() {
	for uid, f := range a.rec.fast {
		if f.refused {
			a.rec.SetFast(uid, fastPath{})
		}
	}
}

// leaveFastPath is the way out of every condition about it.
const leaveFastPath = "or set its fast path to none"

// fit makes the workload's end fit for the XDP lane, the first time, and says why it is not.
func (a *Agent) fit(at attachment, l *local) (why string) {
	if at.Kind == kindTAP {
		return "the guest behind a TAP device may leave checksums to the host, which XDP does not fill in: set its fast path to none"
	}
	have, err := a.links.PeerFeatures(at.Interface, at.Netns)
	switch {
	case errors.Is(err, netdev.ErrNoPeer):
		return fmt.Sprintf("interface %s: %v: use such a one, %s", at.Interface, netdev.ErrNoPeer, leaveFastPath)
	case err != nil:
		return fmt.Sprintf("the workload's end cannot be looked at: %v: give its network namespace a name, %s", err, leaveFastPath)
	}
	if at.Fitted == nil || at.Fitted.Ifindex != l.ifindex {
		if have, err = a.fitOnce(at, l.ifindex, have); err != nil {
			return fmt.Sprintf("the workload's end cannot be made fit: %v: %s there, %s", err, ethtool(unfitFeatures(have)), leaveFastPath)
		}
	}
	if wrong := unfitFeatures(have); len(wrong) > 0 {
		return fmt.Sprintf("the workload changed its interface: %s there, %s", ethtool(wrong), leaveFastPath)
	}
	can, err := a.links.XDPFeatures(int(l.ifindex))
	if must := netdev.XDPBasic | netdev.XDPRedirect | netdev.XDPTransmit | netdev.XDPTransmitFragments; err == nil && !can.Has(must) {
		err = fmt.Errorf("its driver can do %s, and needs %s", can, must)
	}
	if err != nil {
		return fmt.Sprintf("interface %s: %v: use another, %s", at.Interface, err, leaveFastPath)
	}
	return ""
}

// fitOnce writes down what the features are, and changes them. It returns what they are then.
func (a *Agent) fitOnce(at attachment, ifindex uint32, have map[netdev.Feature]bool) (map[netdev.Feature]bool, error) {
	want := netdev.FeaturesForXDP()
	was := maps.Clone(have)
	maps.DeleteFunc(was, func(f netdev.Feature, on bool) bool { return want[f] == on })
	maps.DeleteFunc(want, func(f netdev.Feature, on bool) bool { return have[f] == on })
	at.Fitted = &fitted{Ifindex: ifindex, Was: was}
	if err := a.atts.put(at); err != nil {
		return have, err
	}
	err := a.links.SetPeerFeatures(at.Interface, at.Netns, want)
	if err == nil {
		return a.links.PeerFeatures(at.Interface, at.Netns)
	}
	// All or nothing; the next look tries again.
	err = errors.Join(err, a.links.SetPeerFeatures(at.Interface, at.Netns, was))
	at.Fitted = nil
	return have, errors.Join(err, a.atts.put(at))
}

// unfitFeatures are those that are not as the XDP lane needs them, with what they must be.
func unfitFeatures(have map[netdev.Feature]bool) map[netdev.Feature]bool {
	wrong := netdev.FeaturesForXDP()
	maps.DeleteFunc(wrong, func(f netdev.Feature, on bool) bool { return have[f] == on })
	return wrong
}

// ethtool is the command that sets features.
func ethtool(want map[netdev.Feature]bool) string {
	words := []string{"`ethtool -K IFNAME"}
	for _, f := range slices.Sorted(maps.Keys(want)) {
		words = append(words, string(f), map[bool]string{true: "on", false: "off"}[want[f]])
	}
	return strings.Join(words, " ") + "`"
}

// unfitAll puts back what was changed at the other ends of interfaces that are out of the XDP lane for good, and says what keeps ports
// out of it that should be there.
func (a *Agent) unfitAll() {
	for _, at := range a.unfit {
		if at.Kind != kindVeth { // those made here are gone
			a.restore(at)
		}
	}
	a.unfit = nil
	for uid, at := range a.atts.byUID {
		l := a.rec.locals[uid]
		if at.Fitted == nil || a.wantsFast(uid) || a.inFastPath(uid) {
			continue
		}
		if l != nil && l.ifindex == at.Fitted.Ifindex {
			a.restore(at)
		}
		at.Fitted = nil
		if err := a.atts.put(at); err != nil {
			a.log.Error("an attachment cannot be written", "err", err)
		}
	}
	a.setCondition("fast path", a.slowPorts())
}

func (a *Agent) restore(at attachment) {
	if err := unfit(a.links, at); err != nil {
		a.log.Warn("a workload's interface cannot be put back to what it was before the XDP lane", "port", at.Tenant+"/"+at.Port, "err", err)
	}
}

// unfit puts a workload's end back, if it was changed and is still there.
func unfit(links Links, at attachment) error {
	if at.Fitted == nil || len(at.Fitted.Was) == 0 {
		return nil
	}
	if err := links.SetPeerFeatures(at.Interface, at.Netns, at.Fitted.Was); err != nil && !isNotFound(err) {
		return err
	}
	return nil
}

// mostSlowPorts are named in the condition.
const mostSlowPorts = 3

// slowPorts is the condition of ports that should be in the XDP lane and are not; empty: none.
func (a *Agent) slowPorts() string {
	var list []string
	for uid, f := range a.rec.fast {
		if at, ok := a.atts.byUID[uid]; ok && f.why != "" {
			list = append(list, fmt.Sprintf("port %s/%s stays in the tc lane: %s", at.Tenant, at.Port, f.why))
		}
	}
	slices.Sort(list)
	if more := len(list) - mostSlowPorts; more > 0 {
		list = append(list[:mostSlowPorts], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(list, "; ")
}
