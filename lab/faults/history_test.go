package faults

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/anishathalye/porcupine"

	"github.com/weftnet/weft/client"
)

// call is what a client asked of one name.
type call struct {
	key  string // "port p1-0", "network n1-0"
	verb string // create, delete, bind, unbind, move, get, list
	// value is the description that a create gives, host where a bind or a move puts the port.
	value, host string
}

// answer is what came back.
type answer struct {
	// code is 0 for success. Unknown is set when nobody knows whether it was done.
	code    connect.Code
	unknown bool
	// what a read saw; value is empty when there was nothing of that name.
	value, host string
}

// state of one name: absent when the value is empty.
type state struct{ value, host string }

// model is what one server that never fails does with one name. Only what a client can rely on is in it: a refusal says what was so.
var model = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		var parts [][]porcupine.Operation
		at := map[string]int{}
		for _, o := range history {
			key := o.Input.(call).key
			i, known := at[key]
			if !known {
				i = len(parts)
				at[key] = i
				parts = append(parts, nil)
			}
			parts[i] = append(parts[i], o)
		}
		return parts
	},
	Init: func() any { return state{} },
	Step: func(s, in, out any) (bool, any) { return step(s.(state), in.(call), out.(answer)) },
	DescribeOperation: func(in, out any) string {
		return fmt.Sprintf("%+v -> %+v", in.(call), out.(answer))
	},
	DescribeState: func(s any) string { return fmt.Sprintf("%+v", s) },
}

// step says whether an answer fits a state, and what the state is then. A call of unknown outcome is open for ever, so that it may be placed
// behind everything else, where it does no harm: it is taken to be done wherever it can be.
func step(s state, in call, out answer) (bool, state) {
	there := s.value != ""
	done, next := false, s
	switch in.verb {
	case "create":
		done, next = !there, state{value: in.value}
	case "delete":
		done, next = there && s.host == "", state{}
	case "bind":
		done, next = there && (s.host == "" || s.host == in.host), state{s.value, in.host}
	case "unbind":
		done, next = there, state{s.value, ""}
	case "move":
		done, next = there && s.host != "", state{s.value, in.host}
	case "get", "list":
		if out.unknown {
			return true, s
		}
		return s == state{out.value, out.host}, s
	}
	switch {
	case out.unknown:
		if done {
			return true, next
		}
		return true, s
	case out.code == 0:
		return done, next
	case out.code == connect.CodeNotFound:
		return !there, s
	case out.code == connect.CodeAlreadyExists:
		return there, s
	case out.code == connect.CodeFailedPrecondition && in.verb != "move":
		return there && !done, s
	}
	// Stale, or a move that could not be prepared, or exhausted: it was not done, and that says nothing of the state.
	return true, s
}

// history is what all clients asked and saw.
type history struct {
	mu  sync.Mutex
	ops []porcupine.Operation
	// began is the zero of its clock, which is monotonic.
	began time.Time
}

func newHistory() *history { return &history{began: time.Now()} }

func (h *history) now() int64 { return int64(time.Since(h.began)) }

// add notes one call. An unknown write never returned; an unknown read says nothing and is left out.
func (h *history) add(client int, in call, called int64, out answer, returned int64) {
	if out.unknown {
		if in.verb == "get" || in.verb == "list" {
			return
		}
		returned = math.MaxInt64
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, porcupine.Operation{ClientId: client, Input: in, Call: called, Output: out, Return: returned})
}

// outcome reads an error as an answer.
func outcome(err error) answer {
	if err == nil {
		return answer{}
	}
	var e *client.Error
	if !errors.As(err, &e) {
		return answer{code: connect.CodeUnknown, unknown: true}
	}
	return answer{code: e.Code, unknown: e.MaybeDone}
}

// worth is the history without what was definitely not done and says nothing of what was there: that would only cost search.
func (h *history) worth() []porcupine.Operation {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(h.ops), func(o porcupine.Operation) bool {
		switch out := o.Output.(answer); out.code {
		case 0, connect.CodeNotFound, connect.CodeAlreadyExists:
			return false
		case connect.CodeFailedPrecondition:
			return o.Input.(call).verb == "move"
		default:
			return !out.unknown
		}
	})
}

// check says whether the history is linearizable; of one that is not, it gives the calls of a name that is not.
func (h *history) check(limit time.Duration) (porcupine.CheckResult, string) {
	ops := h.worth()
	result := porcupine.CheckOperationsTimeout(model, ops, limit)
	if result == porcupine.Ok {
		return result, ""
	}
	for _, part := range model.Partition(ops) {
		if r := porcupine.CheckOperationsTimeout(model, part, limit); r != porcupine.Ok {
			slices.SortFunc(part, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
			text := ""
			for _, o := range part {
				text += fmt.Sprintf("%12d %12d  client %d  %s\n", o.Call/1000, o.Return/1000, o.ClientId, model.DescribeOperation(o.Input, o.Output))
			}
			return r, text
		}
	}
	return result, "no name by itself"
}
