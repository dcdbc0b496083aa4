package scale

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/weftnet/weft/datapath/netdev"
)

// A real agent takes the largest plan in: the whole program, in a network namespace of its own, into real tables.
//
//	server 127.0.0.1:PORT  <-- relay in this process --  127.0.0.1:7348 in the namespace  <-- weft agent -- uplink wsc-u (a veth)

const (
	realNamespace = "weft-bench-scale"
	realInstance  = "bench-scale"
	realPins      = "/sys/fs/bpf/weft-bench-scale"
	realUplink    = "wsc-u"
	realPatience  = 3 * time.Minute
	// What the agent logs when the plan's first message came, and when all of it is in the kernel.
	planBegins  = "the plan stream is up"
	planIsThere = "the kernel was compared with the plan"
)

// realHost is the namespace, with an uplink, and a way to the server.
type realHost struct {
	r      *run
	ns     *netdev.Handle
	relay  net.Listener
	relays sync.WaitGroup
}

// real measures the agent of the cold host, which joined already: again and again, each time on a new machine that knows nothing of the plan. First the
// other agents, on the same cores, only hold their streams, as they would elsewhere; then they report as ever.
func (r *run) real(ctx context.Context) error {
	r.fleet.quiet.Store(true)
	err := r.realStarts(ctx, "")
	r.fleet.quiet.Store(false)
	if err != nil {
		return err
	}
	return r.realStarts(ctx, ", beside the reports of all others on the same cores")
}

func (r *run) realStarts(ctx context.Context, beside string) error {
	defer uncollected()()
	var all []realStart
	for range r.cfg.ColdStarts {
		one, err := r.realOnce(ctx)
		if err != nil {
			return err
		}
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b realStart) int { return cmp.Compare(a.took, b.took) })
	median := all[len(all)/2]
	what := "cold start of a real agent" + beside + ": the plan's first message until all is in the kernel"
	r.add(Figure{What: what + ", median", Value: median.took.Seconds(), Unit: "s", AtMost: 2})
	r.add(Figure{What: what + ", longest", Value: all[len(all)-1].took.Seconds(), Unit: "s"})
	r.add(Figure{What: "memory (RSS) of a real agent" + beside + ", with the plan of all ports, just after that", Value: float64(median.RSS), Unit: "B"})
	r.add(Figure{What: "processor time of a real agent" + beside + ", until then", Value: median.CPU.Seconds(), Unit: "s"})
	return nil
}

// realStart is how long an agent took, and what it used until then.
type realStart struct {
	took time.Duration
	usage
}

func (r *run) realOnce(ctx context.Context) (s realStart, err error) {
	h, err := r.newRealHost(ctx)
	if err != nil {
		return s, fmt.Errorf("make a host for a real agent: %w", err)
	}
	defer func() { err = errors.Join(err, h.close()) }()
	log := filepath.Join(r.fleet.dir, "agent.log")
	cmd, ended, err := h.start(log)
	if err != nil {
		return s, err
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-ended
	}()
	if err := waitForLog(ctx, log, planIsThere, ended); err != nil {
		return s, err
	}
	text, err := os.ReadFile(log)
	if err != nil {
		return s, err
	}
	began, err := timeOf(string(text), planBegins)
	if err != nil {
		return s, err
	}
	end, err := timeOf(string(text), planIsThere)
	if err != nil {
		return s, err
	}
	if s.usage, err = usageOf(cmd.Process.Pid); err != nil {
		return s, err
	}
	s.took = end.Sub(began)
	return s, nil
}

func (r *run) newRealHost(ctx context.Context) (_ *realHost, err error) {
	h := &realHost{r: r}
	if err := errors.Join(h.remove(), h.forget(), netdev.CreateNamespace(realNamespace)); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.close())
		}
	}()
	if h.ns, err = netdev.Open(realNamespace); err != nil {
		return nil, err
	}
	if err := h.ns.SetUp("lo"); err != nil {
		return nil, err
	}
	if _, _, err := h.ns.EnsureVeth(netdev.Veth{Name: realUplink, Peer: netdev.VethPeer{Name: "wsc-p"},
		Addresses: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 19, 255, 254}), 15)}}); err != nil {
		return nil, err
	}
	if h.relay, err = h.ns.Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	h.relays.Go(h.carry)
	return h, nil
}

// carry joins each connection from the namespace to one to the server.
func (h *realHost) carry() {
	for {
		in, err := h.relay.Accept()
		if err != nil {
			return // closed
		}
		h.relays.Go(func() {
			defer in.Close()
			out, err := net.Dial("tcp", h.r.server.address)
			if err != nil {
				return // the agent tries again
			}
			defer out.Close()
			var back sync.WaitGroup
			back.Go(func() {
				_, _ = io.Copy(in, out)
				in.Close()
			})
			_, _ = io.Copy(out, in)
			out.Close()
			back.Wait()
		})
	}
}

// start runs the agent with the cold host's identity and nothing else.
func (h *realHost) start(log string) (*exec.Cmd, <-chan error, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, err
	}
	defer out.Close()
	dir := h.r.fleet.agentDir(coldName)
	cmd := exec.Command(h.r.cfg.Binary, "agent", "--server", h.relay.Addr().String(), "--dir", dir, "--socket", filepath.Join(dir, "agent.sock"),
		"--instance", realInstance, "--pin-root", realPins, "--uplink", realUplink)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "WEFT_") })
	ended, err := launch(cmd, h.ns.Run)
	return cmd, ended, err
}

// forget takes the plan away that an agent before wrote down (agent/snapshot.go); it keeps who the host is.
func (h *realHost) forget() error {
	files, err := filepath.Glob(filepath.Join(h.r.fleet.agentDir(coldName), "plan.*"))
	for _, f := range files {
		err = errors.Join(err, os.Remove(f))
	}
	return err
}

func (h *realHost) close() error {
	if h.relay != nil {
		h.relay.Close()
		h.relays.Wait()
	}
	if h.ns != nil {
		h.ns.Close()
	}
	return h.remove()
}

// remove takes away the namespace, with what the agent put on its interfaces, and the pinned tables; also those of a killed run.
func (h *realHost) remove() error {
	var err error
	if netdev.NamespaceExists(realNamespace) {
		err = netdev.DeleteNamespace(realNamespace)
	}
	return errors.Join(err, os.RemoveAll(realPins))
}

// waitForLog waits until the agent says something.
func waitForLog(ctx context.Context, log, what string, ended <-chan error) error {
	ctx, cancel := context.WithTimeout(ctx, realPatience)
	defer cancel()
	for {
		text, err := os.ReadFile(log)
		if err != nil {
			return err
		}
		if strings.Contains(string(text), what) {
			return nil
		}
		select {
		case err := <-ended:
			return fmt.Errorf("the agent ended: %v: it says: %s", err, tail(string(text)))
		case <-ctx.Done():
			return fmt.Errorf("the agent did not say %q: %w: it says: %s", what, ctx.Err(), tail(string(text)))
		case <-time.After(askEvery):
		}
	}
}

func tail(text string) string { return text[max(0, len(text)-1000):] }

// timeOf is when a log says something for the first time.
func timeOf(log, what string) (time.Time, error) {
	for line := range strings.Lines(log) {
		if strings.Contains(line, what) {
			stamp, _, _ := strings.Cut(strings.TrimPrefix(line, "time="), " ")
			return time.Parse(time.RFC3339Nano, stamp)
		}
	}
	return time.Time{}, fmt.Errorf("the agent's log does not say %q", what)
}
