package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// embedded is an etcd of our own: one member, in this process, on unix sockets in a directory that only root can enter.
// It listens on no TCP port.
type embedded struct {
	etcd *embed.Etcd
	lock *os.File
	// sockets is the open socket directory. Its sockets are addressed as /proc/self/fd/N/…, so that a long Dir does not
	// run into the 107 characters of a unix socket's address.
	sockets  *os.File
	endpoint string
	// closing: what etcd then logs as errors are its listeners ending.
	closing atomic.Bool
}

// etcdChatter are warnings about what is meant to be so: one socket that nobody but this process can reach.
var etcdChatter = []string{
	"Running http and grpc server on single port. This is not recommended for production.",
	"simple token is not cryptographically signed",
}

// FileOctets is the size of the embedded etcd's database file: history and free pages included. 0: there is none here, or none yet.
func (c Config) FileOctets() int64 {
	if len(c.Endpoints) > 0 {
		return 0
	}
	info, err := os.Stat(filepath.Join(c.Dir, "data", "member", "snap", "db"))
	if err != nil {
		return 0
	}
	return info.Size()
}

func startEmbedded(ctx context.Context, cfg Config) (_ *embedded, err error) {
	if cfg.Dir == "" {
		return nil, errors.New("open store: neither a directory nor endpoints are given")
	}
	e := &embedded{}
	defer func() {
		if err != nil {
			e.close()
		}
	}()
	data, sockets := filepath.Join(cfg.Dir, "data"), filepath.Join(cfg.Dir, "sockets")
	for _, dir := range []string{cfg.Dir, data, sockets} {
		if err := privateDir(dir); err != nil {
			return nil, fmt.Errorf("open store: %w", err)
		}
	}
	if e.lock, err = lockDir(cfg.Dir); err != nil {
		return nil, err
	}
	if e.sockets, err = os.Open(sockets); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	ec, err := e.config(cfg, data)
	if err != nil {
		return nil, err
	}
	if e.etcd, err = embed.StartEtcd(ec); err != nil {
		return nil, fmt.Errorf("start embedded etcd in %s: %w", cfg.Dir, err)
	}
	select {
	case <-e.etcd.Server.ReadyNotify():
		return e, nil
	case err := <-e.etcd.Err():
		return nil, fmt.Errorf("start embedded etcd in %s: %w", cfg.Dir, err)
	case <-ctx.Done():
		return nil, fmt.Errorf("start embedded etcd in %s: %w", cfg.Dir, context.Cause(ctx))
	}
}

func (e *embedded) config(cfg Config, data string) (*embed.Config, error) {
	// etcd listens for peers on the URL's host alone. A path there would leave that empty, and Linux then binds an abstract
	// socket, which has no permissions.
	socket := func(name string) url.URL {
		return url.URL{Scheme: "unix", Host: fmt.Sprintf("/proc/self/fd/%d/%s", e.sockets.Fd(), name)}
	}
	client, peer := socket("client"), socket("peer")
	e.endpoint = "unix://" + client.Host
	// What is advertised is kept in the data; nobody ever dials it.
	advertised := url.URL{Scheme: "unix", Path: "/weft/embedded"}

	ec := embed.NewConfig()
	ec.Name = "weft"
	ec.Dir = data
	ec.ListenClientUrls, ec.AdvertiseClientUrls = []url.URL{client}, []url.URL{advertised}
	ec.ListenPeerUrls, ec.AdvertisePeerUrls = []url.URL{peer}, []url.URL{advertised}
	ec.InitialCluster = ec.InitialClusterFromName(ec.Name)
	// There is nobody else to elect, so a start need not wait long for an election.
	ec.TickMs, ec.ElectionMs = 25, 250
	// Nor does anybody have to catch up: what is in the database need not be kept as a log in memory, or be read again at a start.
	ec.SnapshotCount, ec.SnapshotCatchUpEntries = 1000, 100
	ec.QuotaBackendBytes = cfg.QuotaOctets
	ec.MaxTxnOps = embeddedTxnOps
	ec.MaxRequestBytes = requestOctets
	ec.EnableGRPCGateway = false
	ec.LogLevel = "info"
	ec.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(slogCore{
		log: cfg.Log.With(slog.String("part", "etcd")), chatter: etcdChatter, quiet: &e.closing,
	}))
	return ec, nil
}

// close stops etcd first and gives the lock back last. Closing twice is fine.
func (e *embedded) close() {
	e.closing.Store(true)
	if e.etcd != nil {
		e.etcd.Close()
		e.etcd = nil
	}
	for _, f := range []**os.File{&e.sockets, &e.lock} {
		if *f != nil {
			(*f).Close()
			*f = nil
		}
	}
}

// privateDir makes a directory that only its owner can enter, or makes an existing one so.
func privateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.Chmod(dir, 0o700)
}

// lockDir takes the directory for this process. The kernel gives the lock back however the process ends.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		by := make([]byte, 32)
		n, _ := f.ReadAt(by, 0)
		return nil, &InUseError{Dir: dir, PID: strings.TrimSpace(string(by[:n]))}
	}
	if err := f.Truncate(0); err == nil {
		_, err = fmt.Fprintf(f, "%d\n", os.Getpid())
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
	}
	return f, nil
}
