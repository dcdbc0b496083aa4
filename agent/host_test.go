package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"go.uber.org/goleak"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
	"github.com/weftnet/weft/api/gen/local/v1/localv1connect"
	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/internal/testenv"
	"github.com/weftnet/weft/trust"
)

// childEnv makes the test binary an agent: the real one needs a network namespace, and so a process, of its own.
const childEnv = "WEFTTEST_AGENT"

func TestMain(m *testing.M) {
	switch words := strings.SplitN(os.Getenv(childEnv), " ", 2); words[0] {
	case "run":
		os.Exit(childAgent(words[1]))
	case "leave":
		os.Exit(childLeave(words[1]))
	case "remove":
		if err := datapath.Remove(words[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// childConfig is what of a Config can be handed to a process.
type childConfig struct {
	Name, Token, Dir, Socket, Instance, PinRoot, Uplink, Version string
	Servers                                                      []string
	VTEPAddress                                                  netip.Addr
	ProbeEvery, ReportEvery                                      time.Duration
}

func childLeave(config string) int {
	cfg, err := parseChild(config)
	if err == nil {
		err = Leave(cfg)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func parseChild(config string) (Config, error) {
	var c childConfig
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		return Config{}, err
	}
	return Config{
		Name: c.Name, Token: c.Token, Dir: c.Dir, Socket: c.Socket, Instance: c.Instance, PinRoot: c.PinRoot, Uplink: c.Uplink,
		Version: c.Version, Servers: c.Servers, VTEPAddress: c.VTEPAddress, ProbeEvery: c.ProbeEvery, ReportEvery: c.ReportEvery,
	}, nil
}

func childAgent(config string) int {
	cfg, err := parseChild(config)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}

	cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	cfg.Limits = datapath.LabLimits()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	a, err := New(cfg)
	if err == nil {
		err = a.Run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// host is a namespace with a real agent in it.
type host struct {
	t     *testing.T
	name  string
	ns    *netdev.Handle
	cfg   childConfig
	cmd   *exec.Cmd
	log   *os.File
	local localv1connect.LocalServiceClient
}

func newHost(t *testing.T, name string, addr string, servers string, ca *trust.CA) *host {
	t.Helper()
	h := &host{t: t, name: name, ns: namespace(t, name)}
	token, err := trust.NewToken(trust.JoinToken, ca.Fingerprint())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	h.cfg = childConfig{
		Name: name, Servers: []string{servers}, Token: token.String(), Dir: filepath.Join(dir, "agent"), Socket: filepath.Join(dir, "s"),
		Instance: "wefttest-agent-" + name, PinRoot: "/sys/fs/bpf/wefttest-agent/" + name,
		VTEPAddress: netip.MustParseAddr(addr), Uplink: "up", Version: "test", ProbeEvery: 300 * time.Millisecond, ReportEvery: 200 * time.Millisecond,
	}
	if h.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		t.Fatal(err)
	}
	hc := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", h.cfg.Socket)
	}}}
	h.local = localv1connect.NewLocalServiceClient(hc, "http://agent")
	t.Cleanup(func() {
		hc.CloseIdleConnections()
		h.stop(syscall.SIGKILL)
		if err := h.child("remove " + h.cfg.PinRoot).Run(); err != nil {
			t.Errorf("remove the datapath of %s: %v", name, err)
		}
		os.Remove(filepath.Dir(h.cfg.PinRoot))
		if t.Failed() || testing.Verbose() {
			b, _ := os.ReadFile(h.log.Name())
			t.Logf("log of %s:\n%s", name, b)
		}
		h.log.Close()
	})
	if _, err := os.Stat(h.cfg.PinRoot); err == nil { // of a run that was killed
		if err := h.child("remove " + h.cfg.PinRoot).Run(); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

type childCommand struct {
	*exec.Cmd
	ns *netdev.Handle
}

func (c childCommand) Run() error {
	if err := c.ns.Start(c.Cmd); err != nil {
		return err
	}
	return c.Wait()
}

func (h *host) child(role string) childCommand {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+role)
	cmd.Stdout, cmd.Stderr = h.log, h.log
	return childCommand{cmd, h.ns}
}

func (h *host) start() {
	h.t.Helper()
	b, err := json.Marshal(h.cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	c := h.child("run " + string(b))
	if err := c.ns.Start(c.Cmd); err != nil {
		h.t.Fatal(err)
	}
	h.cmd = c.Cmd
}

// writes is what the agent that runs now wrote when it first compared kernel and plan.
func (h *host) writes() string {
	b, err := os.ReadFile(h.log.Name())
	if err != nil {
		h.t.Fatal(err)
	}
	log := string(b)
	_, log, _ = strings.Cut(log[strings.LastIndex(log, "kernel was compared"):], "writes=")
	n, _, _ := strings.Cut(log, "\n")
	return n
}

func (h *host) stop(sig os.Signal) {
	if h.cmd == nil {
		return
	}
	_ = h.cmd.Process.Signal(sig) // it may have ended by itself: Wait says so
	_ = h.cmd.Wait()
	h.cmd = nil
}

// patience is how long is waited for what another process does: nobody promises a time, and this machine may stand still for seconds.
const patience = time.Minute

// until waits for a status.
func (h *host) until(what string, ok func(*localv1.GetStatusResponse) bool) {
	h.t.Helper()
	var last any
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	for ctx.Err() == nil {
		res, err := h.local.GetStatus(ctx, connect.NewRequest(&localv1.GetStatusRequest{}))
		if err == nil && ok(res.Msg) {
			return
		}
		switch {
		case err == nil:
			last = res.Msg
		case ctx.Err() == nil:
			last = err
		}
		time.Sleep(10 * time.Millisecond) // a poll, bounded by the context
	}
	h.t.Fatalf("%s: %s did not happen: %v", h.name, what, last)
}

func (h *host) attach(port, netns string) *localv1.Attachment {
	h.t.Helper()
	res, err := h.local.Attach(h.t.Context(), connect.NewRequest(&localv1.AttachRequest{
		Tenant: "acme", Port: port, Interface: &localv1.AttachRequest_Netns{Netns: &localv1.NetnsInterface{Netns: netns}},
	}))
	if err != nil {
		h.t.Fatal(err)
	}
	return res.Msg.Attachment
}

// take is attach for a port that may be on another host.
func (h *host) take(req *localv1.AttachRequest) (*localv1.Attachment, error) {
	return taken(func() (*localv1.Attachment, error) {
		res, err := h.local.Attach(h.t.Context(), connect.NewRequest(req))
		if err != nil {
			return nil, err
		}
		return res.Msg.Attachment, nil
	})
}

// taken tries an attachment, and again if it failed because a hypervisor's hook waits no longer than takeTimeout: this machine may have stood still for
// that long. What fails sooner has failed.
func taken(attach func() (*localv1.Attachment, error)) (at *localv1.Attachment, err error) {
	for range 5 {
		began := time.Now()
		if at, err = attach(); err == nil || time.Since(began) < takeTimeout {
			break
		}
	}
	return at, err
}

// twoHosts is the topology of these tests:
//
//	workload w1 -- host h1 === 192.0.2.0/24 === host h2 -- workload w2
//
// The server listens on h1's underlay address.
type twoHosts struct {
	server *scriptServer
	h      [2]*host
	w      [2]*netdev.Handle
}

func newTwoHosts(t *testing.T) *twoHosts {
	testenv.Require(t, testenv.Root, testenv.BPF)
	ca := testCA(t)
	two := &twoHosts{}
	const server = "192.0.2.1:7348"
	two.h[0] = newHost(t, "h1", "192.0.2.1", server, ca)
	two.h[1] = newHost(t, "h2", "192.0.2.2", server, ca)
	_, _, err := two.h[0].ns.EnsureVeth(netdev.Veth{
		Name: "up", MTU: 1600, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")},
		Peer: netdev.VethPeer{Namespace: two.h[1].ns, Name: "up", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range two.w {
		two.w[i] = namespace(t, fmt.Sprintf("w%d", i+1))
	}
	l, err := two.h[0].ns.Listen(t.Context(), "tcp", server)
	if err != nil {
		t.Fatal(err)
	}
	two.server = newScriptServer(t, ca, l)
	return two
}

// echo answers on a TCP port of a workload.
func echo(t *testing.T, ns *netdev.Handle, addr string) {
	t.Helper()
	l, err := ns.Listen(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	t.Cleanup(func() { cancel(); l.Close(); serving.Wait() })
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			context.AfterFunc(ctx, func() { c.Close() })
			serving.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			})
		}
	})
}

// talk sends octets to an echo and back, and returns the connection for more.
func talk(t *testing.T, ns *netdev.Handle, addr string) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := ns.Dial(ctx, &net.Dialer{}, "tcp", addr)
	if err != nil {
		t.Fatalf("dial %s: %v", addr, err)
	}
	t.Cleanup(func() { c.Close() })
	say(t, c)
	return c
}

func say(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	sent := make([]byte, 1<<20)
	for i := range sent {
		sent[i] = byte(i >> 8)
	}
	failed := make(chan error, 1)
	go func() {
		_, err := c.Write(sent)
		failed <- err
	}()
	got := make([]byte, len(sent))
	_, err := io.ReadFull(c, got)
	if err = errors.Join(err, <-failed); err != nil {
		t.Fatalf("a TCP stream through the tunnel: %v", err)
	}
	if string(got) != string(sent) {
		t.Fatal("the stream came back altered")
	}
}

// TestTwoHosts turns red when two real agents do not make their workloads reach each other, when killing one stops a
// stream, when a stopped server does, or when a blocked kernel lane is not found.
func TestTwoHosts(t *testing.T) {
	two := newTwoHosts(t)
	for _, h := range two.h {
		h.start()
	}
	for i, h := range two.h {
		h.until("the stream", func(s *localv1.GetStatusResponse) bool { return s.Connected })
		at := h.attach(fmt.Sprintf("p%d", i+1), "wefttest-agent-w"+fmt.Sprint(i+1))
		if at.State != "active" || at.Mtu != 1550 {
			t.Errorf("attached as %v", at)
		}
	}
	two.server.untilApplied(t)
	echo(t, two.w[1], "10.1.0.2:7")
	c := talk(t, two.w[0], "10.1.0.2:7")

	// The agent dies; the next one finds everything as it was, without a server.
	two.h[1].stop(syscall.SIGKILL)
	say(t, c)
	two.server.stop()
	two.h[1].start()
	two.h[1].until("a status", func(s *localv1.GetStatusResponse) bool { return !s.Connected && s.Revision > 0 })
	if n := two.h[1].writes(); n != "0" {
		t.Errorf("the restarted agent wrote %s entries, though nothing had changed", n)
	}
	say(t, c)
	list, err := two.h[1].local.ListAttachments(t.Context(), connect.NewRequest(&localv1.ListAttachmentsRequest{}))
	if err != nil || len(list.Msg.Attachments) != 1 || list.Msg.Attachments[0].State != "active" {
		t.Errorf("attachments after a restart: %v %v", list, err)
	}
	two.h[1].leave()
}

// leave takes weft off the host: not while its agent runs, then whole, and again without complaint.
func (h *host) leave() {
	h.t.Helper()
	b, err := json.Marshal(h.cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := h.child("leave " + string(b)).Run(); err == nil {
		h.t.Error("weft left the host under a running agent")
	}
	h.stop(syscall.SIGKILL)
	for range 2 {
		if err := h.child("leave " + string(b)).Run(); err != nil {
			h.t.Errorf("leave: %v", err)
		}
	}
	links, err := h.ns.Links()
	if err != nil {
		h.t.Fatal(err)
	}
	for _, l := range links {
		if strings.HasPrefix(l.Name, "weft") {
			h.t.Errorf("interface %s stayed", l.Name)
		}
	}
	if _, err := os.Stat(h.cfg.PinRoot); !os.IsNotExist(err) {
		h.t.Errorf("pins stayed: %v", err)
	}
	var tables []*nftables.Table
	err = h.ns.Run(func() (err error) {
		tables, err = (&nftables.Conn{}).ListTables()
		return err
	})
	if err != nil || len(tables) > 0 {
		h.t.Errorf("nftables has %d tables, %v", len(tables), err)
	}
	if files, _ := os.ReadDir(h.cfg.Dir); len(files) > 0 {
		h.t.Errorf("files stayed: %v", files)
	}
}

// TestMoveAndTAP turns red when a move leaves the interface where it was, or the FDB of another host behind; when a TAP
// that is made again is not attached again; or when a detachment leaves anything.
func TestMoveAndTAP(t *testing.T) {
	two := newTwoHosts(t)
	for _, h := range two.h {
		h.start()
		h.until("the stream", func(s *localv1.GetStatusResponse) bool { return s.Connected })
	}
	two.h[0].attach("p1", "wefttest-agent-w1")
	two.h[1].attach("p2", "wefttest-agent-w2")
	two.server.untilApplied(t)
	echo(t, two.w[0], "[fd00:1::1]:7")
	talk(t, two.w[1], "[fd00:1::1]:7")

	// p2 moves to h1, into another namespace of its own there.
	two.server.change(func() { two.server.place("p2", "h1") })
	two.h[1].until("the end of the interface", func(*localv1.GetStatusResponse) bool {
		_, err := two.h[1].ns.LinkByName(netdev.PortInterface("p2"))
		return errors.Is(err, netdev.ErrNotFound)
	})
	moved := namespace(t, "w3")
	two.h[0].attach("p2", "wefttest-agent-w3")
	talk(t, moved, "[fd00:1::1]:7")

	// And becomes a TAP on h2, as a virtual machine would have it.
	if _, err := two.h[0].local.Detach(t.Context(), connect.NewRequest(&localv1.DetachRequest{Tenant: "acme", Port: "p2"})); err != nil {
		t.Fatal(err)
	}
	if _, err := two.h[0].ns.LinkByName(netdev.PortInterface("p2")); !errors.Is(err, netdev.ErrNotFound) {
		t.Errorf("the interface after the detachment: %v", err)
	}
	if err := two.h[1].ns.AddTAP("tap0"); err != nil {
		t.Fatal(err)
	}
	if _, err := two.h[1].local.Attach(t.Context(), connect.NewRequest(&localv1.AttachRequest{
		Tenant: "acme", Port: "p2", Interface: &localv1.AttachRequest_Tap{Tap: "tap0"},
	})); err != nil {
		t.Fatal(err)
	}
	if err := two.h[1].ns.DeleteLink("tap0"); err != nil {
		t.Fatal(err)
	}
	two.h[1].untilState("detached")
	if err := two.h[1].ns.AddTAP("tap0"); err != nil {
		t.Fatal(err)
	}
	two.h[1].untilState("active")
	two.h[1].stop(syscall.SIGTERM)
	two.h[1].start()
	two.h[1].untilState("active")
}

// TestMoveOfAWorkload turns red when a port does not move between two real kernels: prepared, committed while the server is dead, its old copy held
// and what still comes for it forwarded, and settled when a server is back. Take believe out of the prober and it goes red.
func TestMoveOfAWorkload(t *testing.T) {
	two := newTwoHosts(t)
	for _, h := range two.h {
		h.start()
		h.until("the stream", func(s *localv1.GetStatusResponse) bool { return s.Connected })
	}
	two.h[0].attach("p1", "wefttest-agent-w1")
	two.h[0].attach("p2", "wefttest-agent-w2")
	two.server.untilApplied(t)
	echo(t, two.w[1], "10.1.0.2:7")
	talk(t, two.w[0], "10.1.0.2:7")
	moved := namespace(t, "w3")
	at, err := two.h[1].take(&localv1.AttachRequest{Tenant: "acme", Port: "p1", Take: true,
		Interface: &localv1.AttachRequest_Netns{Netns: &localv1.NetnsInterface{Netns: "wefttest-agent-w3"}}})
	if err != nil || at.Move != "incoming" || at.State != "held" {
		t.Fatalf("taken as %v, %v", at, err)
	}
	two.server.until(t, "the preparation", func() bool {
		for _, p := range two.server.reports["h2"].GetPorts() {
			if p.Uid == "p1" {
				return p.Prepared
			}
		}
		return false
	})
	two.server.untilApplied(t)
	talk(t, two.w[0], "10.1.0.2:7") // it is where it was
	two.server.stop()
	two.h[1].until("the server's end", func(s *localv1.GetStatusResponse) bool { return !s.Connected })
	commit := func() *localv1.Attachment {
		t.Helper()
		res, err := two.h[1].local.Commit(t.Context(), connect.NewRequest(&localv1.CommitRequest{Tenant: "acme", Port: "p1"}))
		if err != nil {
			t.Fatal(err)
		}
		return res.Msg.Attachment
	}
	if at := commit(); at.State != "active" || at.Move != "committed" {
		t.Errorf("committed as %v", at)
	}
	talk(t, moved, "10.1.0.2:7") // its answers go by the source's FDB
	two.h[1].until("the dark time", func(*localv1.GetStatusResponse) bool { return commit().DarkNanoseconds > 0 })
	t.Logf("dark time: %v", time.Duration(commit().DarkNanoseconds))
	two.h[0].until("the source's copy held", func(*localv1.GetStatusResponse) bool {
		list, err := two.h[0].local.ListAttachments(t.Context(), connect.NewRequest(&localv1.ListAttachmentsRequest{}))
		kept, kerr := newFlipFile(two.h[0].cfg.Dir).read() // written beside the loop, and all that a restart knows
		return errors.Join(err, kerr) == nil && len(kept) == 1 && list.Msg.Attachments[0].Move == "draining" && list.Msg.Attachments[0].State == "held"
	})
	for _, h := range two.h { // and restarts undo nothing
		h.stop(syscall.SIGKILL)
		h.start()
		h.until("a status", func(s *localv1.GetStatusResponse) bool { return s.Revision > 0 })
		if n := h.writes(); n != "0" {
			t.Errorf("the restarted agent wrote %s entries, though nothing had changed", n)
		}
	}
	talk(t, moved, "10.1.0.2:7")
}

// TestMoveOfAGuest turns red when the first frame of a guest on the target's TAP device does not commit its move, when that device is not as the
// guest's monitor needs it, or when it outlives its port. Leave Watched out of wantPort and it goes red.
func TestMoveOfAGuest(t *testing.T) {
	two := newTwoHosts(t)
	for _, h := range two.h {
		h.start()
		h.until("the stream", func(s *localv1.GetStatusResponse) bool { return s.Connected })
	}
	for i, h := range two.h {
		at, err := h.take(&localv1.AttachRequest{Tenant: "acme", Port: "p1", Take: i > 0,
			Interface: &localv1.AttachRequest_Tap{Tap: "vm1"}, MakeTap: &localv1.MakeTap{Queues: 2}})
		if err != nil {
			t.Fatal(err)
		}
		if at.Queues != 2 || at.Mtu != 1550 {
			t.Errorf("attached as %v", at)
		}
		if l, err := h.ns.LinkByName("vm1"); err != nil || !l.VirtioHeader || !l.MultiQueue || l.MTU != 1550 || !l.Up {
			t.Errorf("made as %+v, %v", l, err)
		}
		two.server.untilApplied(t)
	}
	two.h[0].untilState("active")
	two.h[1].untilState("held")
	guest, err := two.h[1].ns.OpenVirtioQueue("vm1")
	if err != nil {
		t.Fatal(err)
	}
	announcement := make([]byte, 10+60) // a virtio header of zeros, then RARP as QEMU says it
	copy(announcement[10:], []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3})
	if _, err := guest.Write(announcement); err != nil {
		t.Fatal(err)
	}
	two.h[1].untilState("active")
	two.h[0].untilState("held")
	two.server.until(t, "the commit, and then its dark time", func() bool {
		list := two.server.commits // the loop may have told of it too, before whoever committed did
		return len(list) >= 2 && list[0].Cause == planv1.CommitCause_COMMIT_CAUSE_FIRST_FRAME && list[len(list)-1].DarkNanoseconds > 0
	})
	two.server.change(func() { two.server.step("p1", "h2", "", "") })
	for _, h := range two.h {
		if h == two.h[1] {
			if err := guest.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := h.local.Detach(t.Context(), connect.NewRequest(&localv1.DetachRequest{Tenant: "acme", Port: "p1"})); err != nil {
				t.Fatal(err)
			}
		}
		h.until("the device's end", func(*localv1.GetStatusResponse) bool {
			_, err := h.ns.LinkByName("vm1")
			return errors.Is(err, netdev.ErrNotFound)
		})
	}
}

// untilState waits until the one attachment is in a state.
func (h *host) untilState(state string) {
	h.t.Helper()
	h.until("the state "+state, func(*localv1.GetStatusResponse) bool {
		list, err := h.local.ListAttachments(h.t.Context(), connect.NewRequest(&localv1.ListAttachmentsRequest{}))
		return err == nil && len(list.Msg.Attachments) == 1 && list.Msg.Attachments[0].State == state
	})
}

// TestKernelLane turns red when a firewall that drops the tunnel's port is not found, not named, or not forgotten, or when
// hosts without one are called degraded.
func TestKernelLane(t *testing.T) {
	two := newTwoHosts(t)
	for _, h := range two.h {
		h.start()
	}
	proved := func(s *localv1.GetStatusResponse) bool {
		return s.Connected && condition(s, "degraded") == "" && oamReceived(two)
	}
	for _, h := range two.h {
		h.until("the proof of the kernel lane", proved)
	}
	block := &wall{port: 4789}
	err := two.h[1].ns.Run(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		table := c.AddTable(&nftables.Table{Name: "strict", Family: nftables.TableFamilyIPv4})
		chain := c.AddChain(&nftables.Chain{
			Name: "in", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter,
		})
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(block.match(), &expr.Verdict{Kind: expr.VerdictDrop})})
		return c.Flush()
	})
	if err != nil {
		t.Fatal(err)
	}
	two.h[1].until("the discovery of the firewall", func(s *localv1.GetStatusResponse) bool {
		c := condition(s, "degraded")
		return strings.Contains(c, "kernel lane blocked") && strings.Contains(c, `chain "in" of table ip "strict" drops UDP port 4789`)
	})
	two.server.until(t, "the condition in a report", func() bool {
		for _, c := range two.server.reports["h2"].GetConditions() {
			if c.Name == "degraded" && strings.HasPrefix(c.Message, "kernel lane blocked") {
				return true
			}
		}
		return false
	})
	two.h[0].until("no condition where there is no firewall", func(s *localv1.GetStatusResponse) bool { return condition(s, "degraded") == "" })
	err = two.h[1].ns.Run(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		c.DelTable(&nftables.Table{Name: "strict", Family: nftables.TableFamilyIPv4})
		return c.Flush()
	})
	if err != nil {
		t.Fatal(err)
	}
	two.h[1].until("the end of the condition", func(s *localv1.GetStatusResponse) bool { return condition(s, "degraded") == "" })
}

func condition(s *localv1.GetStatusResponse, name string) string {
	for _, c := range s.Conditions {
		if c.Name == name {
			return c.Message
		}
	}
	return ""
}

// oamReceived reports whether probes have arrived at both hosts.
func oamReceived(two *twoHosts) bool {
	for _, h := range two.h {
		if s, err := h.ns.Stats(oamSocket); err != nil || s.RxPackets == 0 {
			return false
		}
	}
	return true
}
