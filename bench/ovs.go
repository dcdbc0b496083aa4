package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/netdev"
)

const (
	ovsName = "Open vSwitch, user space"
	// ovsBurst of frames fits the ring of a veth, and the sockets that Open vSwitch reads from, with rmem as below.
	ovsBurst = 200
	ovsStart = 60 * time.Second
)

// ovs is Open vSwitch with its datapath in user space, on each host a database and a switch of its own, told apart from any
// other on the machine by their paths.
type ovs struct {
	*bridgeVXLAN
	dir string
	pid []int
	cmd []*exec.Cmd
}

// ovsInstalled reports whether the programs are there.
func ovsInstalled() bool {
	for _, p := range []string{"ovs-vswitchd", "ovsdb-server", "ovs-vsctl", "ovsdb-tool"} {
		if _, err := exec.LookPath(p); err != nil {
			return false
		}
	}
	return true
}

func newOVS(ctx context.Context, prefix, dir string) (_ Contender, err error) {
	c := &ovs{bridgeVXLAN: &bridgeVXLAN{name: ovsName, prefix: prefix}, dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("build %s: %w", ovsName, err), c.Close())
		}
	}()
	restore, err := raiseReceiveBuffer()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, restore()) }()
	hosts, err := c.hosts()
	if err != nil {
		return nil, err
	}
	for i, h := range hosts {
		if err = c.ovsHost(ctx, h, i); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// raiseReceiveBuffer lets sockets that are opened now hold more than 40 frames, and gives what puts it back. The setting is the
// machine's; programs that open sockets in these seconds get the larger buffer, and that is all.
func raiseReceiveBuffer() (restore func() error, err error) {
	const path = "/proc/sys/net/core/rmem_default"
	was, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(path, []byte("16777216"), 0); err != nil {
		return nil, err
	}
	return func() error { return os.WriteFile(path, was, 0) }, nil
}

// ovsHost builds br-int with the port and the tunnel, and br-phy with the underlay, whose address its own interface has.
func (c *ovs) ovsHost(ctx context.Context, h *netdev.Handle, i int) error {
	if err := c.port(h, i); err != nil {
		return err
	}
	// It sends what it reads as it is: no checksum left to fill in, nothing longer than the MTU.
	features := []func() error{
		func() error { return c.handles[len(c.handles)-1].SetFeature("eth0", netdev.TX, false) },
		func() error { return h.SetFeature("up0", netdev.TX, false) },
	}
	for _, f := range features {
		if err := f(); err != nil {
			return err
		}
	}
	dir := filepath.Join(c.dir, strconv.Itoa(i+1))
	if err := c.start(ctx, h, dir); err != nil {
		return err
	}
	vsctl := func(args ...string) error {
		return c.run(ctx, h, dir, "ovs-vsctl", append([]string{"--db=unix:" + filepath.Join(dir, "db.sock"), "--timeout=15"}, args...)...)
	}
	if err := vsctl("--", "add-br", "br-int", "--", "set", "bridge", "br-int", "datapath_type=netdev",
		"--", "add-br", "br-phy", "--", "set", "bridge", "br-phy", "datapath_type=netdev",
		"--", "add-port", "br-phy", "up0"); err != nil {
		return err
	}
	if err := h.DeleteAddress("up0", netip.PrefixFrom(hostAddrs[i], 24)); err != nil {
		return err
	}
	if err := h.AddAddress("br-phy", netip.PrefixFrom(hostAddrs[i], 24)); err != nil {
		return err
	}
	if err := h.SetUp("br-phy"); err != nil {
		return err
	}
	if err := vsctl("--", "add-port", "br-int", "port0", "--", "add-port", "br-int", "vx0", "--", "set", "interface", "vx0", "type=vxlan",
		"options:remote_ip="+hostAddrs[1-i].String(), "options:local_ip="+hostAddrs[i].String(), fmt.Sprintf("options:key=%d", benchVNI)); err != nil {
		return err
	}
	// The ports that it has for speed without DPDK, read by its main loop. A thread of its own that never sleeps (type afxdp) would take half
	// of the one core that everything is measured on.
	for _, port := range []string{"port0", "up0"} {
		if err := vsctl("--", "set", "interface", port, "type=afxdp-nonpmd"); err != nil {
			return fmt.Errorf("ports of type AF_XDP: %w", err)
		}
		if out, err := c.output(ctx, h, dir, "ovs-vsctl", "--db=unix:"+filepath.Join(dir, "db.sock"), "get", "interface", port, "error"); err != nil || out != "[]" {
			return fmt.Errorf("port %s of type AF_XDP: %s %w", port, out, err)
		}
	}
	return nil
}

func (c *ovs) start(ctx context.Context, h *netdev.Handle, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	db, sock := filepath.Join(dir, "conf.db"), filepath.Join(dir, "db.sock")
	if err := c.run(ctx, h, dir, "ovsdb-tool", "create", db, "/usr/share/openvswitch/vswitch.ovsschema"); err != nil {
		return err
	}
	if err := c.launch(h, dir, "ovsdb-server", db, "--remote=punix:"+sock, "--unixctl="+filepath.Join(dir, "db.ctl"), "--log-file="+filepath.Join(dir, "db.log")); err != nil {
		return err
	}
	if err := waitFor(ctx, ovsStart, "the database of "+ovsName, func() bool { _, err := os.Stat(sock); return err == nil }); err != nil {
		return err
	}
	if err := c.run(ctx, h, dir, "ovs-vsctl", "--db=unix:"+sock, "--no-wait", "init"); err != nil {
		return err
	}
	ctl := filepath.Join(dir, "sw.ctl")
	if err := c.launch(h, dir, "ovs-vswitchd", "unix:"+sock, "--disable-system", "--unixctl="+ctl, "--log-file="+filepath.Join(dir, "sw.log")); err != nil {
		return err
	}
	return waitFor(ctx, ovsStart, ovsName, func() bool { _, err := os.Stat(ctl); return err == nil })
}

func ovsEnv(dir string) []string {
	return append(os.Environ(), "OVS_RUNDIR="+dir, "OVS_LOGDIR="+dir, "OVS_DBDIR="+dir)
}

func (c *ovs) run(ctx context.Context, h *netdev.Handle, dir, name string, args ...string) error {
	_, err := c.output(ctx, h, dir, name, args...)
	return err
}

func (c *ovs) output(ctx context.Context, h *netdev.Handle, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = ovsEnv(dir)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := h.Start(cmd); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(out.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

func (c *ovs) launch(h *netdev.Handle, dir, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Env = ovsEnv(dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := h.Start(cmd); err != nil {
		return err
	}
	c.cmd = append(c.cmd, cmd)
	if name == "ovs-vswitchd" {
		c.pid = append(c.pid, cmd.Process.Pid)
	}
	return nil
}

// place pins the switches.
func (c *ovs) place(cores ...int) error { return pinProcesses(cores, c.pid...) }

// SetWire implements Contender. Open vSwitch always sends what fits a wire, and its ports must not aggregate: it would drop
// the aggregates.
func (c *ovs) SetWire(bool) error {
	return errors.Join(c.setGRO(false), c.place(senderCore, receiverCore))
}

// prepare implements preparer.
func (c *ovs) prepare() error { return errors.Join(c.setGRO(true), c.place(packetCore)) }

func (c *ovs) setGRO(on bool) error {
	for _, u := range c.uplinks {
		if err := ensureFeature(uplink{u.netns, "port0"}, netdev.GRO, on); err != nil {
			return err
		}
	}
	return nil
}

// shape implements shaper: what it reads from must not overflow, and it needs the core to work.
func (c *ovs) shape(t traffic) traffic {
	t.Burst, t.Patient = ovsBurst, true
	return t
}

// Close implements Contender.
func (c *ovs) Close() error {
	var errs []error
	for i := len(c.cmd) - 1; i >= 0; i-- {
		errs = append(errs, endProcess(c.cmd[i]))
	}
	c.cmd, c.pid = nil, nil
	return errors.Join(append(errs, c.bridgeVXLAN.Close(), os.RemoveAll(c.dir))...)
}

// endProcess asks a child to end, and insists.
func endProcess(cmd *exec.Cmd) error {
	if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
		return nil // it has ended
	}
	insist := time.AfterFunc(5*time.Second, func() { _ = cmd.Process.Kill() })
	defer insist.Stop()
	_, err := cmd.Process.Wait()
	return err
}

// waitFor waits for a named condition.
func waitFor(ctx context.Context, patience time.Duration, what string, cond func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}
