package accept_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/durationpb"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/internal/testenv"
	"github.com/weftnet/weft/lab"
	"github.com/weftnet/weft/wire"
)

// Real clients in the namespaces of workloads. Each has a mount namespace with an /etc and a /run of its own, so that the machine's
// resolv.conf stays as it is.

// inMounts runs a shell script in a workload, with /etc and /run of its own; dir is the test's, for what the script leaves.
func (w *workload) inMounts(t testing.TB, dir, script string) *exec.Cmd {
	t.Helper()
	const mounts = `set -e
mkdir -p "$0/etc/dhcp" "$0/run"
for f in passwd group nsswitch.conf hosts dhcp alternatives systemd; do [ ! -e /etc/$f ] || cp -a /etc/$f "$0/etc/"; done
: >"$0/etc/resolv.conf"; : >"$0/etc/fstab"; echo 0123456789abcdef0123456789abcdef >"$0/etc/machine-id"
mount --bind "$0/etc" /etc
mount --bind "$0/run" /run
`
	return exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", mounts+script, dir)
}

// bare takes the addresses away that the lab gave a workload: it gets them from its client.
func (w *workload) bare(t testing.TB) {
	t.Helper()
	if err := w.ns.SetAddresses("eth0", nil); err != nil {
		t.Fatal(err)
	}
}

// udhcpc leases once, and gives what the client was told: the variables that its script sees.
func (w *workload) udhcpc(t testing.TB, options ...string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	script := filepath.Join(dir, "script")
	told := filepath.Join(dir, "told")
	const apply = `#!/bin/sh
case "$1" in
bound|renew)
	ip addr replace "$ip/$mask" dev "$interface"
	{ echo "event=$1"; env; } >%s.new && mv %s.new %s
esac
`
	if err := os.WriteFile(script, fmt.Appendf(nil, apply, told, told, told), 0o755); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"udhcpc", "-i", "eth0", "-f", "-q", "-n", "-t", "30", "-T", "1", "-s", script}, options...)
	r := finish(t, exec.Command("busybox", args...), w.ns.Start)
	if r.status != 0 {
		t.Fatalf("udhcpc: status %d\n%s%s", r.status, r.out, r.err)
	}
	return variables(t, told)
}

func variables(t testing.TB, file string) map[string]string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	vars := map[string]string{}
	for line := range strings.Lines(string(b)) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		vars[k] = v
	}
	return vars
}

// dhcpNetwork is one with everything that there is to tell.
func (f *fixture) dhcpNetwork(t *testing.T, tenant string) {
	t.Helper()
	f.tenant(t, tenant)
	f.network(t, tenant, "blue", &weftv1.NetworkSpec{Subnets: []string{"10.1.0.0/24", "fd00:1::/64"}, Mtu: 1380, Dhcp: &weftv1.DHCP{
		Gateways: []string{"10.1.0.1", "fe80::1"}, DnsServers: []string{"10.1.0.53", "fd00:1::53"}, Domain: "blue.example.org",
		Routes: []*weftv1.Route{{Prefix: "10.9.0.0/16", Gateway: "10.1.0.9"}}, LeaseTime: durationpb.New(3600e9),
	}})
}

// TestUdhcpc: busybox's client gets the port's address and all that the network says, on each host the same, and renews.
//
// Red when from_port has no serve stage; when lease4 leaves a thing out (`r.UpdateOption(dhcpv4.OptDNS...)`); when dhcp() of compile is nil.
func TestUdhcpc(t *testing.T) {
	testenv.RequireTool(t, "busybox")
	f := sharedLab(t)
	f.dhcpNetwork(t, "udhcpc")
	for i, host := range []string{"h1", "h2"} {
		w := f.workload(t, lab.WorkloadSpec{Name: fmt.Sprintf("dh%d", i+1), Host: host, Tenant: "udhcpc", Network: "blue"})
		want := w.v4()
		w.bare(t)
		told := w.udhcpc(t, "-O", "121", "-O", "26", "-O", "15", "-O", "12")
		for k, v := range map[string]string{"ip": want.String(), "mask": "24", "subnet": "255.255.255.0", "router": "10.1.0.1", "dns": "10.1.0.53",
			"domain": "blue.example.org", "hostname": w.Name, "lease": "3600", "serverid": "169.254.73.48", "mtu": "1380",
			"staticroutes": "169.254.73.48/32 0.0.0.0 10.9.0.0/16 10.1.0.9 0.0.0.0/0 10.1.0.1"} {
			if told[k] != v {
				t.Errorf("%s: %s is %q, want %q", w.Name, k, told[k], v)
			}
		}
	}
	show := func() string { return f.must(t, "port", "show", "dh1", "--tenant", "udhcpc") }
	eventually(t, "the port says what was asked", func() (bool, string) {
		out := show()
		return strings.Contains(out, "Asked its host") && strings.Contains(out, " 0 refused"), out
	})
}

// TestDhclient: ISC's client with Debian's own script, over IPv4 and, as the router advertisement says, over IPv6; the kernel takes the advertisement:
// the prefix is on the link, the router is the network's, no address is made.
//
// Red when from_port has no serve stage; when advertisement leaves Managed out, or the prefix; when lease6 gives no address.
func TestDhclient(t *testing.T) {
	testenv.RequireTool(t, "dhclient")
	f := sharedLab(t)
	f.dhcpNetwork(t, "dhclient")
	w := f.workload(t, lab.WorkloadSpec{Name: "isc", Host: "h1", Tenant: "dhclient", Network: "blue"})
	v4, v6 := w.v4(), w.v6()
	w.bare(t)
	const script = `
ip link set eth0 down; ip link set eth0 up
n=0
until [ -n "$(ip -6 route show default dev eth0)" ] && ip -6 addr show dev eth0 scope link | grep -q "inet6 fe80" && ! ip -6 addr show dev eth0 | grep -q tentative; do
	n=$((n+1)); [ $n -lt 300 ] || { echo "no router in 30 s"; exit 1; }
	sleep 0.1
done
ip -6 addr show dev eth0 scope global >"$0/before"
dhclient -4 -1 -lf "$0/4.leases" -pf "$0/4.pid" eth0
cp /etc/resolv.conf "$0/resolv.conf"
dhclient -6 -1 -lf "$0/6.leases" -pf "$0/6.pid" eth0
ip -o addr show dev eth0 scope global >"$0/addresses"
{ ip route show dev eth0; ip -6 route show dev eth0; } >"$0/routes"
dhclient -4 -x -lf "$0/4.leases" -pf "$0/4.pid" eth0
dhclient -6 -x -lf "$0/6.leases" -pf "$0/6.pid" eth0
`
	dir := t.TempDir()
	if r := finish(t, w.inMounts(t, dir, script), w.ns.Start); r.status != 0 {
		t.Fatalf("dhclient: status %d\n%s%s", r.status, r.out, r.err)
	}
	for file, wants := range map[string][]string{
		"addresses":   {" " + v4.String() + "/24 ", " " + v6.String() + "/"},
		"resolv.conf": {"nameserver 10.1.0.53", "blue.example.org"},
		"routes":      {"169.254.73.48", "10.9.0.0/16 via 10.1.0.9", "default via 10.1.0.1", "default via fe80::1 proto ra", "fd00:1::/64 proto kernel"},
		"4.leases":    {"option host-name \"isc\"", "option interface-mtu 1380"},
		"6.leases":    {"option dhcp6.name-servers fd00:1::53", "option dhcp6.domain-search \"blue.example.org"},
	} {
		b, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range wants {
			if !strings.Contains(string(b), want) {
				t.Errorf("%s has no %q:\n%s", file, want, b)
			}
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "before")); err != nil || len(b) > 0 {
		t.Errorf("before DHCPv6 there is an address: %s %v", b, err)
	}
}

// TestDHCPWithoutServer: with the server killed a workload gets its lease from the agent, from one that is new, and from one on a host that comes back
// with nothing but its disk.
//
// Red when load takes the snapshot without the networks' Dhcp (plan.Snapshot), or startServant asks the server for anything.
func TestDHCPWithoutServer(t *testing.T) {
	testenv.RequireTool(t, "busybox")
	f := ownLab(t, lab.Config{Name: "dhcpalone", Spines: 1})
	f.dhcpNetwork(t, "acme")
	w := f.workload(t, lab.WorkloadSpec{Name: "alone", Host: "h1", Tenant: "acme", Network: "blue"})
	want := w.v4().String()
	w.bare(t)
	if err := f.KillServer(limited(t)); err != nil {
		t.Fatal(err)
	}
	leased := func(when string) {
		t.Helper()
		if told := w.udhcpc(t); told["ip"] != want || told["dns"] != "10.1.0.53" {
			t.Errorf("%s: the workload gets %q, wants %s", when, told["ip"], want)
		}
	}
	leased("the server is killed")
	restartHeadless(t, f, "h1")
	leased("the agent is new")
	f.wipe(t, "h1")
	restartHeadless(t, f, "h1")
	leased("the kernel is new")
	if err := f.StartServer(limited(t)); err != nil {
		t.Fatal(err)
	}
}

// TestRenewAfterMove: a client that leased on one host renews on the next, from the server that it knows, and gets what it had.
//
// Red when request4 takes only what selects an offer (id == nil is refused).
func TestRenewAfterMove(t *testing.T) {
	testenv.RequireTool(t, "busybox")
	f := sharedLab(t)
	f.dhcpNetwork(t, "renew")
	w := f.workload(t, lab.WorkloadSpec{Name: "roamer", Host: "h1", Tenant: "renew", Network: "blue"})
	want := w.v4()
	w.bare(t)
	dir := t.TempDir()
	script, told := filepath.Join(dir, "script"), filepath.Join(dir, "told")
	const apply = `#!/bin/sh
case "$1" in
bound|renew)
	ip addr replace "$ip/$mask" dev "$interface"
	ip route replace "$serverid" dev "$interface"
esac
echo "$1 $ip from $serverid" >>%s
`
	if err := os.WriteFile(script, fmt.Appendf(nil, apply, told), 0o755); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd := exec.Command("busybox", "udhcpc", "-i", "eth0", "-f", "-n", "-t", "30", "-T", "1", "-O", "121", "-s", script)
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := w.ns.Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the client says:\n%s", said.String())
		}
	})
	heard := func(what string) {
		t.Helper()
		line := what + " " + want.String() + " from 169.254.73.48\n"
		eventually(t, "the client is told: "+line, func() (bool, string) {
			b, _ := os.ReadFile(told)
			return strings.HasSuffix(string(b), line), string(b)
		})
	}
	heard("bound")
	for _, host := range []string{"h2", "h1"} {
		if _, err := f.MoveWorkload(limited(t), w.Name, host); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(told, 0); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Process.Signal(unix.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		heard("renew")
	}
}

// TestRogueServices: a workload that answers as a DHCP server, and one that is a router, are heard when their ports may, and else not.
//
// Red when serve_slow lets SERVICE_FROM_SERVER or SERVICE_FROM_ROUTER pass.
func TestRogueServices(t *testing.T) {
	f := sharedLab(t)
	f.tenant(t, "rogue")
	f.network(t, "rogue", "blue", &weftv1.NetworkSpec{Subnets: []string{"10.1.0.0/24"}, Dhcp: &weftv1.DHCP{Disabled: true}})
	bad := f.workload(t, lab.WorkloadSpec{Name: "rogue1", Host: "h1", Tenant: "rogue", Network: "blue"})
	f.workload(t, lab.WorkloadSpec{Name: "victim", Host: "h2", Tenant: "rogue", Network: "blue"})
	mac, err := wire.ParseMAC(bad.MACs[0])
	if err != nil {
		t.Fatal(err)
	}
	offer := wire.Flow{SrcMAC: mac, DstMAC: wire.BroadcastMAC, Src: bad.v4(), Dst: netip.MustParseAddr("255.255.255.255")}.UDP(67, 68, make([]byte, 300))
	advert := wire.RouterAdvertisement{}.Frame(wire.Flow{SrcMAC: mac, DstMAC: wire.MAC{0x33, 0x33, 0, 0, 0, 1}, Src: netip.MustParseAddr("fe80::66"), Dst: netip.MustParseAddr("ff02::1")})
	sendRaw(t, bad.ns, offer)
	sendRaw(t, bad.ns, advert)
	for _, reason := range []string{"dhcp_server", "router_advertisement"} {
		eventually(t, reason+" is counted", func() (bool, string) {
			out := f.must(t, "port", "show", "rogue1", "--tenant", "rogue")
			return strings.Contains(out, reason+": "), out
		})
	}
	f.must(t, "port", "set", "rogue1", "--tenant", "rogue", "--dhcp-server", "--router", "--wait")
	before := f.must(t, "port", "show", "rogue1", "--tenant", "rogue", "-o", "json")
	sendRaw(t, bad.ns, offer)
	sendRaw(t, bad.ns, advert)
	eventually(t, "the frames are counted", func() (bool, string) {
		out := f.must(t, "port", "show", "rogue1", "--tenant", "rogue", "-o", "json")
		return field(out, "egressPackets") != field(before, "egressPackets"), out
	})
	if after := f.must(t, "port", "show", "rogue1", "--tenant", "rogue"); strings.Contains(after, "dhcp_server: 2") || strings.Contains(after, "router_advertisement: 2") {
		t.Errorf("a port that may is not heard:\n%s", after)
	}
}

// field is what a JSON text says first of a key.
func field(text, key string) string {
	_, rest, _ := strings.Cut(text, `"`+key+`":`)
	value, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(value)
}

// sendRaw puts a frame on a workload's eth0 as it is.
func sendRaw(t testing.TB, ns *netdev.Handle, frame []byte) {
	t.Helper()
	l, err := ns.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if err := ns.Run(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: l.Index, Halen: 6})
	}); err != nil {
		t.Fatal(err)
	}
}

// TestNetworkd: systemd-networkd in the workload's namespaces takes both addresses, the routes and the router, as DHCP and the advertisement say. There
// is no udev in a namespace: networkd looks for none where /sys is read-only.
//
// Red for the reasons of TestDhclient.
func TestNetworkd(t *testing.T) {
	const networkd = "/lib/systemd/systemd-networkd"
	if _, err := os.Stat(networkd); err != nil {
		testenv.Missing(t, testenv.Peers, networkd+" is not installed")
	}
	f := sharedLab(t)
	f.dhcpNetwork(t, "networkd")
	w := f.workload(t, lab.WorkloadSpec{Name: "sysd", Host: "h2", Tenant: "networkd", Network: "blue"})
	v4, v6 := w.v4(), w.v6()
	w.bare(t)
	const script = `
mount -t sysfs -o ro sysfs /sys
mkdir -p /run/systemd/network /run/systemd/netif
chmod 755 "$0" /run /run/systemd /run/systemd/network; chown systemd-network /run/systemd/netif
printf '[Match]\nName=eth0\n[Network]\nDHCP=yes\n' >/run/systemd/network/eth0.network
ip link set eth0 down
SYSTEMD_LOG_LEVEL=debug SYSTEMD_LOG_TARGET=console ` + networkd + ` >"$0/log" 2>&1 &
echo $! >"$0/pid"
trap 'kill $!' EXIT
complete() { # networkd sets the routes of an address after it, one by one
	ip -o addr show dev eth0 scope global >"$0/addresses"
	{ ip route show dev eth0; ip -6 route show dev eth0; } >"$0/routes"
	[ $(wc -l <"$0/addresses") -ge 2 ] || return 1
	for r in 169.254.73.48 10.9.0.0/16 'default via 10.1.0.1' 'default via fe80::1' fd00:1::/64; do
		grep -qF "$r" "$0/routes" || return 1
	done
}
n=0
until complete; do
	n=$((n+1)); [ $n -lt 300 ] || break
	sleep 0.1
done
`
	dir := t.TempDir()
	if r := finish(t, w.inMounts(t, dir, script), w.ns.Start); r.status != 0 {
		t.Fatalf("networkd: status %d\n%s%s", r.status, r.out, r.err)
	}
	for file, wants := range map[string][]string{
		"addresses": {" " + v4.String() + "/24 ", " " + v6.String() + "/128 "},
		"routes":    {"169.254.73.48", "10.9.0.0/16 via 10.1.0.9", "default via 10.1.0.1", "default via fe80::1", "fd00:1::/64"},
	} {
		b, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range wants {
			if !strings.Contains(string(b), want) {
				log, _ := os.ReadFile(filepath.Join(dir, "log"))
				t.Fatalf("%s has no %q:\n%s\nthe log ends:\n%s", file, want, b, log[max(0, len(log)-12000):])
			}
		}
	}
}
