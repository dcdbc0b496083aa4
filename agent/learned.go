package agent

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"connectrpc.com/connect"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/wire"
)

// learned is what was last said of learning, to see what has come since.
type learned struct {
	refused map[datapath.Learner]uint64 // by place alone: the other fields are 0
	freezes uint64
	frozen  []datapath.LearnedMAC
	list    []*planv1.Learned
}

// mostFrozen are named in a condition.
const mostFrozen = 5

// lookAtLearned reads what the networks here have learned, and what is wrong with it.
func (a *Agent) lookAtLearned() {
	learners, err := a.kernel.Learners()
	if err != nil {
		a.log.Error("what was learned cannot be read", "err", err)
		return
	}
	var freezes uint64
	for _, l := range learners {
		freezes += l.Freezes
	}
	if freezes != a.learned.freezes || len(a.learned.frozen) > 0 { // else nothing can be frozen, and the table may be large
		a.learned.freezes, a.learned.frozen = freezes, a.frozen()
	}
	slices.SortFunc(learners, func(x, y datapath.Learner) int {
		return strings.Compare(a.placeWord(x.VTEP, x.Port), a.placeWord(y.VTEP, y.Port))
	})
	before := a.learned.refused
	a.learned.refused, a.learned.list = map[datapath.Learner]uint64{}, nil
	for uid, n := range a.rec.view.nets {
		if n.learning.Ageing == 0 || a.rec.view.byVNI[n.vni] != uid {
			continue
		}
		m := &planv1.Learned{Network: uid}
		for _, l := range learners {
			if l.VNI == n.vni {
				a.addLearner(m, n, l, before)
			}
		}
		a.addFrozen(m, n)
		a.addUnlisted(m, n)
		a.learned.list = append(a.learned.list, m)
	}
	slices.SortFunc(a.learned.list, func(x, y *planv1.Learned) int { return strings.Compare(x.Network, y.Network) })
}

func (a *Agent) frozen() (list []datapath.LearnedMAC) {
	all, err := a.kernel.Learned()
	if err != nil {
		a.log.Error("the learned MACs cannot be read", "err", err)
	}
	for _, m := range all {
		if m.Frozen {
			list = append(list, m)
		}
	}
	slices.SortFunc(list, func(x, y datapath.LearnedMAC) int { return bytes.Compare(x.MAC[:], y.MAC[:]) })
	return list
}

func (a *Agent) addLearner(m *planv1.Learned, n *network, l datapath.Learner, before map[datapath.Learner]uint64) {
	m.Macs += uint32(l.MACs)
	refused := l.Refused + l.Full
	m.Refused += refused
	key := datapath.Learner{VNI: l.VNI, VTEP: l.VTEP, Port: l.Port}
	a.learned.refused[key] = refused
	if refused == before[key] { // nobody has come to the limit since the last look
		return
	}
	limit := n.learning.VTEPLimit
	if l.Port != 0 {
		limit = n.learning.PortLimit
	}
	why := fmt.Sprintf("has taught %d MACs, and its limit is %d", l.MACs, limit)
	if l.Full > 0 && l.MACs < limit {
		why = fmt.Sprintf("has taught %d MACs, and the host's table of learned MACs is full", l.MACs)
	}
	m.Conditions = append(m.Conditions, &planv1.Condition{Name: "learning limit", Message: fmt.Sprintf("%s %s: %d frames of further ones taught nothing, and others lose nothing by it",
		a.placeWord(l.VTEP, l.Port), why, refused)})
}

func (a *Agent) addFrozen(m *planv1.Learned, n *network) {
	var words []string
	for _, f := range a.learned.frozen {
		if f.VNI == n.vni {
			m.Frozen++
			words = append(words, fmt.Sprintf("%s at %s", f.MAC, a.placeWord(f.VTEP, f.Port)))
		}
	}
	if m.Frozen == 0 {
		return
	}
	if len(words) > mostFrozen {
		words = append(words[:mostFrozen], fmt.Sprintf("and %d more", int(m.Frozen)-mostFrozen))
	}
	m.Conditions = append(m.Conditions, &planv1.Condition{Name: "MAC moves",
		Message: "moved five times within 180 s, and are kept where they are: " + strings.Join(words, ", ") + "; look for a loop, or for two workloads with one MAC"})
}

func (a *Agent) addUnlisted(m *planv1.Learned, n *network) {
	u := a.rec.unlisted[n.uid]
	for _, addr := range u.addrs() {
		m.Unlisted = append(m.Unlisted, addr.String())
	}
	if u != nil && u.turnedAway > 0 {
		m.Conditions = append(m.Conditions, &planv1.Condition{Name: "unlisted VTEPs",
			Message: fmt.Sprintf("%d take part, which is the limit, and more have sent; list those that stay as VTEPs of the network", len(u.seen))})
		u.turnedAway = 0
	}
}

// placeWord is a VTEP's address or a port's name.
func (a *Agent) placeWord(vtep datapath.VTEPID, port datapath.PortID) string {
	if port != 0 {
		for uid, id := range a.rec.portIDs {
			if p := a.rec.view.ports[uid]; id == port && p != nil {
				return "port " + p.tenant + "/" + p.name
			}
		}
		return fmt.Sprintf("port number %d", port)
	}
	if v, ok := a.rec.tables.vteps[vtep]; ok {
		return "VTEP " + v.Addr.String()
	}
	return fmt.Sprintf("VTEP number %d", vtep)
}

// learnedConditions are those of all networks, for the host's own list.
func (a *Agent) learnedConditions() (list []*planv1.Condition) {
	for _, m := range a.learned.list {
		n := a.rec.view.nets[m.Network]
		if n == nil {
			continue
		}
		for _, c := range m.Conditions {
			list = append(list, &planv1.Condition{Name: c.Name, Message: "network " + n.display + ": " + c.Message})
		}
	}
	return list
}

// mostListed learned MACs are in an answer.
const mostListed = 10_000

func (a *Agent) networkNamed(tenant, name string) (*network, error) {
	for _, n := range a.rec.view.nets {
		if n.display == tenant+"/"+name {
			if n.learning.Ageing == 0 {
				return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("network %s does not learn", n.display))
			}
			return n, nil
		}
	}
	return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("network %s/%s is not on this host: no port of it is bound here", tenant, name))
}

func (s *localService) ListLearned(ctx context.Context, req *connect.Request[localv1.ListLearnedRequest]) (*connect.Response[localv1.ListLearnedResponse], error) {
	a, res := s.agent, &localv1.ListLearnedResponse{}
	list, err := a.kernel.Learned() // outside the loop: it may be long
	if err != nil {
		return nil, err
	}
	derr := a.do(ctx, func() {
		n, nerr := a.networkNamed(req.Msg.GetTenant(), req.Msg.GetNetwork())
		if err = nerr; err != nil {
			return
		}
		list = slices.DeleteFunc(list, func(m datapath.LearnedMAC) bool { return m.VNI != n.vni })
		slices.SortFunc(list, func(x, y datapath.LearnedMAC) int { return bytes.Compare(x.MAC[:], y.MAC[:]) })
		res.Total = uint32(len(list))
		for _, m := range list[:min(len(list), mostListed)] {
			out := &localv1.LearnedMac{Mac: m.MAC.String(), AgeNanoseconds: int64(m.Age), LeftNanoseconds: int64(m.Left), Moves: uint32(m.Moves), Frozen: m.Frozen}
			if where := a.placeWord(m.VTEP, m.Port); m.Port != 0 {
				out.Port = strings.TrimPrefix(where, "port ")
			} else {
				out.Vtep = strings.TrimPrefix(where, "VTEP ")
			}
			res.Macs = append(res.Macs, out)
		}
	})
	if derr != nil {
		err = derr
	}
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(res), nil
}

func (s *localService) ForgetLearned(ctx context.Context, req *connect.Request[localv1.ForgetLearnedRequest]) (*connect.Response[localv1.ForgetLearnedResponse], error) {
	a := s.agent
	var n *network
	var err error
	if derr := a.do(ctx, func() { n, err = a.networkNamed(req.Msg.GetTenant(), req.Msg.GetNetwork()) }); derr != nil {
		return nil, derr
	}
	if err != nil {
		return nil, err
	}
	var keys []datapath.FDBKey
	for _, text := range req.Msg.GetMacs() {
		mac, err := wire.ParseMAC(text)
		if err != nil {
			return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("%q is not a MAC address", text))
		}
		keys = append(keys, datapath.FDBKey{VNI: n.vni, MAC: mac})
	}
	if len(keys) == 0 {
		all, err := a.kernel.Learned()
		if err != nil {
			return nil, err
		}
		for _, m := range all {
			if m.VNI == n.vni {
				keys = append(keys, m.FDBKey)
			}
		}
	}
	gone, err := a.kernel.Forget(keys)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&localv1.ForgetLearnedResponse{Forgotten: uint32(gone)}), nil
}
