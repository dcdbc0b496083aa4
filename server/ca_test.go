package server

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/weftnet/weft/store"
)

// TestStoreThatIsAwayAtTheStart: a server that starts asks a store which does not answer again, and no other error; it gives up some time. Red when
// patiently asks once: two servers killed beside a busy etcd then ended for good.
func TestStoreThatIsAwayAtTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		away, asked := &store.UnavailableError{Err: context.DeadlineExceeded}, 0
		answer, err := patiently(t.Context(), func() (string, error) {
			if asked++; asked < 4 {
				return "", away
			}
			return "fingerprint", nil
		})
		if answer != "fingerprint" || err != nil || asked != 4 {
			t.Errorf("%q, %v after %d tries", answer, err, asked)
		}
		other := errors.New("no store of weft's")
		asked = 0
		if _, err := patiently(t.Context(), func() (string, error) { asked++; return "", other }); !errors.Is(err, other) || asked != 1 {
			t.Errorf("%v after %d tries", err, asked)
		}
		if _, err := patiently(t.Context(), func() (string, error) { return "", away }); !errors.Is(err, away) {
			t.Errorf("in the end: %v", err)
		}
	})
}
