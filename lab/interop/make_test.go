package interop

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weftnet/weft/internal/testenv"
)

// flood is how a network's floods travel.
type flood struct {
	// six: over IPv6.
	six bool
	// group: to a multicast group, and peers are learned; else to each remote.
	group netip.Addr
}

func (f flood) String() string {
	family := map[bool]string{false: "IPv4", true: "IPv6"}[f.six]
	if f.group.IsValid() {
		return "multicast " + family
	}
	return "unicast " + family
}

// A make puts the network on a VTEP.
type maker struct {
	name string
	// multicast: it can.
	multicast bool
	build     func(t testing.TB, b *bed, v *vtep, f flood)
}

var makes = []maker{
	{"weft", true, func(t testing.TB, b *bed, v *vtep, f flood) { buildWeft(t, b, v, f) }},
	{"Linux vxlan", true, buildLinux},
	{"Open vSwitch", false, buildOVS},
}

// buildWeft runs `weft vtep run`.
func buildWeft(t testing.TB, b *bed, v *vtep, f flood) *exec.Cmd {
	t.Helper()
	var y strings.Builder
	fmt.Fprintf(&y, "name: v%d\nunderlay: {uplink: %s}\nnetworks:\n- name: blue\n  vni: %d\n  mtu: %d\n", v.number, cmp.Or(v.uplinks, "up0"), vni, mtu)
	if f.group.IsValid() {
		bits := map[bool]int{false: 24, true: 64}[f.six]
		fmt.Fprintf(&y, "  group: %s\n  learning: {sources: [%q]}\n", f.group, netip.PrefixFrom(v.underlay(f.six), bits).Masked())
	} else {
		fmt.Fprintf(&y, "  learning: {}\n  remotes:\n")
		for _, o := range b.others(v, f.six) {
			fmt.Fprintf(&y, "  - %q\n", o)
		}
	}
	fmt.Fprintf(&y, "  ports: [port0, port1]\n")
	file := filepath.Join(v.dir, "vtep.yaml")
	must(t, os.WriteFile(file, []byte(y.String()), 0o600))
	bin := weft(t)
	t.Cleanup(func() {
		if _, err := try(v.ns, nil, bin, "vtep", "leave", "--dir", filepath.Join(v.dir, "state"), "--instance", instanceOf(v), "--pin-root", pinsOf(v)); err != nil {
			t.Error(err)
		}
		os.Remove(pinsOf(v))
		os.Remove(pinRoot) // the last takes it away
	})
	return startWeft(t, v)
}

func instanceOf(v *vtep) string { return fmt.Sprintf("%sv%d", prefix, v.number) }
func pinsOf(v *vtep) string     { return filepath.Join(pinRoot, fmt.Sprintf("v%d", v.number)) }

// startWeft starts one with the file that is there, and waits for its ports.
func startWeft(t testing.TB, v *vtep) *exec.Cmd {
	t.Helper()
	began := time.Now()
	cmd := launch(t, v.ns, filepath.Join(v.dir, fmt.Sprintf("weft-%d.log", began.UnixNano())), nil, weft(t), "vtep", "run", "-f", filepath.Join(v.dir, "vtep.yaml"),
		"--dir", filepath.Join(v.dir, "state"), "--agent-socket", filepath.Join(v.dir, "s"), "--instance", instanceOf(v), "--pin-root", pinsOf(v), "--tables", "lab")
	await(t, "both ports of a weft VTEP to be active", func(context.Context) error {
		held, err := show(v)
		if err != nil {
			return err
		}
		if len(held.Networks) != 1 || len(held.Networks[0].Ports) != 2 {
			return fmt.Errorf("it holds %+v", held)
		}
		for _, p := range held.Networks[0].Ports {
			if p.State != "active" {
				return fmt.Errorf("port %s is %s: %s", p.Name, p.State, p.Message)
			}
		}
		return nil
	})
	return cmd
}

// logOf is what the last process said.
func logOf(t testing.TB, v *vtep) string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(v.dir, "weft-*.log"))
	must(t, err)
	octets, err := os.ReadFile(slices.Max(all))
	must(t, err)
	return string(octets)
}

// held is what `weft vtep show` says.
type held struct {
	Networks []struct {
		Ports []struct{ Name, State, Message string }
		FDB   []struct{ Mac, Port, VTEP string } `json:"fdb"`
	}
}

func show(v *vtep) (h held, err error) {
	out, err := try(v.ns, nil, built.path, "vtep", "show", "--agent-socket", filepath.Join(v.dir, "s"), "-o", "json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &h)
	}
	return h, err
}

// buildLinux is a vxlan device that learns, in a bridge with the ports.
func buildLinux(t testing.TB, b *bed, v *vtep, f flood) {
	ip, bridge := testenv.RequireTool(t, "ip"), testenv.RequireTool(t, "bridge")
	args := []string{ip, "link", "add", "vx0", "mtu", fmt.Sprint(mtu), "type", "vxlan", "id", fmt.Sprint(vni), "local", v.underlay(f.six).String(), "dev", "up0",
		"dstport", "4789", "learning", "udp6zerocsumtx", "udp6zerocsumrx"}
	if f.group.IsValid() {
		args = append(args, "group", f.group.String())
	}
	run(t, v.ns, nil, args...)
	run(t, v.ns, nil, ip, "link", "add", "br0", "mtu", fmt.Sprint(mtu), "type", "bridge", "mcast_snooping", "0")
	for _, member := range []string{"vx0", "port0", "port1"} {
		must(t, v.ns.SetMaster(member, "br0"))
	}
	must(t, v.ns.SetUp("vx0"))
	must(t, v.ns.SetUp("br0"))
	if !f.group.IsValid() {
		for _, o := range b.others(v, f.six) {
			run(t, v.ns, nil, bridge, "fdb", "append", "00:00:00:00:00:00", "dev", "vx0", "dst", o.String())
		}
	}
}

// buildOVS is a switch with its datapath in user space. It floods from one tunnel into another unless they are protected.
func buildOVS(t testing.TB, b *bed, v *vtep, f flood) {
	for _, p := range []string{"ovs-vswitchd", "ovsdb-server", "ovsdb-tool"} {
		testenv.RequireTool(t, p)
	}
	tool := testenv.RequireTool(t, "ovs-vsctl")
	dir := filepath.Join(v.dir, "ovs")
	must(t, os.Mkdir(dir, 0o700))
	env := []string{"OVS_RUNDIR=" + dir, "OVS_LOGDIR=" + dir, "OVS_DBDIR=" + dir}
	db, sock, ctl := filepath.Join(dir, "conf.db"), filepath.Join(dir, "db.sock"), filepath.Join(dir, "sw.ctl")
	there := func(path string) func(context.Context) error {
		return func(context.Context) error { _, err := os.Stat(path); return err }
	}
	run(t, v.ns, env, testenv.RequireTool(t, "ovsdb-tool"), "create", db, "/usr/share/openvswitch/vswitch.ovsschema")
	launch(t, v.ns, filepath.Join(dir, "db.out"), env, testenv.RequireTool(t, "ovsdb-server"), db, "--remote=punix:"+sock, "--unixctl="+filepath.Join(dir, "db.ctl"))
	await(t, "the database of Open vSwitch", there(sock))
	vsctl := func(args ...string) {
		t.Helper()
		run(t, v.ns, env, append([]string{tool, "--db=unix:" + sock, "--timeout=15"}, args...)...)
	}
	vsctl("--no-wait", "init")
	launch(t, v.ns, filepath.Join(dir, "sw.out"), env, testenv.RequireTool(t, "ovs-vswitchd"), "unix:"+sock, "--disable-system", "--unixctl="+ctl)
	await(t, "Open vSwitch", there(ctl))
	vsctl("--", "add-br", "br-int", "--", "set", "bridge", "br-int", "datapath_type=netdev",
		"--", "add-br", "br-phy", "--", "set", "bridge", "br-phy", "datapath_type=netdev", "--", "add-port", "br-phy", "up0",
		"--", "add-port", "br-int", "port0", "--", "add-port", "br-int", "port1")
	// The underlay's address goes to the interface that is the switch's own.
	for _, p := range []netip.Prefix{netip.PrefixFrom(v.underlay(false), 24), netip.PrefixFrom(v.underlay(true), 64)} {
		must(t, v.ns.DeleteAddress("up0", p))
		must(t, v.ns.AddAddress("br-phy", p))
	}
	must(t, v.ns.SetUp("br-phy"))
	for i, o := range b.others(v, f.six) {
		name := fmt.Sprintf("vx%d", i)
		vsctl("--", "add-port", "br-int", name, "--", "set", "port", name, "protected=true", "--", "set", "interface", name, "type=vxlan",
			"options:remote_ip="+o.String(), "options:local_ip="+v.underlay(f.six).String(), fmt.Sprintf("options:key=%d", vni))
	}
}
