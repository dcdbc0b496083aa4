package trust

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

const (
	// renewJitter spreads the renewals of hosts that joined together over this part of a lifetime, after half-life.
	renewJitter = Lifetime / 10
	// Retries after a failed renewal begin at firstRetry and double up to lastRetry.
	firstRetry = 10 * time.Second
	lastRetry  = 10 * time.Minute
	// clockCheck bounds each wait, so that a clock that was set, or a machine that slept, is noticed.
	clockCheck = 10 * time.Minute
)

// NextRenewal is when a certificate is to be renewed: half-life and a jitter drawn from the serial number, so that it is the
// same however often one asks; now, when that is past, or when the clock stands before the certificate's life.
func NextRenewal(cert *x509.Certificate, now time.Time) time.Time {
	var b [8]byte
	copy(b[:], tail(cert.SerialNumber.Bytes(), 8))
	jitter := time.Duration(binary.BigEndian.Uint64(b[:]) % uint64(renewJitter))
	next := halfLife(cert).Add(jitter)
	if next.Before(now) || now.Before(cert.NotBefore) {
		return now
	}
	return next
}

func tail(b []byte, n int) []byte { return b[max(0, len(b)-n):] }

// RetryRenewal is how long to wait after so many failures in a row.
func RetryRenewal(failures int) time.Duration {
	wait := firstRetry
	for i := 1; i < failures && wait < lastRetry; i++ {
		wait *= 2
	}
	return min(wait, lastRetry)
}

// RenewerConfig is what a Renewer needs.
type RenewerConfig struct {
	// Dir of the identity's file.
	Dir      string
	Identity *HostIdentity
	// Renew asks a server, over a connection proved with the current identity, and answers with the new chain.
	Renew func(ctx context.Context, csr []byte) ([][]byte, error)
	// Clock is time.Now unless set.
	Clock func() time.Time
	Log   *slog.Logger
}

// Renewer keeps a host's certificate fresh: a new key and a new certificate at half-life, again and again until one
// succeeds. An expired certificate ends it; forwarding goes on.
type Renewer struct {
	cfg RenewerConfig
	id  atomic.Pointer[HostIdentity]
}

// NewRenewer holds the identity; Run renews it.
func NewRenewer(cfg RenewerConfig) *Renewer {
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	r := &Renewer{cfg: cfg}
	r.id.Store(cfg.Identity)
	return r
}

// Identity that is current.
func (r *Renewer) Identity() *HostIdentity { return r.id.Load() }

// ClientTLS is HostIdentity.ClientTLS with whatever identity is current when a connection is made.
func (r *Renewer) ClientTLS(server string) *tls.Config {
	cfg := r.Identity().Pin().TLS(server, r.cfg.Clock)
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		id := r.Identity()
		if err := id.Check(r.cfg.Clock()); err != nil {
			return nil, err
		}
		return &id.cert, nil
	}
	return cfg
}

// Run renews until the context ends (nil) or the certificate expired (the error says what to do).
func (r *Renewer) Run(ctx context.Context) error {
	failures := 0
	var retryAt time.Time
	for {
		now := r.cfg.Clock()
		leaf := r.Identity().Certificate()
		if now.After(leaf.NotAfter) {
			return r.Identity().Check(now)
		}
		due := NextRenewal(leaf, now)
		if due.Before(retryAt) {
			due = retryAt
		}
		if !due.After(now) {
			if err := r.renew(ctx, now); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				failures++
				r.cfg.Log.Warn("the host's certificate could not be renewed", "err", err)
				retryAt = now.Add(RetryRenewal(failures))
			} else {
				failures, retryAt = 0, now.Add(firstRetry)
			}
			continue
		}
		timer := time.NewTimer(min(due.Sub(now), clockCheck))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

func (r *Renewer) renew(ctx context.Context, now time.Time) error {
	old := r.Identity()
	key, csr, err := newCSR()
	if err != nil {
		return err
	}
	chain, err := r.cfg.Renew(ctx, csr)
	if err != nil {
		return err
	}
	id, err := acceptChain(key, chain, old.Pin(), now)
	if err != nil {
		return fmt.Errorf("renew: %w", err)
	}
	if id.UID != old.UID {
		return fmt.Errorf("renew: the server answered with a certificate of host %s, this is %s", id.UID, old.UID)
	}
	id.JoinedWith = old.JoinedWith
	if err := id.save(r.cfg.Dir); err != nil {
		return err
	}
	r.id.Store(id)
	r.cfg.Log.Info("the host's certificate was renewed", "until", id.Certificate().NotAfter)
	return nil
}
