package interop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/internal/testenv"
	"github.com/weftnet/weft/wire"
)

// A bed is a flat underlay and three VTEPs, each with a workload that stays and a place for one that moves:
//
//	          [net: a bridge with multicast snooping and a querier]
//	           |                  |                  |
//	[v1 up0 10.9.0.1]    [v2 up0 10.9.0.2]    [v3 up0 10.9.0.3]     VTEPs 1 and 3 are of one make, 2 of the other
//	  port0   port1        port0   port1        port0   port1
//	    |       |            |       |            |       |
//	[w1 eth0] [m1 eth0]  [w2 eth0] [m2 eth0]  [w3 eth0] [m3 eth0]
type bed struct {
	net   *netdev.Handle
	vteps []*vtep
}

// vtep is a machine with a VTEP of some make.
type vtep struct {
	number int
	ns     *netdev.Handle
	// stays is 10.1.0.N; moves is where 10.1.0.99 may be.
	stays, moves *netdev.Handle
	dir          string
	// uplinks of a weft VTEP, as its file has them; empty is up0.
	uplinks string
}

const (
	prefix  = "weftiop-"
	vni     = 7
	mtu     = 1500
	vteps   = 3
	pinRoot = "/sys/fs/bpf/weftiop"

	// patience with whatever is to become so.
	patience = 60 * time.Second
)

var (
	movingIP  = netip.MustParseAddr("10.1.0.99")
	movingMAC = wire.MAC{2, 0, 0, 0, 1, 0x99}
)

func (v *vtep) ip() netip.Addr { return netip.AddrFrom4([4]byte{10, 1, 0, byte(v.number)}) }

func (v *vtep) underlay(six bool) netip.Addr {
	if six {
		return netip.MustParseAddr(fmt.Sprintf("fd09::%d", v.number))
	}
	return netip.AddrFrom4([4]byte{10, 9, 0, byte(v.number)})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// namespace makes one that goes with the test.
func namespace(t testing.TB, name string) *netdev.Handle {
	t.Helper()
	name = prefix + name
	must(t, netdev.DeleteNamespace(name))
	must(t, netdev.CreateNamespace(name))
	t.Cleanup(func() {
		if err := netdev.DeleteNamespace(name); err != nil {
			t.Error(err)
		}
	})
	h, err := netdev.OpenName(name)
	must(t, err)
	t.Cleanup(h.Close)
	return h
}

// run runs a program in a namespace, and wants it to succeed.
func run(t testing.TB, ns *netdev.Handle, env []string, args ...string) string {
	t.Helper()
	out, err := try(ns, env, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func try(ns *netdev.Handle, env []string, args ...string) (string, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := ns.Start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(out.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

func newBed(t testing.TB) *bed {
	t.Helper()
	testenv.Require(t, testenv.Root, testenv.BPF)
	ip := testenv.RequireTool(t, "ip")
	b := &bed{net: namespace(t, "net")}
	run(t, b.net, nil, ip, "link", "add", "br0", "mtu", "1600", "type", "bridge", "mcast_snooping", "1", "mcast_querier", "1",
		"mcast_igmp_version", "3", "mcast_mld_version", "2", "mcast_startup_query_interval", "10", "mcast_query_response_interval", "10")
	must(t, b.net.SetUp("br0"))
	for i := range vteps {
		v := &vtep{number: i + 1, ns: namespace(t, fmt.Sprintf("v%d", i+1)), dir: t.TempDir()}
		member := fmt.Sprintf("to-v%d", v.number)
		_, _, err := b.net.EnsureVeth(netdev.Veth{Name: member, MTU: 1600, Peer: netdev.VethPeer{Namespace: v.ns, Name: "up0",
			Addresses: []netip.Prefix{netip.PrefixFrom(v.underlay(false), 24), netip.PrefixFrom(v.underlay(true), 64)}}})
		must(t, err)
		must(t, b.net.SetMaster(member, "br0"))
		must(t, v.ns.SetUp("lo"))
		// The underlay as a wire: nothing longer than its MTU, all checksums filled in.
		wireLike(t, v.ns, "up0")
		v.stays = v.workload(t, "w", "port0", wire.MAC{2, 0, 0, 0, 1, byte(v.number)}, v.ip())
		v.moves = v.workload(t, "m", "port1", movingMAC, movingIP)
		must(t, v.moves.SetDown("eth0"))
		b.vteps = append(b.vteps, v)
	}
	return b
}

func wireLike(t testing.TB, ns *netdev.Handle, link string) {
	t.Helper()
	for _, f := range []netdev.Feature{netdev.TSO, netdev.GSO, netdev.TX} {
		must(t, ns.SetFeature(link, f, false))
	}
}

func (v *vtep) workload(t testing.TB, what, port string, mac wire.MAC, ip netip.Addr) *netdev.Handle {
	t.Helper()
	ns := namespace(t, fmt.Sprintf("%s%d", what, v.number))
	_, _, err := v.ns.EnsureVeth(netdev.Veth{Name: port, MTU: mtu, Quiet: true, Peer: netdev.VethPeer{Namespace: ns, Name: "eth0", MAC: mac,
		Addresses: []netip.Prefix{netip.PrefixFrom(ip, 24)}}})
	must(t, err)
	wireLike(t, ns, "eth0")
	return ns
}

// others are the underlay addresses of the other VTEPs.
func (b *bed) others(v *vtep, six bool) (list []netip.Addr) {
	for _, o := range b.vteps {
		if o != v {
			list = append(list, o.underlay(six))
		}
	}
	return list
}

// launch starts a program in a namespace that ends with the test.
func launch(t testing.TB, ns *netdev.Handle, log string, env []string, args ...string) *exec.Cmd {
	t.Helper()
	f, err := os.Create(log)
	must(t, err)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = f, f
	must(t, ns.Start(cmd))
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-ended:
		case <-time.After(patience):
			_ = cmd.Process.Kill()
			<-ended
			t.Errorf("%s did not end within %s", filepath.Base(args[0]), patience)
		}
		f.Close()
		if t.Failed() {
			said, _ := os.ReadFile(log)
			t.Logf("%s:\n%s", log, said)
		}
	})
	return cmd
}

// await waits for a condition by its name.
func await(t testing.TB, what string, cond func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		err := cond(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waited %s for %s: %v", patience, what, errors.Join(err))
		case <-time.After(50 * time.Millisecond):
		}
	}
}
