package lab

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/client"
	"github.com/weftnet/weft/datapath/netdev"
)

const (
	serverPort = "7348"
	// readiness is how long the server and the hosts may take on a slow machine.
	readiness = 90 * time.Second
	// joinLifetime of a join token: the agent uses it at once.
	joinLifetime = 10 * time.Minute
)

// startAll starts the server, then every agent, and waits until all are ready.
func (l *Lab) startAll(ctx context.Context) error {
	if l.cfg.Multicast {
		l.cfg.Step(fmt.Sprintf("starting pimd and zebra on %d leaves and spines", len(l.cfg.routers())))
		if err := l.startRouters(ctx); err != nil {
			return err
		}
	}
	l.cfg.Step("starting the server")
	if err := l.StartServer(ctx); err != nil {
		return err
	}
	l.cfg.Step(fmt.Sprintf("starting %d agents, each with a join token of its own", l.cfg.Hosts))
	for i := 1; i <= l.cfg.Hosts; i++ {
		c, err := l.Client()
		if err != nil {
			return err
		}
		res, err := c.Hosts.CreateHostToken(ctx, connect.NewRequest(&weftv1.CreateHostTokenRequest{Host: hostName(i), Lifetime: durationpb.New(joinLifetime)}))
		if err != nil {
			return fmt.Errorf("make a join token for %s: %w", hostName(i), err)
		}
		if err := l.startAgent(hostName(i), res.Msg.GetToken()); err != nil {
			return err
		}
	}
	l.cfg.Step("waiting until every host is ready")
	if err := l.WaitReady(ctx); err != nil || !l.cfg.Multicast {
		return err
	}
	l.cfg.Step("waiting until leaves and spines are PIM neighbours")
	return l.waitRouters(ctx)
}

// StartServer starts the server and waits until it answers.
func (l *Lab) StartServer(ctx context.Context) error {
	err := l.startWeft("server", nil, "server", "--dir", filepath.Join(l.cfg.Dir, "server", "data"), "--socket", l.cfg.serverSocket(),
		"--listen", net.JoinHostPort(serverAddr.String(), serverPort), "--tls-name", serverAddr.String())
	if err != nil {
		return err
	}
	return l.await(ctx, "the server answers", "server", func(ctx context.Context) (bool, error) {
		c, err := l.Client()
		if err != nil {
			return false, err
		}
		_, err = c.System.GetStatus(ctx, connect.NewRequest(&weftv1.GetStatusRequest{}))
		return err == nil, err
	})
}

// StopServer ends the server as a service manager would; KillServer as a crash would. Both wait until it is gone.
func (l *Lab) StopServer(ctx context.Context) error { return l.end(ctx, "server", false) }

// KillServer ends the server by SIGKILL and waits until it is gone.
func (l *Lab) KillServer(ctx context.Context) error { return l.end(ctx, "server", true) }

// StartAgent starts the agent of a host that has joined before. It does not wait for it.
func (l *Lab) StartAgent(host string) error { return l.startAgent(host, "") }

// StopAgent ends an agent as a service manager would; KillAgent as a crash would. Both wait until it is gone.
func (l *Lab) StopAgent(ctx context.Context, host string) error { return l.end(ctx, host, false) }

// KillAgent ends an agent by SIGKILL and waits until it is gone.
func (l *Lab) KillAgent(ctx context.Context, host string) error { return l.end(ctx, host, true) }

// AgentDir is where an agent keeps what it must not forget; AgentLog is the file of what it says.
func (l *Lab) AgentDir(host string) string { return filepath.Join(l.cfg.Dir, host, "data") }

// AgentLog is the file of what an agent says.
func (l *Lab) AgentLog(host string) string { return l.cfg.log(host) }

func (l *Lab) startAgent(host, token string) error {
	l.mu.Lock()
	h, ok := l.state.Host(host)
	l.mu.Unlock()
	if !ok {
		return fmt.Errorf("%s is no host of the lab: see `weft lab status`", host)
	}
	args := []string{"agent", "--name", host, "--server", net.JoinHostPort(serverAddr.String(), serverPort),
		"--dir", l.AgentDir(host), "--socket", h.AgentSocket, "--pin-root", h.PinRoot,
		"--instance", "lab-" + host, "--uplink", strings.Join(l.cfg.uplinks(), ","), "--udp-port", strconv.Itoa(int(l.cfg.UDPPort)), "--tables", l.cfg.Tables}
	if l.cfg.XDP {
		args = append(args, "--xdp", "uplink")
	}
	if !l.cfg.FindVTEP {
		args = append(args, "--vtep-address", h.VTEPAddress)
	}
	var env []string
	if token != "" {
		env = append(env, "WEFT_TOKEN="+token) // a command line is for everybody to read
	}
	return l.startWeft(host, env, args...)
}

// startWeft starts the weft binary in a node and records it.
func (l *Lab) startWeft(node string, env []string, args ...string) error {
	return l.start(node, (*netdev.Handle).Start, env, append([]string{l.cfg.Binary}, args...)...)
}

// start starts a process in its node and records it: by the node's name, and one of several by NODE/PROGRAM.
func (l *Lab) start(name string, by starter, env []string, argv ...string) error {
	node, _, _ := strings.Cut(name, "/")
	h, err := l.Node(node)
	if err != nil {
		return err
	}
	p, ended, err := launch(by, h, l.cfg.log(name), env, argv...)
	if p.PID != 0 {
		began := time.Now()
		l.reapers.Add(1)
		go func() {
			defer l.reapers.Done()
			e := endedProcess{name: name, p: p, err: <-ended}
			e.lived = time.Since(began)
			select {
			case l.ended <- e:
			default: // nobody has asked for a thousand ends
			}
		}()
		err = l.update(func(s *State) error {
			if at := s.process(name); at != nil {
				*at = p
			}
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("start the process of %s: %w", name, err)
	}
	return nil
}

func (l *Lab) process(node string) (Process, error) {
	s, err := l.State()
	if err != nil {
		return Process{}, err
	}
	p := s.process(node)
	if p == nil {
		return Process{}, fmt.Errorf("%s is no host of the lab: see `weft lab status`", node)
	}
	return *p, nil
}

func (l *Lab) end(ctx context.Context, node string, kill bool) error {
	p, err := l.process(node)
	if err != nil {
		return err
	}
	if !kill {
		return stop(ctx, []Process{p})
	}
	if err := p.signal(9); err != nil {
		return err
	}
	if left := gone(ctx, []Process{p}, grace); len(left) > 0 {
		return fmt.Errorf("the process of %s does not end", node)
	}
	return nil
}

// WaitReady waits until every host's agent is connected and reports itself.
func (l *Lab) WaitReady(ctx context.Context) error {
	s, err := l.State()
	if err != nil {
		return err
	}
	for _, h := range s.Hosts {
		if err := l.WaitHost(ctx, h.Name); err != nil {
			return err
		}
	}
	return nil
}

// WaitHost waits until a host's agent is connected and reports itself.
func (l *Lab) WaitHost(ctx context.Context, host string) error {
	return l.await(ctx, host+" is ready", host, func(ctx context.Context) (bool, error) {
		c, err := l.Client()
		if err != nil {
			return false, err
		}
		res, err := c.Hosts.GetHost(ctx, connect.NewRequest(&weftv1.GetHostRequest{Name: host}))
		if err != nil {
			return false, err
		}
		up := []weftv1.HostState{weftv1.HostState_HOST_STATE_READY, weftv1.HostState_HOST_STATE_DEGRADED}
		if !slices.Contains(up, res.Msg.GetStatus().GetState()) {
			return false, fmt.Errorf("it is %s", res.Msg.GetStatus().GetState())
		}
		return true, nil
	})
}

// await waits for a condition that a node's process brings about. If the process ends before, its last words are the error.
func (l *Lab) await(ctx context.Context, what, node string, cond func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, readiness)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, why := cond(ctx)
		if ok {
			return nil
		}
		p, err := l.process(node)
		if err != nil {
			return err
		}
		if p.ended() { // not Alive: a process that has just begun has no command line for a moment
			return fmt.Errorf("wait until %s: the process of %s ended; the end of %s:\n  %s", what, node, l.cfg.log(node), tail(l.cfg.log(node)))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w (%v); the end of %s:\n  %s", what, ctx.Err(), why, l.cfg.log(node), tail(l.cfg.log(node)))
		case <-tick.C:
		}
	}
}

// Agent speaks to a host's agent over its socket. Close it after use.
func (l *Lab) Agent(host string) (*client.LocalClient, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h, ok := l.state.Host(host)
	if !ok {
		return nil, fmt.Errorf("%s is no host of the lab: see `weft lab status`", host)
	}
	return client.Local(h.AgentSocket), nil
}

// Cut takes a host's management link down: its agent reaches no server, and its tunnels go on. Heal brings it up again.
func (l *Lab) Cut(host string) error { return l.managementLink(host, false) }

// Heal ends what Cut did.
func (l *Lab) Heal(host string) error { return l.managementLink(host, true) }

func (l *Lab) managementLink(host string, up bool) error {
	h, err := l.Node("server")
	if err != nil {
		return err
	}
	if up {
		return h.SetUp("to-" + host)
	}
	return h.SetDown("to-" + host)
}

// CutUnderlay takes all of a host's uplinks away: its tunnels lead nowhere, and its agent reaches the server as before. HealUnderlay ends it. In a
// lab with two uplinks the routers do not notice: see PullUplink.
func (l *Lab) CutUnderlay(host string) error { return l.underlay(host, false) }

// HealUnderlay ends what CutUnderlay did.
func (l *Lab) HealUnderlay(host string) error { return l.underlay(host, true) }

func (l *Lab) underlay(host string, up bool) error {
	i, err := l.hostNumber(host)
	if err != nil {
		return err
	}
	for k := range l.cfg.Uplinks {
		leaf, err := l.Node(leafName(l.cfg.leafOf(i, k)))
		if err != nil {
			return err
		}
		if !up {
			if err := leaf.SetDown("to-" + host); err != nil {
				return err
			}
			continue
		}
		if err := l.plug(leaf, i, k); err != nil {
			return err
		}
	}
	return nil
}

// plug brings a leaf's end of an uplink up again, with the addresses of IPv6 that it lost when it went down.
func (l *Lab) plug(leaf *netdev.Handle, host, k int) error {
	name := "to-" + hostName(host)
	if err := leaf.SetUp(name); err != nil {
		return err
	}
	ends, _ := edge(host, k)
	for _, p := range l.cfg.has(ends) {
		if err := leaf.AddAddress(name, p); err != nil {
			return err
		}
	}
	return nil
}
