package model

import "time"

// MovePhase is how far a move is.
type MovePhase string

// The phases. A move is pending in the first two, and open in the first three.
const (
	// MovePreparing: the port is incoming on the target, and not everything that it needs is there yet.
	MovePreparing MovePhase = "preparing"
	// MovePrepared: only the commit is missing.
	MovePrepared MovePhase = "prepared"
	// MoveDraining: the target has the port, and the source forwards late frames to it.
	MoveDraining MovePhase = "draining"
	MoveDone     MovePhase = "done"
	// MoveAborted: the port stayed where it was.
	MoveAborted MovePhase = "aborted"
)

// CommitCause is what committed a move.
type CommitCause string

// The causes.
const (
	// CommitByCommand: somebody told a server.
	CommitByCommand CommitCause = "command"
	// CommitByEvent: the hypervisor, or whoever runs the workload, told the target's agent.
	CommitByEvent CommitCause = "event"
	// CommitByFirstFrame: the workload sent its first frame on the target.
	CommitByFirstFrame CommitCause = "first frame"
)

// Move is a port's last move from a host to another: what became of it, for people and tools. Where the port is says its Binding alone;
// every transaction that begins or ends a move changes both.
type Move struct {
	Port UID `json:"port"`
	From UID `json:"from"`
	To   UID `json:"to"`
	// Epoch of the binding in which the port became incoming. The store fills it in.
	Epoch Epoch     `json:"epoch,omitempty"`
	Phase MovePhase `json:"phase"`
	// AtOnce: it is committed as soon as it is prepared, by whichever server sees that.
	AtOnce bool `json:"at_once,omitempty"`
	// Message says how it ended, where that needs to be said.
	Message string `json:"message,omitempty"`
	// By is who asked for it, as the audit trail names him.
	By        string      `json:"by"`
	Cause     CommitCause `json:"cause,omitempty"`
	Started   time.Time   `json:"started"`
	Prepared  time.Time   `json:"prepared,omitzero"`
	Committed time.Time   `json:"committed,omitzero"`
	Ended     time.Time   `json:"ended,omitzero"`
	// Dark is the time from the commit on the target until the source said that it forwards; 0 is not known.
	Dark time.Duration `json:"dark,omitempty"`
	// Revision of the transaction that last wrote the record, filled in by the store. 0: it is not in the store yet.
	Revision Revision `json:"-"`
}

// Pending: begun, and neither committed nor aborted.
func (m *Move) Pending() bool { return m.Phase == MovePreparing || m.Phase == MovePrepared }

// Open: something is still to be done about it.
func (m *Move) Open() bool { return m.Pending() || m.Phase == MoveDraining }

// Of reports whether the binding is as the move's phase says.
func (m *Move) Of(b *Binding) bool {
	switch {
	case b == nil:
		return false
	case m.Pending():
		return b.Active == m.From && b.Incoming == m.To
	case m.Phase == MoveDraining:
		return b.Active == m.To && b.Draining == m.From
	}
	return true
}

// The steps of a move, as what they make of a binding:
//
//	prepare  {active a}             -> {active a, incoming h}
//	commit   {active a, incoming h} -> {active h, draining a}
//	abort    {active a, incoming h} -> {active a}
//	drained  {active h, draining a} -> {active h}

// Preparing is the binding with a host that the port is to move to. An earlier move's drain ends by it.
func (b Binding) Preparing(to UID) Binding {
	b.Incoming, b.Draining = to, ""
	return b
}

// Committed is the binding with the incoming host in the place of the active one.
func (b Binding) Committed() Binding {
	b.Active, b.Incoming, b.Draining = b.Incoming, "", b.Active
	return b
}

// Aborted is the binding without the incoming host.
func (b Binding) Aborted() Binding {
	b.Incoming = ""
	return b
}

// Drained is the binding without the draining host.
func (b Binding) Drained() Binding {
	b.Draining = ""
	return b
}

// Unbound is the binding without any host.
func (b Binding) Unbound() Binding {
	b.Active, b.Incoming, b.Draining = "", "", ""
	return b
}

// Without is the binding that a host is taken out of: a port that it has has no place then, one that was to come to it stays where it is.
func (b Binding) Without(host UID) Binding {
	switch host {
	case b.Active:
		return b.Unbound()
	case b.Incoming:
		return b.Aborted()
	case b.Draining:
		return b.Drained()
	}
	return b
}

// Unbound reports on the move of a port that is taken from all its hosts.
func (m Move) Unbound(why string, now time.Time) Move {
	switch {
	case m.Pending():
		return m.End(MoveAborted, why, now)
	case m.Phase == MoveDraining:
		return m.End(MoveDone, why, now)
	}
	return m
}

// End is the move as it ended.
func (m Move) End(phase MovePhase, why string, now time.Time) Move {
	m.Phase, m.Message, m.Ended = phase, why, now
	return m
}
