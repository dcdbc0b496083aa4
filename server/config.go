package server

import (
	"crypto/tls"
	"log/slog"
	"path/filepath"
	"time"
)

// Config is what a server is told at its start. Zero fields take the defaults named beside them.
type Config struct {
	// Listen is the TLS address, ":7348".
	Listen string
	// Advertise is "host:port" at which other servers reach this one; empty: the address it listens on, or this machine's towards the store.
	Advertise string
	// Names are DNS names and addresses for the server's certificate, besides this machine's own.
	Names []string
	// Socket is the path of the root-only socket, "/run/weft/server.sock".
	Socket string
	// Dir holds ca/ and etcd/, "/var/lib/weft/server".
	Dir string
	// EtcdEndpoints name an external cluster; empty: embedded, below Dir.
	EtcdEndpoints []string
	// EtcdTLS is for the external cluster.
	EtcdTLS *tls.Config
	// ReplaceCA lets the server's own CA become the deployment's, though the store knows another one: that one is lost.
	ReplaceCA bool
	// EtcdQuotaOctets and EtcdCompactEvery are the store's own defaults when 0.
	EtcdQuotaOctets  int64
	EtcdCompactEvery time.Duration
	// Version and Commit are of this program.
	Version, Commit string
	Log             *slog.Logger
	// Clock is time.Now.
	Clock func() time.Time
	// Limits that a test or a very large deployment may want different.
	Limits Limits

	// swept is called after each sweep, if a test wants to know of them.
	swept func()
}

// Limits bound what a server spends on a caller. Reaching one is an error to that caller only.
type Limits struct {
	// RequestOctets is the largest message of a caller, 16 MiB: a report of 10,000 ports is about 3 MiB. What is kept of a host's reports is no more either.
	RequestOctets int
	// Unary is how long a request may take, 30 s; waiting for hosts and backups have their own.
	Unary time.Duration
	// Fresh is how long a request waits for what other servers wrote before it, 5 s: longer than a cluster takes to elect a leader.
	Fresh time.Duration
	// Wait is the longest that WaitApplied waits, 10 min.
	Wait time.Duration
	// Hello is how long a new stream may stay silent, 10 s.
	Hello time.Duration
	// Prepare is how long the preparation of a move may take before it is given up, 30 s.
	Prepare time.Duration
	// Peers is how long a preparation waits for hosts of the network that are connected and slow to take the plan, 2 s.
	Peers time.Duration
	// Drain is how long the source of a move forwards late frames, 5 s.
	Drain time.Duration
	// Join is how long senders go on by the old way when all hosts of a network have joined a new group, 5 s: routers need it to bring the group
	// to them.
	Join time.Duration
	// Silent is how long a host must be silent, as this server sees it, before its spec lets it be declared dead, 5 s.
	Silent time.Duration
	// Sweep is how often the server looks for what is due by time, 500 ms.
	Sweep time.Duration
	// Connections on the TLS port, 16384; further ones wait in the backlog.
	Connections int
	// StreamsPerConnection of HTTP/2, 256.
	StreamsPerConnection int
	// Shutdown is how long requests under way may still take, 5 s.
	Shutdown time.Duration
	// Ping is how long a silent connection goes unprobed, 10 s: a host that lost its power is noticed after this and as
	// long again.
	Ping time.Duration
	// Housekeeping is its period, 10 min.
	Housekeeping time.Duration
	// Tombstones is how long a deletion is remembered, 30 days: a host that was away longer is resynchronised whole.
	Tombstones time.Duration
}

func (c Config) withDefaults() Config {
	or(&c.Listen, ":7348")
	or(&c.Socket, "/run/weft/server.sock")
	or(&c.Dir, "/var/lib/weft/server")
	or(&c.Version, "devel")
	or(&c.Limits.RequestOctets, 16<<20)
	or(&c.Limits.Unary, 30*time.Second)
	or(&c.Limits.Fresh, 5*time.Second)
	or(&c.Limits.Wait, 10*time.Minute)
	or(&c.Limits.Hello, 10*time.Second)
	or(&c.Limits.Prepare, 30*time.Second)
	or(&c.Limits.Peers, 2*time.Second)
	or(&c.Limits.Drain, 5*time.Second)
	or(&c.Limits.Join, 5*time.Second)
	or(&c.Limits.Silent, 5*time.Second)
	or(&c.Limits.Sweep, 500*time.Millisecond)
	or(&c.Limits.Connections, 16384)
	or(&c.Limits.StreamsPerConnection, 256)
	or(&c.Limits.Shutdown, 5*time.Second)
	or(&c.Limits.Ping, 10*time.Second)
	or(&c.Limits.Housekeeping, 10*time.Minute)
	or(&c.Limits.Tombstones, 30*24*time.Hour)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.swept == nil {
		c.swept = func() {}
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	return c
}

// or sets what is zero.
func or[T comparable](v *T, fallback T) {
	var zero T
	if *v == zero {
		*v = fallback
	}
}

func (c Config) caDir() string   { return filepath.Join(c.Dir, "ca") }
func (c Config) etcdDir() string { return filepath.Join(c.Dir, "etcd") }
