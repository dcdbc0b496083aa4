package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/client"
)

// moveFlags of `weft port move`. Without a step it takes all of them.
type moveFlags struct {
	prepare, commit, abort bool
	noWait, watch          bool
	epoch                  int64
	host                   string
}

func portMove(a *app) *cobra.Command {
	var m moveFlags
	cmd := &cobra.Command{Use: "move NAME (--host HOST [--prepare [--no-wait]] | --commit | --abort | --watch)",
		Short: "move a bound port to another host, at once or in steps", Args: names("NAME"), ValidArgsFunction: a.complete(a.portNames),
		Long: "With --host alone it prepares the move, commits it as soon as it is prepared, and returns; the old host forwards what still comes to it for\n" +
			"some seconds. What happens is told on standard error as it happens. Interrupted before the commit, it aborts the move.\n\n" +
			"In steps, for who moves a machine: --prepare makes the port incoming on the host and returns when that host and its peers are ready; the\n" +
			"workload is moved; --commit makes the host the port's place. On the new host `weft port commit` does the same faster, and the first frame of a\n" +
			"machine behind a TAP does it without being asked. --abort ends a move that is not committed: the port stays where it was.",
		Example: "  weft port move web1 --host h3\n  weft port move web1 --host h3 --prepare && virsh migrate --live web1 qemu+ssh://h3/system && weft port move web1 --watch"}
	f := cmd.Flags()
	f.StringVar(&m.host, "host", "", "`NAME` of the host")
	_ = cmd.RegisterFlagCompletionFunc("host", a.completeFlag(a.hostNames))
	f.BoolVar(&m.prepare, "prepare", false, "only prepare the move; returns when it is prepared")
	f.BoolVar(&m.noWait, "no-wait", false, "with --prepare: return at once")
	f.BoolVar(&m.commit, "commit", false, "commit a prepared move")
	f.BoolVar(&m.abort, "abort", false, "end a move that is not committed")
	f.BoolVar(&m.watch, "watch", false, "stay until the move is done, or was aborted; alone: watch what others began")
	f.Int64Var(&m.epoch, "epoch", 0, epochHelp)
	a.waiting(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := m.check(cmd); err != nil {
			return err
		}
		tenant, err := a.tenant()
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		mv := &mover{app: a, c: c, tenant: tenant, name: args[0]}
		p, err := mv.run(cmd.Context(), &m)
		if err != nil {
			return err
		}
		if err := a.print(p, func() error { return mv.result(p) }); err != nil || m.prepare || m.abort {
			return err
		}
		return a.applied(cmd.Context(), tenant, p.GetSpec().GetNetwork(), p.GetStatus().GetBinding().GetEpoch())
	}
	return a.formatted(cmd)
}

// check refuses what cannot be meant.
func (m *moveFlags) check(cmd *cobra.Command) error {
	steps := 0
	for _, given := range []bool{m.prepare, m.commit, m.abort} {
		if given {
			steps++
		}
	}
	wait := cmd.Flags().Changed("wait")
	switch {
	case steps > 1:
		return usagef("", "give one of --prepare, --commit and --abort", "%d steps are named", steps)
	case m.host == "" && (m.prepare || steps == 0 && !m.watch):
		return usagef("--host", "give the name of a host; or --commit, --abort or --watch for a move that was begun", "it is missing")
	case m.host != "" && (m.commit || m.abort):
		return usagef("--host", "leave it out", "the move that was begun says where the port goes")
	case m.noWait && !m.prepare:
		return usagef("--no-wait", "leave it out, or give --prepare", "it goes with --prepare only")
	case m.noWait && m.watch:
		return usagef("", "give one of them", "--no-wait and --watch were both given")
	case wait && (m.prepare || m.abort):
		return usagef("--wait", "leave it out", "it waits until a commit is known everywhere, and none was asked for")
	case m.epoch != 0 && steps == 0 && m.host == "":
		return usagef("--epoch", "leave it out", "watching changes nothing")
	}
	return nil
}

// mover moves one port.
type mover struct {
	app          *app
	c            *client.Client
	tenant, name string
	// quiet says nothing of the phases.
	quiet bool
	said  string
}

func (mv *mover) run(ctx context.Context, m *moveFlags) (*weftv1.Port, error) {
	switch {
	case m.commit:
		p, err := call(ctx, mv.c.Ports.CommitMove, &weftv1.CommitMoveRequest{Tenant: mv.tenant, Name: mv.name, Epoch: m.epoch})
		if err != nil || !m.watch {
			return p, err
		}
		return mv.toTheEnd(ctx)
	case m.abort:
		return call(ctx, mv.c.Ports.AbortMove, &weftv1.AbortMoveRequest{Tenant: mv.tenant, Name: mv.name, Epoch: m.epoch})
	case m.host == "":
		return mv.toTheEnd(ctx)
	}
	p, err := mv.prepare(ctx, m.host, m.epoch)
	if isCode(err, connect.CodeFailedPrecondition) && !m.prepare {
		if now, gerr := mv.port(ctx); gerr == nil && now.GetStatus().GetBinding().GetActive() == m.host && now.GetStatus().GetBinding().GetIncoming() == "" {
			return now, nil // it is where it is wanted
		}
	}
	if err != nil || m.noWait {
		return p, err
	}
	epoch := moveEpoch(p)
	last, err := mv.prepared(ctx, epoch)
	if err == nil && !m.prepare && last.GetPhase() == weftv1.MovePhase_MOVE_PHASE_PREPARED {
		err = mv.commit(ctx, epoch)
	}
	if err != nil {
		if ctx.Err() != nil && !m.prepare {
			mv.giveUp(epoch)
		}
		return nil, err
	}
	if m.watch {
		return mv.toTheEnd(ctx)
	}
	return mv.port(ctx)
}

// prepare makes the port incoming on a host. The epoch of the binding that comes of it is the move's name from then on: an interrupted command
// still waits for it, to have something to abort.
func (mv *mover) prepare(ctx context.Context, host string, epoch int64) (*weftv1.Port, error) {
	ctx, cancel := lingering(ctx)
	defer cancel()
	p, err := call(ctx, mv.c.Ports.PrepareMove, &weftv1.PrepareMoveRequest{Tenant: mv.tenant, Name: mv.name, Host: host, Epoch: epoch})
	if err == nil {
		mv.tell(p.GetStatus().GetMove())
	}
	return p, err
}

// moveEpoch of a port that a move was just begun of.
func moveEpoch(p *weftv1.Port) int64 {
	if m := p.GetStatus().GetMove(); m.GetEpoch() != 0 {
		return m.GetEpoch()
	}
	return p.GetStatus().GetBinding().GetEpoch()
}

// prepared waits until the move of that epoch is prepared, or further. One that was aborted is an error.
func (mv *mover) prepared(ctx context.Context, epoch int64) (*weftv1.Move, error) {
	return mv.follow(ctx, epoch, func(m *weftv1.Move) bool { return m.GetPhase() > weftv1.MovePhase_MOVE_PHASE_PREPARING })
}

// follow tells the phases until one is enough. Another move than that of the epoch (0 is any) is an error: ours was aborted meanwhile.
func (mv *mover) follow(ctx context.Context, epoch int64, enough func(*weftv1.Move) bool) (*weftv1.Move, error) {
	var last *weftv1.Move
	err := mv.c.FollowMove(ctx, mv.tenant, mv.name, func(m *weftv1.Move) bool {
		last = m
		if epoch != 0 && m.GetEpoch() != epoch {
			return false
		}
		mv.tell(m)
		return !enough(m)
	})
	switch {
	case ctx.Err() != nil:
		return last, ctx.Err()
	case err != nil:
		return last, err
	case epoch != 0 && last.GetEpoch() != epoch:
		return last, refusef("move", "look at it: `"+mv.show()+"`", "it ended, and another one from %s to %s was begun", last.GetFrom(), last.GetTo())
	case last.GetPhase() == weftv1.MovePhase_MOVE_PHASE_ABORTED:
		return last, mv.aborted(last)
	}
	return last, nil
}

func (mv *mover) aborted(m *weftv1.Move) error {
	why := m.GetMessage()
	if why == "" {
		why = "no reason was given"
	}
	return refusef("move", "begin it again when that is mended, or see `"+mv.show()+"`", "it was aborted, and the port stays on %s: %s", m.GetFrom(), why)
}

func (mv *mover) show() string {
	return fmt.Sprintf("weft port show %s --tenant %s", mv.name, mv.tenant)
}

// commit is one compare-and-swap, so it may be said again where the answer got lost. That the workload's own event came first is no error.
func (mv *mover) commit(ctx context.Context, epoch int64) error {
	for try := 1; ; try++ {
		p, err := call(ctx, mv.c.Ports.CommitMove, &weftv1.CommitMoveRequest{Tenant: mv.tenant, Name: mv.name, Epoch: epoch})
		if err == nil {
			mv.tell(p.GetStatus().GetMove())
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		now, gerr := mv.port(ctx)
		m := now.GetStatus().GetMove()
		switch {
		case gerr != nil:
			return err
		case m.GetEpoch() == epoch && committed(m):
			mv.tell(m)
			return nil
		case m.GetEpoch() == epoch && m.GetPhase() == weftv1.MovePhase_MOVE_PHASE_ABORTED:
			return mv.aborted(m)
		case !isCode(err, connect.CodeUnavailable) || try == retries:
			return err
		}
	}
}

func committed(m *weftv1.Move) bool {
	return m.GetPhase() == weftv1.MovePhase_MOVE_PHASE_DRAINING || m.GetPhase() == weftv1.MovePhase_MOVE_PHASE_DONE
}

// goodbye is how long an interrupted command may take to put things back.
const goodbye = 5 * time.Second

// lingering ends some time after ctx does.
func lingering(ctx context.Context) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(goodbye, cancel)
		context.AfterFunc(longer, func() { timer.Stop() })
	})
	return longer, func() { stop(); cancel() }
}

// giveUp aborts a move that the user does not wait for any more.
func (mv *mover) giveUp(epoch int64) {
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	p, err := call(ctx, mv.c.Ports.AbortMove, &weftv1.AbortMoveRequest{Tenant: mv.tenant, Name: mv.name, Epoch: epoch})
	if err != nil {
		_, lines := explain(err)
		mv.say("the move could not be aborted: " + lines[0].Error() + "; see `" + mv.show() + "`")
		return
	}
	mv.tell(p.GetStatus().GetMove())
}

func (mv *mover) port(ctx context.Context) (*weftv1.Port, error) {
	return call(ctx, mv.c.Ports.GetPort, &weftv1.GetPortRequest{Tenant: mv.tenant, Name: mv.name})
}

// toTheEnd watches the port's last move until it is done.
func (mv *mover) toTheEnd(ctx context.Context) (*weftv1.Port, error) {
	p, err := mv.port(ctx)
	if err != nil {
		return nil, err
	}
	if p.GetStatus().GetMove() == nil {
		return nil, refusef("move", "begin one with --host HOST", "the port was never moved")
	}
	if _, err := mv.follow(ctx, 0, client.MoveEnded); err != nil {
		return nil, err
	}
	return mv.port(ctx)
}

// tell writes a phase to standard error, once.
func (mv *mover) tell(m *weftv1.Move) {
	if m == nil || mv.quiet {
		return
	}
	mv.say(phaseText(m))
}

func (mv *mover) say(text string) {
	if text != mv.said {
		fmt.Fprintf(mv.app.deps.Stderr, "port %s/%s: %s\n", mv.tenant, mv.name, text)
	}
	mv.said = text
}

// phaseText is a phase in a line.
func phaseText(m *weftv1.Move) string {
	switch m.GetPhase() {
	case weftv1.MovePhase_MOVE_PHASE_PREPARING:
		return withReason("preparing on "+m.GetTo(), m.GetMessage())
	case weftv1.MovePhase_MOVE_PHASE_PREPARED:
		return withReason("prepared on "+m.GetTo(), m.GetMessage())
	case weftv1.MovePhase_MOVE_PHASE_DRAINING:
		return fmt.Sprintf("committed by %s: it is on %s, and %s forwards what still comes to it", causeText(m), m.GetTo(), m.GetFrom())
	case weftv1.MovePhase_MOVE_PHASE_DONE:
		text := "done"
		if dark := darkText(m); dark != "" {
			text += ", dark for " + dark
		}
		return withReason(text, m.GetMessage())
	case weftv1.MovePhase_MOVE_PHASE_ABORTED:
		return withReason("aborted, it stays on "+m.GetFrom(), m.GetMessage())
	}
	return withReason(enum("MOVE_PHASE_", m.GetPhase()), m.GetMessage())
}

func withReason(text, reason string) string {
	if reason == "" {
		return text
	}
	return text + ": " + reason
}

// causeText is what committed a move: "command", "event", "first frame".
func causeText(m *weftv1.Move) string {
	switch m.GetCommitCause() {
	case weftv1.CommitCause_COMMIT_CAUSE_COMMAND:
		return "command"
	case weftv1.CommitCause_COMMIT_CAUSE_EVENT:
		return "event"
	case weftv1.CommitCause_COMMIT_CAUSE_FIRST_FRAME:
		return "first frame"
	}
	return "an unknown cause"
}

// darkText is empty when it is not known.
func darkText(m *weftv1.Move) string {
	if m.GetDarkTime() == nil {
		return ""
	}
	return m.GetDarkTime().AsDuration().Round(time.Microsecond).String()
}

// result of the whole command.
func (mv *mover) result(p *weftv1.Port) error {
	b, m := p.GetStatus().GetBinding(), p.GetStatus().GetMove()
	port := mv.tenant + "/" + mv.name
	switch {
	case b.GetIncoming() != "":
		how := "prepared"
		if m.GetPhase() == weftv1.MovePhase_MOVE_PHASE_PREPARING {
			how = "being prepared"
		}
		return errors.Join(mv.app.say("port %s is incoming on %s, %s (epoch %d)", port, b.GetIncoming(), how, b.GetEpoch()),
			mv.app.say("  on %s, when its workload runs there: weft port commit %s --tenant %s", b.GetIncoming(), mv.name, mv.tenant),
			mv.app.say("  or from here:  weft port move %s --tenant %s --commit --epoch %d", mv.name, mv.tenant, b.GetEpoch()),
			mv.app.say("  or not at all: weft port move %s --tenant %s --abort --epoch %d", mv.name, mv.tenant, b.GetEpoch()))
	case m.GetPhase() == weftv1.MovePhase_MOVE_PHASE_ABORTED:
		return mv.app.say("port %s stays on %s (epoch %d)", port, orDash(b.GetActive()), b.GetEpoch())
	}
	return mv.app.say("port %s is moved to %s (epoch %d)", port, orDash(b.GetActive()), b.GetEpoch())
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// moveLines are a port's last move, for its sheet.
func moveLines(m *weftv1.Move) []string {
	lines := []string{fmt.Sprintf("from %s to %s, asked for by %s: %s", m.GetFrom(), m.GetTo(), orDash(m.GetBy()), enum("MOVE_PHASE_", m.GetPhase()))}
	if m.GetMessage() != "" {
		lines = append(lines, m.GetMessage())
	}
	if m.GetCommitCause() != weftv1.CommitCause_COMMIT_CAUSE_UNSPECIFIED {
		line := "committed by " + causeText(m)
		if dark := darkText(m); dark != "" {
			line += ", dark for " + dark
		}
		lines = append(lines, line)
	}
	times := ""
	for _, at := range []struct{ what, when string }{{"begun", when(m.GetStarted())}, {"prepared", when(m.GetPrepared())},
		{"committed", when(m.GetCommitted())}, {"ended", when(m.GetEnded())}} {
		if at.when != "" {
			if times != "" {
				times += ", "
			}
			times += at.what + " " + at.when
		}
	}
	if times != "" {
		lines = append(lines, times)
	}
	return lines
}
