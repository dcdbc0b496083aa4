package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"connectrpc.com/connect"

	"github.com/weftnet/weft/client"
)

// failure is an error with the exit status it asks for.
type failure struct {
	status             int
	field, reason, fix string
}

func (f *failure) Error() string {
	if f.field != "" {
		return f.field + ": " + f.reason
	}
	return f.reason
}

// usagef is a mistake in the command line.
func usagef(field, fix, format string, args ...any) error {
	return &failure{status: exitUsage, field: field, fix: fix, reason: fmt.Sprintf(format, args...)}
}

// refusef is something that cannot be done.
func refusef(field, fix, format string, args ...any) error {
	return &failure{status: exitRefused, field: field, fix: fix, reason: fmt.Sprintf(format, args...)}
}

// errSaid ends a command whose errors were written already.
type errSaid struct{ status int }

func (errSaid) Error() string { return "some of it failed" }

// fail writes an error and returns the exit status.
func (a *app) fail(err error) int {
	var said errSaid
	if errors.As(err, &said) {
		return said.status
	}
	status, lines := explain(err)
	for _, l := range lines {
		a.sayError("", l)
	}
	return status
}

// sayError writes "error: field: reason" and the fix in a line of its own.
func (a *app) sayError(prefix string, f failure) {
	word := "error:"
	if a.colour(a.deps.Stderr) {
		word = paint(red, word)
	}
	fmt.Fprintf(a.deps.Stderr, "%s %s%s\n", word, prefix, f.Error())
	if f.fix != "" {
		fmt.Fprintf(a.deps.Stderr, "  fix: %s\n", f.fix)
	}
}

// explain takes an error apart: the exit status and what to say, most important first.
func explain(err error) (int, []failure) {
	var f *failure
	if errors.As(err, &f) {
		return f.status, []failure{*f}
	}
	if errors.Is(err, context.Canceled) {
		return exitRefused, []failure{{reason: "interrupted"}}
	}
	e := client.Explain(err)
	status := exitRefused
	if e.Code == connect.CodeInvalidArgument {
		status = exitUsage
	}
	reason := e.Reason
	if !fromServer(err) {
		reason = err.Error()
	}
	all := []failure{{status: status, field: e.Field, reason: reason, fix: e.Fix}}
	for _, more := range e.Also {
		all = append(all, failure{status: status, field: more.Field, reason: more.Reason, fix: more.Fix})
	}
	return status, all
}

// fromServer reports an error that client explains better than its own text: one of a call, or a refusal with a field.
func fromServer(err error) bool {
	var e *client.Error
	var c *connect.Error
	if errors.As(err, &e) || errors.As(err, &c) {
		return true
	}
	said := client.Explain(err)
	return said.Field != "" || said.Fix != ""
}

// isCode reports an answer with that code.
func isCode(err error, code connect.Code) bool {
	var e *client.Error
	return errors.As(err, &e) && e.Code == code
}

// orNone is a list for people.
func orNone(list []string) string {
	if len(list) == 0 {
		return "-"
	}
	return strings.Join(list, ", ")
}
