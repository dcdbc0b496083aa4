package scale

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"connectrpc.com/connect"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/client"
)

const (
	// startPatience bounds the start of a server: it loads and compiles everything.
	startPatience = 5 * time.Minute
	stopPatience  = 30 * time.Second
	askEvery      = 5 * time.Millisecond
)

// server is the process under test.
type server struct {
	binary, dir, address string
	etcd                 []string

	cmd     *exec.Cmd
	ended   <-chan error
	started time.Time
}

// newServer chooses a port on the loopback and keeps it over restarts.
func newServer(cfg Config, dir string) (*server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("choose a port: %w", err)
	}
	defer l.Close()
	return &server{binary: cfg.Binary, dir: dir, address: l.Addr().String(), etcd: cfg.EtcdEndpoints}, nil
}

func (s *server) socket() string  { return filepath.Join(s.dir, "server.sock") }
func (s *server) logFile() string { return filepath.Join(s.dir, "server.log") }

// etcdEndpoints lets this process look into the server's store.
func (s *server) etcdEndpoints() []string {
	if len(s.etcd) > 0 {
		return s.etcd
	}
	return []string{"unix://" + filepath.Join(s.dir, "server", "etcd", "sockets", "client")}
}

// start starts the process and returns at once; ready waits.
func (s *server) start() error {
	out, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	args := []string{"server", "--listen", s.address, "--socket", s.socket(), "--dir", filepath.Join(s.dir, "server")}
	if len(s.etcd) > 0 {
		args = append(args, "--etcd-endpoints", strings.Join(s.etcd, ","))
	}
	cmd := exec.Command(s.binary, args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "WEFT_") })
	s.started = time.Now()
	s.ended, err = launch(cmd, func(f func() error) error {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		return f()
	})
	if err != nil {
		return fmt.Errorf("start the server: %w", err)
	}
	s.cmd = cmd
	return nil
}

// launch starts a process that a killed run takes along: the kernel ties it to the thread that started it, so that one, which on
// provides, waits until the process has ended. The channel then gives its end, to all who ask.
func launch(cmd *exec.Cmd, on func(func() error) error) (<-chan error, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error, 1), make(chan error, 1)
	go func() {
		defer close(ended)
		ran := false
		err := on(func() error {
			if err := cmd.Start(); err != nil {
				return err
			}
			ran = true
			started <- nil
			ended <- cmd.Wait()
			return nil
		})
		if !ran {
			started <- err
		}
	}()
	return ended, <-started
}

// ready waits until the server answers from its store.
func (s *server) ready(ctx context.Context) error {
	c, err := s.local()
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for {
		_, err := c.System.GetStatus(ctx, connect.NewRequest(&weftv1.GetStatusRequest{}))
		if err == nil {
			return nil
		}
		select {
		case end := <-s.ended:
			return fmt.Errorf("the server ended: %v; see %s", end, s.logFile())
		case <-ctx.Done():
			return fmt.Errorf("the server does not answer: %w; see %s", err, s.logFile())
		case <-time.After(askEvery):
		}
	}
}

// stop asks the process to end and waits, or kills it.
func (s *server) stop() error {
	if s.cmd == nil {
		return nil
	}
	defer func() { s.cmd = nil }()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case err := <-s.ended:
		return err
	case <-time.After(stopPatience):
		_ = s.cmd.Process.Kill()
		<-s.ended
		return fmt.Errorf("the server did not stop in %s and was killed", stopPatience)
	}
}

// local is a client on the root-only socket.
func (s *server) local() (*client.Client, error) {
	return client.New(client.Config{Socket: s.socket(), Patience: startPatience})
}

// usage is what a process has used so far.
type usage struct {
	// RSS is in memory now; Files are the part of it that the kernel can drop: pages of files, as of etcd's database.
	RSS, Files int64
	CPU        time.Duration
}

// usageOf reads /proc.
func usageOf(pid int) (u usage, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		n, _ := strconv.ParseInt(f[1], 10, 64)
		switch f[0] {
		case "VmRSS:":
			u.RSS = n << 10
		case "RssFile:":
			u.Files = n << 10
		}
	}
	if b, err = os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err != nil {
		return u, err
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 13 {
		return u, fmt.Errorf("/proc/%d/stat is not what it was", pid)
	}
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	u.CPU = time.Duration(user+system) * time.Second / 100 // USER_HZ is 100 on every architecture that weft runs on
	return u, nil
}

func (s *server) usage() (usage, error) { return usageOf(s.cmd.Process.Pid) }

// heap is what the server's own objects take, after a collection.
func (s *server) heap(ctx context.Context) (int64, error) {
	text, err := s.profile(ctx, "heap?gc=1&debug=1")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "# HeapAlloc = "); ok {
			return strconv.ParseInt(strings.TrimSpace(v), 10, 64)
		}
	}
	return 0, errors.New("the server's heap profile does not say how large it is")
}

// profile fetches one of the server's profiles.
func (s *server) profile(ctx context.Context, what string) ([]byte, error) {
	t := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", s.socket())
	}}
	defer t.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://weft/debug/pprof/"+what, nil)
	if err != nil {
		return nil, err
	}
	res, err := t.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("read the server's profile: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("read the server's profile: %s", res.Status)
	}
	return io.ReadAll(res.Body)
}
