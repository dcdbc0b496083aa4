package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/datapath"
)

// A commit on this host, in order: the port's MACs come to its interface and it is opened (flipper); the source is told by claims, and a
// server by a call, at the same time, each until it has answered; the loop takes the flip in and has it written down.

// commit is the word of whoever runs a port's workload that it runs here now. It returns when the port is open and the flip is written down.
func (a *Agent) commit(ctx context.Context, req *localv1.CommitRequest) (*localv1.Attachment, error) {
	uid := a.flipper.named(req.Tenant + "/" + req.Port)
	err := errNotComing
	if uid != "" {
		err = a.commitHere(uid, planv1.CommitCause_COMMIT_CAUSE_EVENT)
	}
	var res *localv1.Attachment
	var written <-chan error
	derr := a.do(ctx, func() {
		a.takeFlips()
		if uid == "" {
			uid = a.partOf(req.Tenant, req.Port)
		}
		if p := a.rec.view.ports[uid]; p == nil || p.place.active != a.rec.self { // not made, or the plan has gone on
			err = a.whyNoCommit(req, uid, cmp.Or(err, errNotComing))
			return
		}
		err = nil
		res, written = a.attachmentProto(a.attachmentOf(uid)), a.keepFlips()
	})
	if err := errors.Join(derr, err); err != nil {
		return nil, err
	}
	if err := <-written; err != nil {
		return nil, refuse(connect.CodeInternal, "port %s/%s is open here, and its commit under way; that could not be written down: %v", req.Tenant, req.Port, err)
	}
	return res, nil
}

// whyNoCommit says what to do about a commit that was not made. In the loop.
func (a *Agent) whyNoCommit(req *localv1.CommitRequest, uid string, err error) error {
	p := a.rec.view.ports[uid]
	switch {
	case p == nil || !p.place.comes(a.rec.self) && !p.place.goes(a.rec.self):
		return refuse(connect.CodeNotFound, "port %s/%s is not on its way to this host; `weft port move %s --host HOST --prepare` prepares a move", req.Tenant, req.Port, req.Port)
	case p.place.goes(a.rec.self):
		return refuse(connect.CodeFailedPrecondition, "port %s/%s went from this host to %s; commit it there, or not at all", req.Tenant, req.Port, a.hostName(p.place.active))
	case errors.Is(err, errNotComing):
		return refuse(connect.CodeFailedPrecondition, "port %s/%s was prepared anew just now; try again", req.Tenant, req.Port)
	}
	return refuse(connect.CodeFailedPrecondition, "port %s/%s cannot be committed here yet: %v; try again when that is done", req.Tenant, req.Port, err)
}

// partOf is a port of that name in which this host has a part. In the loop.
func (a *Agent) partOf(tenant, port string) string {
	view := a.rec.view
	list := slices.Clone(view.atVTEP.of[a.ownVTEP()])
	for uid := range view.passing[a.rec.self] {
		list = append(list, view.ports[uid])
	}
	for _, p := range list {
		if p != nil && p.tenant == tenant && p.name == port {
			return p.uid
		}
	}
	return ""
}

// attachmentOf is a port's attachment, or one that says that there is none. In the loop.
func (a *Agent) attachmentOf(uid string) attachment {
	at, ok := a.atts.byUID[uid]
	if p := a.rec.view.ports[uid]; !ok && p != nil {
		at = attachment{UID: uid, Tenant: p.tenant, Port: p.name}
	}
	return at
}

// hostName is a host's name, or its uid where the plan does not tell it. In the loop.
func (a *Agent) hostName(uid string) string {
	if v := a.rec.view.vteps[uid]; v != nil && v.name != "" {
		return v.name
	}
	return uid
}

// commitHere makes the flip, and sees to it that everybody hears. Not in the loop: it waits for nobody.
func (a *Agent) commitHere(uid string, cause planv1.CommitCause) error {
	began := time.Now()
	r, err := a.flipper.commit(uid, cause)
	if err == nil {
		a.follow(r, began)
	}
	return err
}

// firstFrames commits what a workload's first frame commits, until the channel is closed.
func (a *Agent) firstFrames(ctx context.Context, frames <-chan datapath.PortID) {
	for id := range frames {
		uid := a.speaker(ctx, id)
		if uid == "" {
			continue // committed already
		}
		err := a.commitHere(uid, planv1.CommitCause_COMMIT_CAUSE_FIRST_FRAME)
		if err == nil || errors.Is(err, errNotComing) {
			continue
		}
		a.log.Warn("a workload runs here, and its port cannot be committed yet", "port", uid, "err", err)
		// The kernel tells once. The context ends with the agent.
		_ = a.do(ctx, func() {
			if p := a.rec.view.ports[uid]; p != nil {
				a.spoke[uid] = p.planned.epoch
				a.followFlips() // it may have been prepared since
			}
		})
	}
}

// speaker is the port with that number, if it may be committed. One that is watched since a moment is known when the loop is done with what it does.
func (a *Agent) speaker(ctx context.Context, id datapath.PortID) string {
	if uid := a.flipper.numbered(id); uid != "" {
		return uid
	}
	if err := a.do(ctx, func() {}); err != nil {
		return ""
	}
	return a.flipper.numbered(id)
}

// followers are goroutines that see through what takes its time: commits, one a port, and others. They do not outlive the loop.
type followers struct {
	life context.Context
	over context.CancelFunc

	mu     sync.Mutex
	cancel map[string]context.CancelFunc
	all    sync.WaitGroup
}

func newFollowers() *followers {
	f := &followers{cancel: map[string]context.CancelFunc{}}
	f.life, f.over = context.WithCancel(context.Background())
	return f
}

// start begins to follow a port's commit, in the place of an earlier one.
func (f *followers) start(uid string, follow func(context.Context)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.life.Err() != nil {
		return
	}
	if f.cancel[uid] != nil {
		f.cancel[uid]()
	}
	ctx, cancel := context.WithCancel(f.life)
	f.cancel[uid] = cancel
	f.all.Go(func() { defer cancel(); follow(ctx) })
}

// free begins something that is of no port.
func (f *followers) free(follow func(context.Context)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.life.Err() == nil {
		f.all.Go(func() { follow(f.life) })
	}
}

func (f *followers) ports() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Keys(f.cancel))
}

func (f *followers) stop(uid string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if cancel := f.cancel[uid]; cancel != nil {
		cancel()
		delete(f.cancel, uid)
	}
}

// end stops all and waits for them.
func (f *followers) end() {
	f.mu.Lock()
	f.over()
	f.mu.Unlock()
	f.all.Wait()
}

// follow tells the source and a server of a commit, at once. began is when it was made, or zero: before this agent was started.
func (a *Agent) follow(r ready, began time.Time) {
	a.followers.start(r.flip.UID, func(ctx context.Context) {
		var parts sync.WaitGroup
		defer parts.Wait()
		dark := make(chan time.Duration, 1)
		if a.prober != nil && r.peer != noMAC {
			answered := make(chan time.Duration, 1)
			parts.Go(func() {
				a.prober.Claim(ctx, moveClaim{r.flip.UID, r.flip.To, r.flip.Epoch}, r.peer, func() { answered <- time.Since(began) })
			})
			if !began.IsZero() {
				parts.Go(func() { a.noteDark(ctx, r, answered, dark) })
			}
		}
		a.tellServer(ctx, r.flip, dark)
	})
}

// noteDark takes the dark time in, and passes it on.
func (a *Agent) noteDark(ctx context.Context, r ready, answered <-chan time.Duration, on chan<- time.Duration) {
	select {
	case <-ctx.Done():
	case d := <-answered:
		on <- d
		// The context ends with the move: then nobody asks.
		_ = a.do(ctx, func() {
			a.takeFlips() // or the file has it without its dark time
			a.dark[r.flip.UID] = d
			if f, ok := a.rec.view.flips[r.flip.UID]; ok && f.Epoch == r.flip.Epoch {
				f.Dark = d
				a.rec.view.flips[r.flip.UID] = f
				a.keepFlips()
			}
			a.log.Info("the source forwards", "port", r.name, "dark", d)
		})
	}
}

// lastCommit is the longest wait between calls that tell a server of a commit.
const lastCommit = time.Second

// tellServer calls until a server has answered, and again when the dark time is known.
func (a *Agent) tellServer(ctx context.Context, f flip, dark <-chan time.Duration) {
	for wait := firstBackoff; ctx.Err() == nil; wait = min(2*wait, lastCommit) {
		_, err := a.server.Commit(ctx, &planv1.CommitRequest{PortUid: f.UID, Epoch: f.Epoch, Cause: f.Cause, DarkNanoseconds: int64(f.Dark)})
		again := time.After(wait)
		switch {
		case err == nil:
			// The context ends with the move.
			_ = a.do(ctx, func() { a.confirmed(f) })
			if f.Dark != 0 {
				return
			}
			again = nil // only the dark time is left to tell
		case refusal(err):
			_ = a.do(ctx, func() { a.commitRefused(f, streamError(err, nil).Error()) })
			return
		default:
			a.log.Debug("no server has heard of a commit yet", "port", f.UID, "err", err)
		}
		select {
		case <-ctx.Done():
		case <-again:
		case f.Dark = <-dark:
			wait = firstBackoff
		}
	}
}

// refusal tells a server's no from a failure that passes.
func refusal(err error) bool {
	switch connect.CodeOf(err) {
	case connect.CodeFailedPrecondition, connect.CodeAborted, connect.CodeNotFound, connect.CodePermissionDenied, connect.CodeInvalidArgument:
		return true
	}
	return false
}

// confirmed: a server has swapped the binding; the plan will say so.
func (a *Agent) confirmed(f flip) {
	a.takeFlips()
	if have, ok := a.rec.view.flips[f.UID]; ok && have.Epoch == f.Epoch && !have.Confirmed {
		have.Confirmed = true
		a.rec.view.flips[f.UID] = have
		a.keepFlips()
		later(&a.reportAt, reportDelay)
	}
}

// commitRefused holds the port again.
func (a *Agent) commitRefused(f flip, why string) {
	a.takeFlips()
	have, ok := a.rec.view.flips[f.UID]
	if !ok || have.Epoch != f.Epoch {
		return // the plan was faster
	}
	a.rec.view.unflip(f.UID, a.rec.dirty)
	a.refused(f, why)
	a.keepFlips()
	a.reconcile()
}

// refusedFor is how long a refused commit is shown.
const refusedFor = 10 * time.Minute

type refusedCommit struct {
	message string
	at      time.Time
	epoch   int64
}

func (a *Agent) refused(f flip, why string) {
	name := f.UID
	if p := a.rec.view.ports[f.UID]; p != nil {
		name = p.tenant + "/" + p.name
	}
	a.refusals[f.UID] = refusedCommit{fmt.Sprintf("the commit of port %s here was refused: %s", name, why), a.cfg.Clock(), f.Epoch}
	a.log.Warn("a commit was refused, and the port is held", "port", name, "epoch", f.Epoch, "err", why)
	a.tellRefusals()
}

// tellRefusals sets the condition of refused commits: until the port is here after all, on its way again, or ten minutes have passed.
func (a *Agent) tellRefusals() {
	var list []string
	for _, uid := range slices.Sorted(maps.Keys(a.refusals)) {
		r, p := a.refusals[uid], a.rec.view.ports[uid]
		if a.cfg.Clock().Sub(r.at) > refusedFor || p != nil && (p.place.active == a.rec.self || p.place.comes(a.rec.self) && p.place.epoch > r.epoch) {
			delete(a.refusals, uid)
			continue
		}
		list = append(list, r.message)
	}
	a.setCondition("commit", strings.Join(list, "; "))
}

// takeFlips takes in what was flipped beside the loop.
func (a *Agent) takeFlips() {
	list := a.flipper.take()
	if len(list) == 0 {
		return
	}
	for _, m := range list {
		a.rec.wrote(m)
		switch {
		case m.err != nil:
			a.log.Error("a flip failed, and is undone", "port", m.name, "err", m.err)
		case a.rec.view.flip(m.flip, a.rec.dirty):
			a.log.Info("the port flipped", "port", m.name, "from", a.hostName(m.flip.From), "to", a.hostName(m.flip.To), "epoch", m.flip.Epoch)
		default: // the plan has gone on meanwhile
			a.rec.view.over = append(a.rec.view.over, m.flip)
		}
	}
	later(&a.reportAt, reportDelay)
	a.keepFlips()
	a.reconcile()
}

// keepFlips has them written down; the channel tells when they are.
func (a *Agent) keepFlips() <-chan error {
	written := a.flips.put(slices.Collect(maps.Values(a.rec.view.flips)))
	return written
}

// loadFlips takes in what was written down, where the plan has not gone on.
func (a *Agent) loadFlips() {
	file := newFlipFile(a.cfg.Dir)
	a.flips = &scribe[[]flip]{write: func(list []flip) error {
		err := file.write(list)
		if err != nil {
			a.log.Error("commits could not be written down; a restart forgets them until they are told again", "err", err)
		}
		return err
	}}
	list, err := file.read()
	if err != nil {
		a.log.Error("what was committed before the restart is not known; whoever knows tells again", "err", err)
	}
	for _, f := range list {
		if a.rec.view.flip(f, a.rec.dirty) && f.Dark != 0 {
			a.dark[f.UID] = f.Dark
		}
	}
}

// followFlips goes on with commits that are not seen through, and ends what is over. It runs after every comparison of kernel and plan.
func (a *Agent) followFlips() {
	over := a.rec.view.overFlips()
	for _, f := range over {
		if p := a.rec.view.ports[f.UID]; f.To == a.rec.self && (p == nil || p.planned.active != f.To) {
			a.refused(f, a.winner(p))
		}
	}
	if len(over) > 0 {
		a.keepFlips()
	}
	list, gone := a.rec.moving()
	for uid, r := range a.refusals {
		if next, ok := list[uid]; ok && next.flip.Epoch == r.epoch && next.flip.To == a.rec.self {
			next.lacks = r.message // it would be refused again
			list[uid] = next
		}
	}
	a.tellPrepared(list)
	late := a.spokeEarly(list)
	a.flipper.prepare(list, gone)
	a.commitLate(late)
	following := map[string]bool{}
	for _, uid := range a.followers.ports() {
		p := a.rec.view.ports[uid]
		_, flipped := a.rec.view.flips[uid]
		following[uid] = flipped || a.flipper.has(uid) || p != nil && p.place.active == a.rec.self && p.place.draining != ""
		if !following[uid] {
			a.followers.stop(uid)
		}
	}
	for uid, f := range a.rec.view.flips {
		if f.To == a.rec.self && !following[uid] {
			p := a.rec.view.ports[uid]
			a.follow(ready{flip: f, name: p.tenant + "/" + p.name, peer: a.rec.oamPeer(f.From)}, time.Time{})
		}
	}
	a.tellRefusals()
	a.closeTallies()
}

// spokeEarly are ports whose workload sent its first frame before they were prepared, and that are now.
func (a *Agent) spokeEarly(list map[string]ready) (uids []string) {
	for uid, epoch := range a.spoke {
		r, coming := list[uid]
		switch {
		case !coming || r.flip.Epoch != epoch:
			delete(a.spoke, uid) // that move is over
		case r.lacks == "" && !r.bare:
			delete(a.spoke, uid)
			uids = append(uids, uid)
		}
	}
	return uids
}

func (a *Agent) commitLate(uids []string) {
	for _, uid := range uids {
		if err := a.commitHere(uid, planv1.CommitCause_COMMIT_CAUSE_FIRST_FRAME); err != nil && !errors.Is(err, errNotComing) {
			a.log.Error("a port whose workload runs here could not be committed", "port", uid, "err", err)
		}
	}
}

// winner says who has a port that this host thought its own.
func (a *Agent) winner(p *port) string {
	switch {
	case p == nil:
		return "the plan does not have the port on this host any more"
	case p.planned.active == "":
		return fmt.Sprintf("epoch %d has it bound to no host", p.planned.epoch)
	}
	return fmt.Sprintf("epoch %d has it on host %s", p.planned.epoch, a.hostName(p.planned.active))
}

// preparedDelay collects ports that are prepared together into one report.
const preparedDelay = 10 * time.Millisecond

// tellPrepared reports soon when a port that comes here became prepared, or stopped to be.
func (a *Agent) tellPrepared(list map[string]ready) {
	was := a.coming
	a.coming = map[string]string{}
	for uid, r := range list {
		if r.flip.To != a.rec.self {
			continue
		}
		a.coming[uid] = r.lacks
		if before, known := was[uid]; !known || before != r.lacks {
			a.reportBy(preparedDelay)
		}
	}
}

// reportBy is a report within that time.
func (a *Agent) reportBy(delay time.Duration) {
	if at := time.Now().Add(delay); a.reportAt.IsZero() || at.Before(a.reportAt) {
		a.reportAt = at
	}
}
