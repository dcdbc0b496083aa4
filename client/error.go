package client

import (
	"errors"
	"io"
	"strings"
	"syscall"

	"connectrpc.com/connect"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/trust"
)

// Error is a refusal or a failure, as the server explained it.
type Error struct {
	Code connect.Code
	// Field as the API names it, or empty.
	Field string
	// Reason is a sentence without capital and full stop.
	Reason string
	// Fix is what to do next, or empty.
	Fix string
	// MaybeDone: it is not known whether the request was done; look before asking again.
	MaybeDone bool
	// Also are further refusals of the same request.
	Also []Refusal

	err error
}

// codes of refusals that never went over a wire.
var codes = map[trust.ErrorKind]connect.Code{
	"invalid": connect.CodeInvalidArgument, "not found": connect.CodeNotFound, "taken": connect.CodeAlreadyExists,
	"conflict": connect.CodeFailedPrecondition, "stale": connect.CodeAborted, "exhausted": connect.CodeResourceExhausted,
	"denied": connect.CodePermissionDenied, "unauthenticated": connect.CodeUnauthenticated,
}

// Refusal is one of several things that are wrong.
type Refusal struct{ Field, Reason, Fix string }

// Error is "field: reason; fix".
func (e *Error) Error() string {
	s := e.Reason
	if e.Field != "" {
		s = e.Field + ": " + s
	}
	if e.Fix != "" {
		s += "; " + e.Fix
	}
	return s
}

// Unwrap gives the error of the transport.
func (e *Error) Unwrap() error { return e.err }

// Explain makes an *Error of any error of a call; nil stays nil.
func Explain(err error) *Error {
	if err == nil {
		return nil
	}
	var done *Error
	if errors.As(err, &done) {
		return done
	}
	e := &Error{Code: connect.CodeOf(err), Reason: err.Error(), err: err}
	var unreachable *Unreachable
	var refusal *trust.Error
	switch {
	case errors.As(err, &unreachable):
		e.Code, e.Field, e.Reason, e.Fix = connect.CodeUnavailable, unreachable.What, unreachable.Error(), unreachable.Fix()
		return e
	case errors.As(err, &refusal):
		if code, ok := codes[refusal.Kind]; ok {
			e.Code = code
		}
		e.Field, e.Reason, e.Fix = refusal.Field, refusal.Reason, refusal.Fix
		for i, more := range trust.Errors(err) {
			if i > 0 {
				e.Also = append(e.Also, Refusal{Field: more.Field, Reason: more.Reason, Fix: more.Fix})
			}
		}
		return e
	}
	var ce *connect.Error
	if !errors.As(err, &ce) {
		return e
	}
	e.Reason = ce.Message()
	e.MaybeDone = maybeDone(ce)
	if refusals := refusalsIn(ce); len(refusals) > 0 {
		e.Field, e.Reason, e.Fix = refusals[0].Field, refusals[0].Reason, refusals[0].Fix
		e.Also = refusals[1:]
	} else if !connect.IsWireError(err) && brokeOff(err) {
		e.Code, e.Reason = connect.CodeUnavailable, "the connection broke off before the answer"
		e.Fix, e.MaybeDone = "look whether it was done before asking again", true
	} else if connect.IsWireError(err) {
		// The agent knows no ErrorDetail: its messages have the form of Error.Error.
		e.Reason, e.Fix, _ = strings.Cut(e.Reason, "; ")
	}
	return e
}

// maybeDone reports whether an error leaves it open what became of the request: the server says so, or did not say anything.
func maybeDone(ce *connect.Error) bool {
	switch ce.Code() {
	case connect.CodeUnavailable, connect.CodeDeadlineExceeded, connect.CodeCanceled, connect.CodeUnknown, connect.CodeInternal, connect.CodeDataLoss:
	default:
		return false
	}
	details := detailsIn(ce)
	if len(details) == 0 { // a server that has nothing to add to "unavailable" did nothing
		return ce.Code() != connect.CodeUnavailable || !connect.IsWireError(ce)
	}
	return details[0].GetMaybeDone()
}

func refusalsIn(ce *connect.Error) []Refusal {
	var all []Refusal
	for _, detail := range detailsIn(ce) {
		all = append(all, Refusal{Field: detail.GetField(), Reason: detail.GetReason(), Fix: detail.GetFix()})
	}
	return all
}

func detailsIn(ce *connect.Error) []*weftv1.ErrorDetail {
	var all []*weftv1.ErrorDetail
	for _, d := range ce.Details() {
		v, err := d.Value()
		if err != nil {
			continue
		}
		if detail, ok := v.(*weftv1.ErrorDetail); ok {
			all = append(all, detail)
		}
	}
	return all
}

// brokeOff reports a connection that ended before the answer.
func brokeOff(err error) bool {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return true
	}
	// HTTP/2's own errors are not exported.
	s := err.Error()
	return strings.Contains(s, "EOF") || strings.Contains(s, "connection reset") || strings.Contains(s, "GOAWAY") ||
		strings.Contains(s, "stream error")
}
