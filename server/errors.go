package server

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/store"
)

// codes maps a kind of refusal to the code that the API promises for it.
var codes = map[model.ErrorKind]connect.Code{
	model.Invalid:         connect.CodeInvalidArgument,
	model.NotFound:        connect.CodeNotFound,
	model.Taken:           connect.CodeAlreadyExists,
	model.Conflict:        connect.CodeFailedPrecondition,
	model.Stale:           connect.CodeAborted,
	model.Busy:            connect.CodeUnavailable,
	model.Exhausted:       connect.CodeResourceExhausted,
	model.Denied:          connect.CodePermissionDenied,
	model.Unauthenticated: connect.CodeUnauthenticated,
}

// toConnect is the only way from an error to the API. Every refusal that is inside err becomes an ErrorDetail, in order;
// the first one decides the code.
func toConnect(err error) error {
	if err == nil {
		return nil
	}
	if ce := new(connect.Error); errors.As(err, &ce) {
		return err
	}
	refusals := refusalsIn(err)
	if len(refusals) == 0 {
		if u := unavailableIn(err); u != nil {
			return u
		}
		switch {
		case errors.Is(err, context.Canceled):
			return connect.NewError(connect.CodeCanceled, err)
		case errors.Is(err, context.DeadlineExceeded):
			return connect.NewError(connect.CodeDeadlineExceeded, err)
		}
		return connect.NewError(faultCode(err), err)
	}
	code, ok := codes[refusals[0].Kind]
	if !ok {
		code = connect.CodeInternal
	}
	ce := connect.NewError(code, err)
	for _, r := range refusals {
		detail, derr := connect.NewErrorDetail(&weftv1.ErrorDetail{Field: r.Field, Reason: r.Reason, Fix: r.Fix})
		if derr == nil {
			ce.AddDetail(detail)
		}
	}
	return ce
}

// unavailableIn is what the API says of a store that gave no answer, or nil: nothing was done, or nobody knows.
func unavailableIn(err error) error {
	var unknown *store.UnknownError
	var unready *unreadyError
	var away *store.UnavailableError
	detail := &weftv1.ErrorDetail{}
	switch {
	case errors.As(err, &unknown):
		detail.Reason, detail.MaybeDone = err.Error(), true
		detail.Fix = "look whether it was done (`weft ... show`) before asking again"
	case errors.As(err, &away), errors.As(err, &unready):
		detail.Reason = "nothing was done: " + err.Error()
		detail.Fix = "try again, or ask another server; forwarding goes on meanwhile"
	default:
		return nil
	}
	ce := connect.NewError(connect.CodeUnavailable, errors.New(detail.Reason))
	if d, derr := connect.NewErrorDetail(detail); derr == nil {
		ce.AddDetail(d)
	}
	return ce
}

// faultCode is for what is nobody's refusal: a store out of reach may answer later, anything else is our mistake.
func faultCode(err error) connect.Code {
	var half *store.InterruptedError
	if errors.As(err, &half) {
		return connect.CodeUnavailable
	}
	return connect.CodeInternal
}

// unreadyError says why there is nothing to answer from.
type unreadyError struct{ cause error }

// Error is the cause, in context.
func (e *unreadyError) Error() string {
	return "the server has nothing to answer from: " + e.cause.Error()
}

// Unwrap is the cause.
func (e *unreadyError) Unwrap() error { return e.cause }

// refusalsIn collects the model errors of a tree of joined and wrapped errors, left to right.
func refusalsIn(err error) []*model.Error {
	switch e := err.(type) {
	case nil:
		return nil
	case *model.Error:
		return []*model.Error{e}
	case interface{ Unwrap() []error }:
		var all []*model.Error
		for _, inner := range e.Unwrap() {
			all = append(all, refusalsIn(inner)...)
		}
		return all
	case interface{ Unwrap() error }:
		return refusalsIn(e.Unwrap())
	}
	return nil
}

// refusal is the first model error inside err, or nil.
func refusal(err error) *model.Error {
	if all := refusalsIn(err); len(all) > 0 {
		return all[0]
	}
	return nil
}

// isKind reports whether the first refusal inside err is of that kind.
func isKind(err error, kind model.ErrorKind) bool {
	r := refusal(err)
	return r != nil && r.Kind == kind
}
