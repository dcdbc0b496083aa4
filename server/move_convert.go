package server

import (
	"google.golang.org/protobuf/types/known/durationpb"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/model"
)

var (
	phasesOut = map[model.MovePhase]weftv1.MovePhase{
		model.MovePreparing: weftv1.MovePhase_MOVE_PHASE_PREPARING,
		model.MovePrepared:  weftv1.MovePhase_MOVE_PHASE_PREPARED,
		model.MoveDraining:  weftv1.MovePhase_MOVE_PHASE_DRAINING,
		model.MoveDone:      weftv1.MovePhase_MOVE_PHASE_DONE,
		model.MoveAborted:   weftv1.MovePhase_MOVE_PHASE_ABORTED,
	}
	causesOut = map[model.CommitCause]weftv1.CommitCause{
		model.CommitByCommand:    weftv1.CommitCause_COMMIT_CAUSE_COMMAND,
		model.CommitByEvent:      weftv1.CommitCause_COMMIT_CAUSE_EVENT,
		model.CommitByFirstFrame: weftv1.CommitCause_COMMIT_CAUSE_FIRST_FRAME,
	}
)

// moveOut says of a move that is being prepared what is missing, as far as this server knows.
func (a *api) moveOut(w *model.World, p *model.Port, m *model.Move) *weftv1.Move {
	out := &weftv1.Move{
		From: w.HostName(m.From), To: w.HostName(m.To), Phase: phasesOut[m.Phase], Message: m.Message, Epoch: int64(m.Epoch), By: m.By,
		CommitCause: causesOut[m.Cause], Started: timeOut(m.Started), Prepared: timeOut(m.Prepared), Committed: timeOut(m.Committed), Ended: timeOut(m.Ended),
	}
	if m.Dark > 0 {
		out.DarkTime = durationpb.New(m.Dark)
	}
	if m.Phase == model.MovePreparing {
		at := placeOf(w, p)
		out.Message = a.readiness(w, p, &at, nil).missing()
	}
	return out
}
