package store

import (
	"crypto/tls"
	"log/slog"
	"time"
)

// Config says where the store is. The zero value of a field is its default.
type Config struct {
	// Dir holds the embedded etcd: data, sockets, lock. Made with mode 0700. Used only when Endpoints is empty.
	Dir string
	// Endpoints of an external cluster: "host:port", "http://…", "https://…" or "unix:///…".
	Endpoints []string
	// TLS for the endpoints; nil is plaintext, or the system's roots for an https endpoint.
	TLS *tls.Config
	// QuotaOctets bounds the embedded etcd's file; the default is 8 GiB. An external cluster has its own.
	QuotaOctets int64
	// CompactEvery is how often history is compacted to where it was one period ago, so that a watcher that is behind by
	// less than a period never starts over. The default is 5 minutes; a negative one leaves compaction to somebody else
	// (an external cluster that other programs share).
	CompactEvery time.Duration
	// Prefix of every key; the default is "/weft".
	Prefix string
	// Timeout of one request to etcd; the default is 10 s.
	Timeout time.Duration
	// Log gets what etcd logs too; the default discards it.
	Log *slog.Logger
}

const (
	defaultQuotaOctets  = 8 << 30
	defaultCompactEvery = 5 * time.Minute
	defaultPrefix       = "/weft"
	defaultTimeout      = 10 * time.Second

	// auditLimit is how many audit records are kept.
	auditLimit = 10_000
	// embeddedTxnOps is the embedded etcd's limit of operations in a transaction (etcd's default, which an external
	// cluster most likely has, is 128).
	embeddedTxnOps = 8192
	// requestOctets is etcd's default limit of one request, which the embedded one keeps.
	requestOctets = 3 << 19
	// pageKeys bounds one page of a listing.
	pageKeys = 1000
	// attemptLimit is how often a write that lost a race is decided anew.
	attemptLimit = 64
	// revisionGap is added to the base at a restore, over the highest revision known here and the backup's own: the old
	// store may have lived on after the backup was taken, and its hosts must never see an epoch shrink. 1<<30 is a year
	// of 34 writes a second, and leaves room for eight million restores below 2^53.
	revisionGap = 1 << 30
)

func (c Config) withDefaults() Config {
	if c.QuotaOctets == 0 {
		c.QuotaOctets = defaultQuotaOctets
	}
	if c.CompactEvery == 0 {
		c.CompactEvery = defaultCompactEvery
	}
	if c.Prefix == "" {
		c.Prefix = defaultPrefix
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}
