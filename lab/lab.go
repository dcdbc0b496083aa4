package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/weftnet/weft/client"
	"github.com/weftnet/weft/datapath/netdev"
)

// Lab is one that is up. Its methods may be called at the same time; several processes may have it open.
type Lab struct {
	cfg    Config
	client *client.Client

	mu    sync.Mutex
	state State
	nodes map[string]*netdev.Handle
	// ended tells of processes that this process started, and that ended.
	ended chan endedProcess
	// waits for the goroutines that reap them.
	reapers sync.WaitGroup
}

type endedProcess struct {
	name string
	p    Process
	err  error
	// lived is how long it ran.
	lived time.Duration
}

// Up builds a lab and waits until every host is ready. On an error what was made is taken away again. A lab that is there
// already is an error.
func Up(ctx context.Context, cfg Config) (*Lab, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if cfg.Multicast {
		if _, err := frr(); err != nil {
			return nil, err
		}
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("a lab is made of network namespaces, and that needs root: run it with sudo")
	}
	l := &Lab{cfg: cfg, state: cfg.plan(), ended: make(chan endedProcess, 1024)}
	if err := createState(cfg.statePath(), l.state); errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("a lab is up already, or was left half built (%s is there): see it with `weft lab status`, take it away with `weft lab down%s`",
			cfg.statePath(), cfg.flag())
	} else if err != nil {
		return nil, fmt.Errorf("record the lab: %w", err)
	}
	if err := l.build(ctx); err != nil {
		l.close()
		return nil, errors.Join(err, Down(context.WithoutCancel(ctx), cfg))
	}
	return l, nil
}

func (l *Lab) build(ctx context.Context) error {
	if err := l.cfg.refuseForeign(); err != nil {
		return err
	}
	switch {
	case l.cfg.Direct:
		l.cfg.Step("making 2 hosts, joined by one link")
	case l.cfg.Flat:
		l.cfg.Step(fmt.Sprintf("making %d hosts on one switch", l.cfg.Hosts))
	default:
		l.cfg.Step(fmt.Sprintf("making %d hosts, %d leaves and %d spines", l.cfg.Hosts, l.cfg.Hosts, l.cfg.Spines))
	}
	if err := l.raiseBacklog(); err != nil {
		return err
	}
	t := topology{cfg: l.cfg}
	err := t.build()
	l.mu.Lock()
	l.nodes = t.nodes
	l.mu.Unlock()
	if err != nil {
		return err
	}
	if !l.cfg.Bare {
		if err := l.startAll(ctx); err != nil {
			return err
		}
	}
	return l.update(func(s *State) error { s.Ready = true; return nil })
}

// plan is the State before anything is made.
func (c Config) plan() State {
	s := State{Name: c.Name, Prefix: c.Prefix, Dir: c.Dir, PinRoot: c.PinRoot, Binary: c.Binary, Spines: c.Spines, Direct: c.Direct, Flat: c.Flat, Underlay: c.Underlay, Uplinks: c.Uplinks, FindVTEP: c.FindVTEP, UDPPort: c.UDPPort, MTU: c.MTU, Tables: c.Tables, XDP: c.XDP,
		Routers: c.routers(), ServerSocket: c.serverSocket()}
	for i := 1; i <= c.Hosts; i++ {
		h := hostName(i)
		s.Hosts = append(s.Hosts, Host{Name: h, Namespace: c.namespace(h), VTEPAddress: c.vtepAddr(i).String(),
			AgentSocket: c.agentSocket(h), PinRoot: filepath.Join(c.PinRoot, h)})
	}
	return s
}

// flag is how a command names this lab.
func (c Config) flag() string {
	if c.Name == "" {
		return ""
	}
	return " --name " + c.Name
}

// refuseForeign stops before anything is made if a namespace of that name is there: it is somebody's.
func (c Config) refuseForeign() error {
	for _, n := range c.infrastructure() {
		if netdev.NamespaceExists(c.namespace(n)) {
			return fmt.Errorf("the network namespace %s is there already: delete it (`ip netns del %[1]s`), or build the lab under another name with --name", c.namespace(n))
		}
	}
	return nil
}

const (
	backlogPath = "/proc/sys/net/core/netdev_max_backlog"
	// backlog of packets a CPU may have waiting between two veths. The machine's 1,000 are shared by all namespaces, and a
	// flood to a few workloads overflows them.
	backlog = 10000
)

// raiseBacklog raises the one setting that no namespace has of its own. Down puts it back.
func (l *Lab) raiseBacklog() error {
	b, err := os.ReadFile(backlogPath)
	if err != nil {
		return fmt.Errorf("read net.core.netdev_max_backlog: %w", err)
	}
	was, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || was >= backlog {
		return err
	}
	if err := l.update(func(s *State) error { s.Backlog = was; return nil }); err != nil {
		return err
	}
	if err := os.WriteFile(backlogPath, []byte(strconv.Itoa(backlog)), 0); err != nil {
		return fmt.Errorf("set net.core.netdev_max_backlog: %w", err)
	}
	return nil
}

// Open finds a running lab by name; empty is the default one.
func Open(name string) (*Lab, error) {
	return OpenConfig(Config{Name: name})
}

// OpenConfig finds a running lab by its Config's Name and Dir.
func OpenConfig(cfg Config) (*Lab, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s, err := readState(cfg.statePath())
	if err != nil {
		return nil, err
	}
	if !s.Ready {
		return nil, fmt.Errorf("the lab in %s is being built, or was left half built: wait, or take it away with `weft lab down%s`", cfg.Dir, cfg.flag())
	}
	was := s.config()
	was.Log, was.Step = cfg.Log, cfg.Step
	return &Lab{cfg: was, state: s, ended: make(chan endedProcess, 1024)}, nil
}

// Close lets go of the lab without taking it away.
func (l *Lab) Close() { l.close() }

func (l *Lab) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range l.nodes {
		h.Close()
	}
	l.nodes = nil
	if l.client != nil {
		l.client.Close()
		l.client = nil
	}
}

// Down takes the lab away, and waits for what this process started.
func (l *Lab) Down(ctx context.Context) error {
	l.close()
	err := Down(ctx, l.cfg)
	l.reapers.Wait()
	return err
}

// State is what the lab consists of now.
func (l *Lab) State() (State, error) {
	s, err := readState(l.cfg.statePath())
	if err != nil {
		return s, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state = s
	return s, nil
}

func (l *Lab) update(change func(*State) error) error {
	s, err := updateState(l.cfg.statePath(), change)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state = s
	return nil
}

// Node gives the namespace of a host, leaf, spine, the server or a workload by its short name. It stays open until the lab is
// closed.
func (l *Lab) Node(name string) (*netdev.Handle, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h := l.nodes[name]; h != nil {
		return h, nil
	}
	h, err := netdev.OpenName(l.cfg.namespace(name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s is nothing in the lab: see `weft lab status`", name)
	}
	if err != nil {
		return nil, err
	}
	if l.nodes == nil {
		l.nodes = map[string]*netdev.Handle{}
	}
	l.nodes[name] = h
	return h, nil
}

// forget closes a node's handle, so that its namespace can go.
func (l *Lab) forget(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h := l.nodes[name]; h != nil {
		h.Close()
		delete(l.nodes, name)
	}
}

// Client speaks to the lab's server as root. It is the lab's own: do not close it.
func (l *Lab) Client() (*client.Client, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.client == nil {
		c, err := client.New(client.Config{Socket: l.cfg.serverSocket()})
		if err != nil {
			return nil, err
		}
		l.client = c
	}
	return l.client, nil
}
