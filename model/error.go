package model

import (
	"errors"
	"fmt"
)

// ErrorKind says what sort of refusal an Error is; the API maps it to a code and the CLI to an exit status.
type ErrorKind string

// The kinds.
const (
	// Invalid: a field is wrong in itself (exit status 2).
	Invalid ErrorKind = "invalid"
	// NotFound: the named object does not exist.
	NotFound ErrorKind = "not found"
	// Taken: a name, VNI, MAC or IP is already used in its scope.
	Taken ErrorKind = "taken"
	// Conflict: the state of other objects forbids it (in use, bound elsewhere, does not fit).
	Conflict ErrorKind = "conflict"
	// Stale: based on a revision or epoch that is not the current one.
	Stale ErrorKind = "stale"
	// Busy: other writers were always first, and nothing was done; it may do if it is asked again.
	Busy ErrorKind = "busy"
	// Exhausted: a pool or a limit is full.
	Exhausted ErrorKind = "exhausted"
	// Denied: the credential does not allow it.
	Denied ErrorKind = "denied"
	// Unauthenticated: there is no valid credential.
	Unauthenticated ErrorKind = "unauthenticated"
)

// Error is a refusal that a user can act upon: which field, why, and what to do.
type Error struct {
	Kind ErrorKind
	// Field as the API names it: "spec.subnets[1]", "name".
	Field string
	// Reason is a sentence without capital and full stop: "VNI 0 is outside 1..16777215".
	Reason string
	// Fix is what to do next, often a command: "choose another, or leave it out to have one allocated".
	Fix string
}

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

// Errorf makes an Error of a kind about a field.
func Errorf(kind ErrorKind, field, fix, format string, args ...any) *Error {
	return &Error{Kind: kind, Field: field, Fix: fix, Reason: fmt.Sprintf(format, args...)}
}

// Errors lists the refusals in err, which may be one or several joined; none if err is something else.
func Errors(err error) []*Error {
	switch e := err.(type) {
	case nil:
		return nil
	case *Error:
		return []*Error{e}
	case interface{ Unwrap() []error }:
		var all []*Error
		for _, one := range e.Unwrap() {
			all = append(all, Errors(one)...)
		}
		return all
	}
	return Errors(errors.Unwrap(err))
}

// refusals collects what is wrong with an object, so that a user can mend everything at once.
type refusals []error

func (r *refusals) add(e *Error) {
	if e != nil {
		*r = append(*r, e)
	}
}

// err is nil, the one refusal, or all of them joined.
func (r refusals) err() error {
	if len(r) == 1 {
		return r[0]
	}
	return errors.Join(r...)
}

// Counted is "1 port", "2 ports", for messages.
func Counted[N ~int | ~int64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
