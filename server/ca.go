package server

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/weftnet/weft/store"
	"github.com/weftnet/weft/trust"
)

// openCA reads the CA that all servers of the deployment share, or makes it at the first start of the first one. The store knows its
// fingerprint, so that a server which was not given the CA, or was given another one, does not start: it would split the deployment into
// hosts that believe one server and hosts that believe the other.
func openCA(ctx context.Context, cfg Config, st *store.Store) (*trust.CA, error) {
	known, err := patiently(ctx, func() (string, error) { return st.CA(ctx) })
	if err != nil {
		return nil, fmt.Errorf("ask the store for the CA's fingerprint: %w", err)
	}
	if known != "" && !cfg.ReplaceCA && !trust.HasCA(cfg.caDir()) {
		return nil, fmt.Errorf("this deployment has a CA (%s), and there is none in %s: %s", known, cfg.caDir(), copyCA(cfg))
	}
	ca, err := trust.OpenCA(cfg.caDir(), cfg.Clock())
	if err != nil {
		return nil, fmt.Errorf("open the CA: %w", err)
	}
	own := ca.Fingerprint().String()
	if known == "" || known != own && cfg.ReplaceCA {
		if known != "" {
			cfg.Log.Warn("the deployment's CA is replaced: every host and every client must join again", "was", known, "is", own)
		}
		was := known
		if known, err = patiently(ctx, func() (string, error) { return st.ClaimCA(ctx, was, own) }); err != nil {
			return nil, fmt.Errorf("tell the store the CA's fingerprint: %w", err)
		}
	}
	if known != own {
		return nil, fmt.Errorf("the CA in %s is %s, and that of this deployment is %s: move it away, and %s", cfg.caDir(), own, known, copyCA(cfg))
	}
	return ca, nil
}

// startPatience is how long a server that starts waits for a store which does not answer: the cluster may be starting with it, or choosing a leader.
const startPatience = 30 * time.Second

// patiently asks the store again for as long as it does not answer. What is asked may be asked twice.
func patiently[T any](ctx context.Context, ask func() (T, error)) (answer T, err error) {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for {
		answer, err = ask()
		var away *store.UnavailableError
		if !errors.As(err, &away) {
			return answer, err
		}
		select {
		case <-ctx.Done():
			return answer, err
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func copyCA(cfg Config) string {
	return fmt.Sprintf("copy ca/ca.pem from the directory of one of its servers to %s (mode 600); if no server has it any more, start with --replace-ca, after which every host and client must join again",
		filepath.Join(cfg.caDir(), "ca.pem"))
}
