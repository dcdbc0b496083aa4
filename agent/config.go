package agent

import (
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/wire"
)

// Config is what an agent must be told. Zero fields take the defaults named.
type Config struct {
	// Name of the host, as its join token says.
	Name string
	// Servers are tried in turn, "host:port".
	Servers []string
	// Token is needed until the host has joined, and ignored afterwards.
	Token string
	// Dir keeps identity, snapshot and attachments: /var/lib/weft/agent.
	Dir string
	// Socket is the local API: /run/weft/agent.sock.
	Socket string
	// Instance tells several agents on one kernel apart: "default". Interfaces are marked with it.
	Instance string
	// PinRoot is where the datapath lives: /sys/fs/bpf/weft/<instance>.
	PinRoot string
	// Uplink is the underlay interface; empty: the one of the VTEP address, or of the route to the server.
	Uplink string
	// XDP attaches XDP programs to the uplinks, before the others. An uplink whose driver takes none ends Run.
	XDP bool
	// VTEPAddress is the end of this host's tunnels; invalid: the uplink's.
	VTEPAddress netip.Addr
	// UDPPort of the tunnels: 4789.
	UDPPort uint16
	// AcceptLoss takes a plan in that removes most of what is held and does not say which revisions did: the operator's word,
	// after a restore of an old backup or with a store that begins anew.
	AcceptLoss bool
	// Limits of the kernel's tables; datapath.DefaultLimits.
	Limits datapath.Limits
	// Version of this program, for the server and for messages.
	Version string
	Log     *slog.Logger
	// Clock is time.Now.
	Clock func() time.Time

	// ReportEvery: 3 s. Reports on change come besides, at most one in 100 ms.
	ReportEvery time.Duration
	// AuditEvery: 60 s. The kernel's tables are read and compared with the plan.
	AuditEvery time.Duration
	// ProbeEvery: 30 s. The kernel lane is proved to every host.
	ProbeEvery time.Duration
	// BindTimeout: 10 s. An attachment waits so long for the plan to bring what was bound.
	BindTimeout time.Duration
}

// Times that nobody needs to set.
const (
	// snapshotDelay collects changes of the plan into one file; what a port's place depends on is written at once.
	snapshotDelay = 500 * time.Millisecond
	// reportDelay collects changes into one report.
	reportDelay = 100 * time.Millisecond
	// uplinkDelay collects route and address events.
	uplinkDelay = 50 * time.Millisecond
	// retryEvery tries again what did not fit or failed.
	retryEvery = 2 * time.Second
)

func (c Config) withDefaults() Config {
	set := func(p *string, v string) {
		if *p == "" {
			*p = v
		}
	}
	wait := func(p *time.Duration, v time.Duration) {
		if *p == 0 {
			*p = v
		}
	}
	set(&c.Dir, "/var/lib/weft/agent")
	set(&c.Socket, "/run/weft/agent.sock")
	set(&c.Instance, "default")
	set(&c.PinRoot, filepath.Join("/sys/fs/bpf/weft", c.Instance))
	set(&c.Version, "unknown")
	wait(&c.ReportEvery, 3*time.Second)
	wait(&c.AuditEvery, time.Minute)
	wait(&c.ProbeEvery, 30*time.Second)
	wait(&c.BindTimeout, 10*time.Second)
	if c.UDPPort == 0 {
		c.UDPPort = wire.VXLANPort
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	return c
}

// errNoServer is the refusal of an agent that is to ask one.
var errNoServer = errors.New("no server is given: say --server HOST:PORT or set WEFT_SERVER")
