package agent

import (
	"os/user"
	"strconv"

	"connectrpc.com/connect"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
)

// madeTAP is how a TAP device was made, so that it can be made again after a reboot.
type madeTAP struct {
	Queues int `json:"queues"`
	// Owner and Group are the ids of those who may open it; -1: it does not depend on that. The kernel lets in who fulfils both.
	Owner int `json:"owner"`
	Group int `json:"group"`
}

// tapToMake is what is asked for; nil: nothing.
func tapToMake(req *localv1.MakeTap) (*madeTAP, error) {
	if req == nil {
		return nil, nil
	}
	m := &madeTAP{Queues: max(1, int(req.Queues)), Owner: -1, Group: -1}
	if req.Owner != "" {
		u, err := user.Lookup(req.Owner)
		if err != nil {
			u, err = user.LookupId(req.Owner)
		}
		if err != nil {
			return nil, refuse(connect.CodeInvalidArgument, "owner: there is no user %q on this host; name one, or give a number that `id` shows", req.Owner)
		}
		m.Owner, _ = strconv.Atoi(u.Uid) // a number, on Linux
	}
	if req.Group != "" {
		g, err := user.LookupGroup(req.Group)
		if err != nil {
			g, err = user.LookupGroupId(req.Group)
		}
		if err != nil {
			return nil, refuse(connect.CodeInvalidArgument, "group: there is no group %q on this host; name one, or give its number", req.Group)
		}
		m.Group, _ = strconv.Atoi(g.Gid)
	}
	if m.Owner < 0 && m.Group < 0 {
		m.Owner = 0
	}
	return m, nil
}

// makeTAP makes the device of an attachment. One that somebody else made is taken as it is, and not removed later. Not in the loop.
func (a *Agent) makeTAP(at, old attachment, again bool) (attachment, error) {
	mine := again && old.Made != nil && old.Interface == at.Interface
	if _, err := a.links.Link(at.Interface); err == nil && !mine {
		at.Made = nil
		return at, nil
	}
	if _, err := a.links.MakeTAP(at.Interface, at.Made.Queues, at.Made.Owner, at.Made.Group); err != nil {
		return at, refuse(connect.CodeFailedPrecondition, "tap: %v", err)
	}
	return at, nil
}

// unmake removes an interface of the agent's making. A TAP device that a guest has open reaches nobody from now on, and goes when that does.
func (a *Agent) unmake(at attachment) error {
	switch {
	case at.Kind == kindVeth:
		return a.links.Delete(at.Interface)
	case at.Made == nil:
		return nil
	}
	err := a.links.RemoveTAP(at.Interface)
	if err == nil {
		return nil
	}
	a.log.Info("an interface is removed later", "interface", at.Interface, "err", err)
	a.unremoved = append(a.unremoved, at.Interface)
	if err := a.links.SetDown(at.Interface); err != nil && !isNotFound(err) {
		return err
	}
	return nil
}

// removeTAPs tries again to remove TAP devices that a guest had open.
func (a *Agent) removeTAPs() {
	left := a.unremoved
	a.unremoved = nil
	for _, name := range left {
		if _, attached := a.atts.byIf[name]; !attached && a.links.RemoveTAP(name) != nil {
			a.unremoved = append(a.unremoved, name)
		}
	}
}

// tapMTU is the MTU that a TAP device was given.
type tapMTU struct {
	ifindex uint32
	mtu     int
}

// settleTAP gives a TAP device the MTU of its network: a guest's frames beyond it would be dropped.
func (a *Agent) settleTAP(uid string, at attachment) {
	p, l := a.rec.view.ports[uid], a.rec.locals[uid]
	if at.Kind != kindTAP || p == nil || l == nil || l.ifindex == 0 {
		return
	}
	n := a.rec.view.nets[p.network]
	if n == nil || a.mtus[uid] == (tapMTU{l.ifindex, n.mtu}) {
		return
	}
	if err := a.links.SetMTU(at.Interface, n.mtu); err != nil {
		if !isNotFound(err) {
			a.log.Warn("an interface's MTU cannot be set", "interface", at.Interface, "err", err)
		}
		return
	}
	a.mtus[uid] = tapMTU{l.ifindex, n.mtu}
}
