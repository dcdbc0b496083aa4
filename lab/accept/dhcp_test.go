package accept_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/durationpb"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/internal/testenv"
	"github.com/weftnet/weft/lab"
)

// Real clients in the namespaces of workloads. Each has a mount namespace with an /etc and a /run of its own, so that the machine's
// resolv.conf stays as it is.

// inMounts runs a shell script in a workload, with /etc and /run of its own; dir is the test's, for what the script leaves.
func (w *workload) inMounts(t testing.TB, dir, script string) *exec.Cmd {
	t.Helper()
	const mounts = `set -e
mkdir -p "$0/etc/dhcp" "$0/run"
for f in passwd group nsswitch.conf hosts dhcp alternatives systemd; do [ ! -e /etc/$f ] || cp -a /etc/$f "$0/etc/"; done
: >"$0/etc/resolv.conf"
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
	args := append([]string{"udhcpc", "-i", "eth0", "-f", "-q", "-n", "-t", "5", "-T", "1", "-s", script}, options...)
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
