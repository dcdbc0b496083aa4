package agent

import (
	"context"
	"testing"

	"github.com/weftnet/weft/trust"
)

// TestJoinAgain turns red when a new token does not make a host join again, or when the token that it joined with does.
func TestJoinAgain(t *testing.T) {
	ca := testCA(t)
	cfg, first, err := testJoin(t, ca, newTestServer(t, ca).addr)
	if err != nil {
		t.Fatal(err)
	}
	same, err := join(context.Background(), cfg)
	if err != nil || !same.Certificate().Equal(first.Certificate()) {
		t.Errorf("a start with the same token joins again: %v", err)
	}
	token, err := trust.NewToken(trust.JoinToken, ca.Fingerprint())
	if err != nil {
		t.Fatal(err)
	}
	cfg.Token = token.String()
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	again, err := join(ctx, cfg)
	if err != nil || again.Certificate().Equal(first.Certificate()) {
		t.Errorf("a new token changes nothing: %v", err)
	}
}
