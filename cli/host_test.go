package cli

import (
	"testing"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
)

// Goes red when a listing hides what a degraded host suffers from, or becomes as long as what `host show` says.
func TestBriefConditions(t *testing.T) {
	got := brief([]*weftv1.Condition{{Name: "degraded", Message: "kernel lane blocked: nothing from h1 passes it"}, {Name: "not applied", Message: "x: the table is full"}})
	if want := "degraded: kernel lane blocked; not applied"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	const name = "group not delivered"
	got = brief([]*weftv1.Condition{{Name: name, Message: "h1"}, {Name: "silent"}, {Name: name, Message: "h2"}, {Name: name, Message: "h3"}})
	if want := "group not delivered (3); silent"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
