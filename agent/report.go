package agent

import (
	"maps"
	"slices"
	"time"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/datapath"
)

var stateWord = map[planv1.PortState]string{
	planv1.PortState_PORT_STATE_DETACHED: "detached",
	planv1.PortState_PORT_STATE_HELD:     "held",
	planv1.PortState_PORT_STATE_ACTIVE:   "active",
}

// report says the actual state: absolute values, so that a lost one costs nothing.
func (a *Agent) report() {
	if a.connected == "" {
		return
	}
	a.lookAtLearned()
	a.lookAtFloods(time.Now())
	rep := &planv1.Report{Conditions: a.conditionList(), Learned: a.learned.list, Silent: a.silentList(time.Now()), Floods: a.flooded.list}
	if a.prober != nil {
		rep.ProbedGroups = a.prober.groups.Said(time.Now())
	}
	drops, err := a.kernel.Drops()
	if err != nil {
		a.log.Error("the drop counters cannot be read", "err", err)
	}
	of := map[datapath.PortID][]*planv1.Drop{}
	byID := a.portsByID()
	for _, d := range drops {
		m := &planv1.Drop{Reason: d.Reason.String(), Packets: d.Packets, Source: sourceWord(d)}
		if uid := byID[d.ID]; uid != "" && uid != oamUID {
			of[d.ID] = append(of[d.ID], m)
		} else {
			rep.Drops = append(rep.Drops, m)
		}
	}
	a.reportBooks(rep)
	for _, uid := range slices.Sorted(maps.Keys(a.reported())) {
		rep.Ports = append(rep.Ports, a.portReport(uid, of))
	}
	a.server.Say(nil, nil, rep)
}

// mostPrograms of ports are said in a report: it is made in the loop.
const mostPrograms = 100

// reportBooks says what the programs did, and where they are attached.
func (a *Agent) reportBooks(rep *planv1.Report) {
	rep.Programs = a.kernel.Programs(mostPrograms)
	for _, c := range a.can {
		rep.Capabilities = append(rep.Capabilities, &planv1.Capability{Name: c.Name, Interface: c.Interface, Present: c.Present, Detail: c.Detail})
	}
	books, err := a.kernel.Books()
	if err != nil {
		a.log.Error("the programs' books cannot be read", "err", err)
	}
	for _, b := range books {
		rep.Books = append(rep.Books, &planv1.ProgramBooks{Program: b.Program, In: b.In, Delivered: b.Delivered, Encapsulated: b.Encapsulated,
			Passed: b.Passed, Dropped: b.Dropped, Copies: b.Copies, Answers: b.Answers, Answered: b.Answered})
	}
	lanes, err := a.kernel.Lanes()
	if err != nil {
		a.log.Error("the lane counters cannot be read", "err", err)
	}
	for _, l := range lanes {
		rep.Lanes = append(rep.Lanes, &planv1.LaneCount{Reason: l.Reason.String(), Packets: l.Packets})
	}
}

// reported are the ports that this host answers for: attached ones, and those bound here, or on their way here or away, without an
// interface.
func (a *Agent) reported() map[string]bool {
	uids := map[string]bool{}
	for uid := range a.atts.byUID {
		uids[uid] = true
	}
	for _, p := range a.rec.view.atVTEP.of[a.ownVTEP()] {
		uids[p.uid] = true
	}
	for uid := range a.rec.view.passing[a.rec.self] {
		uids[uid] = true
	}
	return uids
}

func (a *Agent) ownVTEP() string {
	if h := a.rec.view.host; h != nil && h.Vtep != "" {
		return h.Vtep
	}
	return a.rec.self
}

func (a *Agent) portReport(uid string, drops map[datapath.PortID][]*planv1.Drop) *planv1.PortReport {
	r := &planv1.PortReport{Uid: uid}
	r.State, r.Message = a.portState(uid)
	if p := a.rec.view.ports[uid]; p != nil {
		r.Epoch = p.place.epoch
	}
	if lacks, comes := a.coming[uid]; comes {
		if r.Prepared = lacks == ""; !r.Prepared {
			r.Message = lacks
		}
	}
	if at, ok := a.atts.byUID[uid]; ok {
		r.Interface = at.Interface
	}
	r.Services = a.servant.countsOf(uid)
	r.FastPath, r.FastPathMessage = a.inFastPath(uid), a.rec.fast[uid].why
	c := a.tallies.Open[uid]
	defer func() {
		r.IngressPackets, r.IngressOctets, r.EgressPackets, r.EgressOctets = c.IngressPackets, c.IngressOctets, c.EgressPackets, c.EgressOctets
	}()
	id := a.rec.portIDs[uid]
	if id == 0 {
		return r
	}
	r.Drops = drops[id]
	now, err := a.kernel.PortCounters(id)
	if err != nil {
		a.log.Error("a port's counters cannot be read", "port", uid, "err", err)
		return r
	}
	c = sum(c, now)
	return r
}

// portState is what the kernel does with a port now, and why it is not active.
func (a *Agent) portState(uid string) (planv1.PortState, string) {
	at, attached := a.atts.byUID[uid]
	if !attached {
		return planv1.PortState_PORT_STATE_DETACHED, a.detached(uid)
	}
	want, why, ok := a.rec.wantPort(uid)
	if l := a.rec.locals[uid]; l == nil || l.ifindex == 0 {
		return planv1.PortState_PORT_STATE_DETACHED, "interface " + at.Interface + " is not there"
	}
	have, known := a.rec.tables.ports[want.Ifindex]
	switch {
	case ok && known && have.UID == uid && !have.Held:
		return planv1.PortState_PORT_STATE_ACTIVE, a.unconfirmed(uid)
	case why != "":
		return planv1.PortState_PORT_STATE_HELD, why + a.waits(uid)
	}
	if err := a.rec.missing(uid, want.VNI); err != nil {
		return planv1.PortState_PORT_STATE_HELD, err.Error()
	}
	return planv1.PortState_PORT_STATE_HELD, "not in the kernel yet"
}

// detached is why it matters, or does not, that a port has no interface here.
func (a *Agent) detached(uid string) string {
	switch p := a.rec.view.ports[uid]; {
	case p != nil && p.place.comes(a.rec.self):
		return "on its way here, and no interface is attached" + a.waits(uid)
	case p != nil && p.place.goes(a.rec.self):
		return a.rec.heldFor(p, a.rec.view.nets[p.network]) + a.waits(uid)
	}
	return "bound here, and no interface is attached"
}

// unconfirmed says of a commit that no server has heard of it.
func (a *Agent) unconfirmed(uid string) string {
	if f, ok := a.rec.view.flips[uid]; ok && !f.Confirmed && f.To == a.rec.self {
		return "committed; no server has confirmed it yet"
	}
	return ""
}

// waits says of a move that its next step is a server's, while there is none.
func (a *Agent) waits(uid string) string {
	p := a.rec.view.ports[uid]
	switch {
	case a.connected != "" || p == nil:
		return ""
	case p.place.comes(a.rec.self):
		return "; it can be committed, and all else of its move waits for a server"
	case p.place.goes(a.rec.self):
		return "; the end of its move waits for a server"
	}
	return ""
}

// moveWord is what is said of a port that is on its way, as this host sees it.
func (a *Agent) moveWord(uid string) string {
	p := a.rec.view.ports[uid]
	f, flipped := a.rec.view.flips[uid]
	switch {
	case p == nil:
		return ""
	case flipped && f.To == a.rec.self:
		return "committed"
	case p.place.comes(a.rec.self):
		return "incoming"
	case p.place.draining != "" && p.place.on(a.rec.self):
		return "draining"
	}
	return ""
}

func (a *Agent) portsByID() map[datapath.PortID]string {
	byID := make(map[datapath.PortID]string, len(a.rec.portIDs))
	for uid, id := range a.rec.portIDs {
		byID[id] = uid
	}
	return byID
}

func sourceWord(d datapath.DropCount) string {
	if d.Source.IsValid() {
		return d.Source.String()
	}
	return ""
}

// conditionList are the host's conditions, in order.
func (a *Agent) conditionList() []*planv1.Condition {
	var list []*planv1.Condition
	for _, name := range slices.Sorted(maps.Keys(a.conditions)) {
		list = append(list, &planv1.Condition{Name: name, Message: a.conditions[name]})
	}
	return append(list, a.learnedConditions()...)
}
