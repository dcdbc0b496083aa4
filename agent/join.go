package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"time"

	"connectrpc.com/connect"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/api/gen/plan/v1/planv1connect"
	"github.com/weftnet/weft/trust"
)

// Join is what an agent does at its first start, and no more: this host's identity, kept in the directory.
func Join(ctx context.Context, cfg Config) (*trust.HostIdentity, error) {
	if len(cfg.Servers) == 0 {
		return nil, errNoServer
	}
	return join(ctx, cfg.withDefaults())
}

// join is this host's identity: the one in the directory, or a new one for the token. A token other than the one it joined
// with says that the identity is worth nothing any more (expired, or the host was removed). It waits for a server as long as the
// context lets it; a refusal is final.
func join(ctx context.Context, cfg Config) (*trust.HostIdentity, error) {
	dir := filepath.Join(cfg.Dir, "identity")
	id, err := trust.LoadHostIdentity(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("load the host's identity: %w", err)
	}
	if err == nil {
		if token, terr := trust.ParseToken(trust.JoinToken, cfg.Token); terr != nil || !token.Supersedes(id) {
			return id, nil
		}
		cfg.Log.Info("the token is a new one: this host joins again", "host", cfg.Name)
	}
	if cfg.Token == "" {
		return nil, fmt.Errorf("this host has not joined: make a token with `weft host token create %s` and give it with --token or WEFT_TOKEN", cfg.Name)
	}
	token, err := trust.ParseToken(trust.JoinToken, cfg.Token)
	if err != nil {
		return nil, fmt.Errorf("join token: %w", err)
	}
	request, err := trust.PrepareJoin(dir)
	if err != nil {
		return nil, fmt.Errorf("prepare to join: %w", err)
	}
	request.Token = token
	pin := trust.PinFingerprint(token.CA)
	for backoff := firstBackoff; ; backoff = min(2*backoff, lastBackoff) {
		for _, server := range cfg.Servers {
			chain, err := joinOnce(ctx, cfg, server, pin, request.CSR)
			switch {
			case err == nil:
				id, err := request.Accept(chain, pin, cfg.Clock())
				if err != nil {
					return nil, fmt.Errorf("join: %w", err)
				}
				cfg.Log.Info("this host has joined", "host", cfg.Name, "uid", id.UID, "server", server)
				return id, nil
			case !goneAway(err) || errors.As(err, new(*foreign)):
				return nil, fmt.Errorf("join: %w", streamError(err, nil))
			}
			cfg.Log.Warn("cannot join yet", "server", server, "err", streamError(err, nil))
		}
		timer := time.NewTimer(backoff/2 + rand.N(backoff))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		case <-timer.C:
		}
	}
}

// foreign is a server that did not prove to be of the token's deployment: no waiting helps.
type foreign struct{ error }

func (f *foreign) Unwrap() error { return f.error }

func joinOnce(ctx context.Context, cfg Config, server string, pin trust.Pin, csr []byte) ([][]byte, error) {
	pinned := pin.TLS(server, cfg.Clock)
	verify := pinned.VerifyConnection
	pinned.VerifyConnection = func(state tls.ConnectionState) error {
		if err := verify(state); err != nil {
			return &foreign{err}
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	hc := httpClient(ctx, pinned)
	defer hc.CloseIdleConnections()
	c := planv1connect.NewAgentServiceClient(hc, "https://"+server)
	res, err := c.Join(ctx, connect.NewRequest(&planv1.JoinRequest{Token: cfg.Token, Host: cfg.Name, Csr: csr}))
	if err != nil {
		return nil, err
	}
	return res.Msg.Certificates, nil
}
