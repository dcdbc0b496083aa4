package store

import (
	"errors"
	"strings"
	"testing"

	"github.com/weftnet/weft/model"
)

// refused checks that an error is a refusal of a kind, about a field, whose text has a part.
func refused(t testing.TB, err error, kind model.ErrorKind, field, part string) {
	t.Helper()
	var e *model.Error
	if !errors.As(err, &e) {
		t.Fatalf("want a refusal (%s %s), got %v", kind, field, err)
	}
	if e.Kind != kind || e.Field != field || !strings.Contains(e.Error(), part) {
		t.Fatalf("want %s about %q with %q, got %s about %q: %v", kind, field, part, e.Kind, e.Field, e)
	}
	if e.Fix == "" {
		t.Fatalf("no fix: %v", e)
	}
}
