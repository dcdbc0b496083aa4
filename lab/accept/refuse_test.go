package accept_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/client"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/internal/testenv"
	"github.com/weftnet/weft/lab"
)

// intent is everything that users asked for, and where ports are bound, by the real program's listings.
func (f *fixture) intent(t testing.TB) string {
	t.Helper()
	var b strings.Builder
	for _, args := range [][]string{{"tenant", "list"}, {"network", "list", "-A"}, {"port", "list", "-A"}, {"vtep", "list"}, {"pool", "list"}, {"host", "list"}, {"token", "list"}} {
		out := f.must(t, append(args, "-o", "json")...)
		var list map[string][]map[string]any
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			t.Fatalf("weft %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		for _, objects := range list {
			for _, o := range objects {
				// Of a status only what was allocated and where it is: the rest moves by itself.
				status, _ := o["status"].(map[string]any)
				for k := range status {
					if !slices.Contains([]string{"vni", "mtu", "macs", "ips", "binding", "networks"}, k) {
						delete(status, k)
					}
				}
				line, err := json.Marshal(o)
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprintf(&b, "%s: %s\n", args[0], line)
			}
		}
	}
	return b.String()
}

// refused wants a command's exit status and every one of the words in its error, and that nothing has changed.
func refused(t *testing.T, f *fixture, status int, words []string, run func() result) {
	t.Helper()
	before := f.intent(t)
	r := run()
	if r.status != status {
		t.Errorf("exit status %d, want %d\n%s%s", r.status, status, r.out, r.err)
	}
	for _, w := range words {
		if !strings.Contains(r.err, w) {
			t.Errorf("the error does not say %q:\n%s", w, r.err)
		}
	}
	if after := f.intent(t); after != before {
		t.Errorf("it was refused, and changed something:\nbefore:\n%s\nafter:\n%s", before, after)
	}
}

// refusedObjects are what the next test refuses to spoil: two tenants, a network with a port that is bound to h1, a pool of one.
func refusedObjects(t *testing.T, f *fixture) {
	t.Helper()
	f.tenant(t, "refuse")
	f.tenant(t, "other")
	f.must(t, "network", "create", "blue", "--tenant", "refuse", "--vni", "60001", "--subnet", "10.1.0.0/24", "--subnet", "fd00:1::/64")
	f.must(t, "network", "create", "red", "--tenant", "other")
	f.workload(t, lab.WorkloadSpec{Name: "refuse-1", Host: "h1", Tenant: "refuse", Network: "blue", Port: "web1",
		IPs: []string{"10.1.0.10", "fd00:1::10"}, MACs: []string{"02:00:00:00:09:01"}})
	f.must(t, "vtep", "create", "refuse-ext", "--address", "192.0.2.77")
	t.Cleanup(func() { f.must(t, "vtep", "delete", "refuse-ext") })
	// Freed with the networks of the tenant, whose cleanups run before this one only if it is registered before them: so by hand.
	f.must(t, "pool", "create", "tiny", "--first", "70000", "--last", "70000")
	f.must(t, "network", "create", "last", "--tenant", "refuse", "--vni-pool", "tiny")
	t.Cleanup(func() {
		f.must(t, "network", "delete", "last", "--tenant", "refuse")
		eventually(t, "the pool may go", func() (bool, string) {
			r := f.weft(t, "pool", "delete", "tiny")
			return r.status == 0, r.err
		})
	})
}

// TestBadInputIsRefused is the list of what bad input gets: a field, what to do, an exit status, and nothing changed.
// Goes red when a check in model.Validate, a compare-and-create of the store or a line of trust's table is taken out: the case of
// that name passes the command.
func TestBadInputIsRefused(t *testing.T) {
	f := sharedLab(t)
	refusedObjects(t, f)
	on := []string{"--tenant", "refuse"}
	network := func(args ...string) []string {
		return append(append([]string{"network", "create", "x"}, on...), args...)
	}
	port := func(args ...string) []string {
		return append(append([]string{"port", "create", "web2", "--network", "blue"}, on...), args...)
	}
	for _, c := range []struct {
		name   string
		args   []string
		stdin  string
		status int
		words  []string
	}{
		{"VNI 0", network("--vni", "0"), "", 2, []string{"vni", "1..16777215", "fix:"}},
		{"VNI past 24 bits", network("--vni", "16777216"), "", 2, []string{"vni", "16777216", "1..16777215", "fix:"}},
		{"VNI taken", network("--vni", "60001"), "", 1, []string{"spec.vni", "60001", "taken", "blue", "fix:"}},
		{"VNI taken by another tenant", []string{"network", "create", "x", "--tenant", "other", "--vni", "60001"}, "", 1, []string{"spec.vni", "60001", "taken", "fix:"}},
		{"full VNI pool", network("--vni-pool", "tiny"), "", 1, []string{"spec.vni_pool", "tiny", "no free VNI", "70000", "fix:"}},
		{"name of a tenant taken", []string{"tenant", "create", "refuse"}, "", 1, []string{"name", "refuse already", "fix:"}},
		{"name of a network taken", append([]string{"network", "create", "blue"}, on...), "", 1, []string{"name", "blue already", "fix:"}},
		{"name of a port taken", append([]string{"port", "create", "web1", "--network", "blue"}, on...), "", 1, []string{"name", "web1 already", "fix:"}},
		{"name of a VTEP taken", []string{"vtep", "create", "refuse-ext", "--address", "192.0.2.78"}, "", 1, []string{"name", "refuse-ext already", "fix:"}},
		{"name of a pool taken", []string{"pool", "create", "tiny", "--first", "80000", "--last", "80001"}, "", 1, []string{"name", "tiny already", "fix:"}},
		{"no name", append([]string{"network", "create", "Bl_ue"}, on...), "", 2, []string{"name", "Bl_ue", "fix:"}},
		{"IP taken", port("--ip", "10.1.0.10"), "", 1, []string{"spec.ips[0]", "10.1.0.10", "web1", "fix:"}},
		{"MAC taken", port("--mac", "02:00:00:00:09:01"), "", 1, []string{"spec.macs[0]", "02:00:00:00:09:01", "web1", "fix:"}},
		{"IPv4 outside", port("--ip", "10.9.0.1"), "", 2, []string{"spec.ips[0]", "10.9.0.1", "outside the subnets", "10.1.0.0/24", "fix:"}},
		{"IPv6 outside", port("--ip", "fd00:2::1"), "", 2, []string{"spec.ips[0]", "fd00:2::1", "outside the subnets", "fd00:1::/64", "fix:"}},
		{"broadcast address", port("--ip", "10.1.0.255"), "", 2, []string{"spec.ips[0]", "broadcast", "fix:"}},
		{"overlapping subnets", network("--subnet", "10.2.0.0/16", "--subnet", "10.2.3.0/24"), "", 2, []string{"spec.subnets[1]", "10.2.3.0/24", "overlaps 10.2.0.0/16", "fix:"}},
		{"host bits in a subnet", network("--subnet", "10.2.0.5/24"), "", 2, []string{"spec.subnets[0]", "10.2.0.5/24", "10.2.0.0/24", "fix:"}},
		{"host prefix as subnet", network("--subnet", "10.2.0.5/32"), "", 2, []string{"spec.subnets[0]", "10.2.0.5/32", "single address", "fix:"}},
		{"IPv6 host prefix as subnet", network("--subnet", "fd00:2::5/128"), "", 2, []string{"spec.subnets[0]", "fd00:2::5/128", "single address", "fix:"}},
		{"multicast MAC", port("--mac", "01:00:5e:00:00:01"), "", 2, []string{"spec.macs[0]", "multicast", "fix:"}},
		{"zero MAC", port("--mac", "00:00:00:00:00:00"), "", 2, []string{"spec.macs[0]", "00:00:00:00:00:00", "fix:"}},
		{"a network with ports", append([]string{"network", "delete", "blue"}, on...), "", 1, []string{"network", "blue has 1 port", "fix:", "weft port list"}},
		{"a tenant with networks", []string{"tenant", "delete", "refuse"}, "", 1, []string{"tenant", "refuse has", "fix:"}},
		{"a host with ports", []string{"host", "remove", "h1"}, "", 1, []string{"host", "h1 has 1 bound port", "fix:", "--force"}},
		{"a bound port", append([]string{"port", "delete", "web1"}, on...), "", 1, []string{"port", "web1", "h1", "fix:"}},
		{"unknown YAML key", []string{"apply", "-f", "-"}, "kind: Network\ntenant: refuse\nname: green\nspec:\n  subnet: [10.3.0.0/24]\n", 2, []string{":5:", `"subnet"`, "subnets", "fix:"}},
		{"unknown kind", []string{"apply", "-f", "-"}, "kind: Netwrok\ntenant: refuse\nname: green\n", 2, []string{":1:", "Netwrok", "fix:"}},
		{"a good document before a bad one", []string{"apply", "-f", "-"}, "kind: Tenant\nname: good\n---\nkind: Network\ntenant: good\nname: green\nspec:\n  vnis: 7\n", 2, []string{"vnis", "fix:"}},
		{"stale revision", append([]string{"network", "set", "blue", "--revision", "1", "--description", "late"}, on...), "", 1, []string{"revision", "blue is at revision", "based on 1", "fix:"}},
		{"MTU past the underlay", append([]string{"network", "set", "blue", "--mtu", "1501"}, on...), "", 1, []string{"mtu", "1551", "1550", "fix:"}},
		{"an unknown tenant", []string{"network", "create", "x", "--tenant", "nobody"}, "", 1, []string{"tenant", "nobody", "fix:"}},
		{"an unknown flag", []string{"tenant", "create", "x", "--colour", "red"}, "", 2, []string{"--colour"}},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			refused(t, f, c.status, c.words, func() result { return f.weftWith(t, c.stdin, c.args...) })
		})
	}
	t.Run("what-works-goes-on", func(t *testing.T) {
		f.must(t, "network", "create", "x", "--tenant", "refuse", "--wait")
		f.must(t, "network", "delete", "x", "--tenant", "refuse")
	})
	t.Run("a-port-of-another-host", func(t *testing.T) {
		refused(t, f, 1, []string{"web1", "h1", "fix:", "move"}, func() result {
			return f.weftOn(t, "h2", "port", "attach", "web1", "--tenant", "refuse", "--netns", f.nodeName(t, "h2"))
		})
	})
	t.Run("a-change-that-came-second", func(t *testing.T) { refuseStale(t, f) })
	t.Run("a-token-of-another-tenant", func(t *testing.T) { refuseForeignTenant(t, f) })
	t.Run("an-underlay-too-small", func(t *testing.T) { refuseSmallUnderlay(t, f) })
}

// nodeName is the namespace's name of a node.
func (f *fixture) nodeName(t testing.TB, node string) string {
	t.Helper()
	s, err := f.State()
	if err != nil {
		t.Fatal(err)
	}
	return s.Prefix + node
}

// refuseStale: of two changes based on the same revision the second is refused.
func refuseStale(t *testing.T, f *fixture) {
	c := f.api(t)
	n, err := c.Networks.GetNetwork(limited(t), connect.NewRequest(&weftv1.GetNetworkRequest{Tenant: "refuse", Name: "blue"}))
	if err != nil {
		t.Fatal(err)
	}
	change := func(description string) error {
		spec := n.Msg.GetSpec()
		spec.Description = description
		_, err := c.Networks.UpdateNetwork(limited(t), connect.NewRequest(&weftv1.UpdateNetworkRequest{Tenant: "refuse", Name: "blue",
			Revision: n.Msg.GetMeta().GetRevision(), Spec: spec}))
		return err
	}
	if err := change("first"); err != nil {
		t.Fatal(err)
	}
	before := f.intent(t)
	e := client.Explain(change("second"))
	if e == nil || e.Code != connect.CodeAborted && e.Code != connect.CodeFailedPrecondition || e.Field != "revision" || e.Fix == "" {
		t.Errorf("the second change on one revision: %v, want a refusal about revision", e)
	}
	if f.intent(t) != before {
		t.Error("the second change was refused, and changed something")
	}
}

// refuseForeignTenant: a tenant's token, over TLS from another namespace.
func refuseForeignTenant(t *testing.T, f *fixture) {
	token := strings.TrimSpace(f.must(t, "token", "create", "refuse-ci", "--scope", "tenant", "--tenant", "refuse"))
	t.Cleanup(func() { f.weft(t, "token", "delete", "refuse-ci") })
	reader := strings.TrimSpace(f.must(t, "token", "create", "refuse-ro", "--scope", "read-only", "--tenant", "refuse"))
	t.Cleanup(func() { f.weft(t, "token", "delete", "refuse-ro") })
	remote := func(token string, args ...string) func() result {
		return func() result {
			cmd := exec.Command(f.bin, args...)
			cmd.Env = clean("WEFT_SERVER="+serverAddress, "WEFT_TOKEN="+token, "HOME=/nonexistent")
			return finish(t, cmd, f.node(t, "h2").Start)
		}
	}
	if r := remote(token, "network", "list", "--tenant", "refuse")(); r.status != 0 || !strings.Contains(r.out, "blue") {
		t.Errorf("the token does not work on its own tenant: status %d\n%s%s", r.status, r.out, r.err)
	}
	for _, args := range [][]string{{"network", "list"}, {"network", "show", "red"}, {"network", "create", "stolen"}, {"network", "delete", "red"}, {"port", "create", "p", "--network", "red"}} {
		refused(t, f, 1, []string{"tenant", "refuse", "other", "fix:"}, remote(token, append(args, "--tenant", "other")...))
	}
	refused(t, f, 1, []string{"fix:"}, remote(token, "tenant", "create", "mine"))
	refused(t, f, 1, []string{"fix:"}, remote(token, "host", "token", "create", "evil"))
	refused(t, f, 1, []string{"fix:"}, remote(reader, "network", "create", "x", "--tenant", "refuse"))
	id, secret, ca := parts(t, token)
	refused(t, f, 1, []string{"token", "fix:"}, remote("weft-api."+id+"."+turned(secret)+"."+ca, "network", "list", "--tenant", "refuse"))
	refused(t, f, 1, []string{"CA", "fix:"}, remote("weft-api."+id+"."+secret+"."+turned(ca), "network", "list", "--tenant", "refuse"))
	// Without a word from any server: which address, and how long.
	r := func() result {
		began := time.Now()
		cmd := exec.Command(f.bin, "network", "list", "--tenant", "refuse")
		cmd.Env = clean("WEFT_SERVER=172.31.0.1:9,172.31.0.99:7348", "WEFT_TOKEN="+token, "HOME=/nonexistent")
		r := finish(t, cmd, f.node(t, "h2").Start)
		saysHowLong(t, r, time.Since(began))
		return r
	}
	refused(t, f, 1, []string{"172.31.0.1:9", "refused", "172.31.0.99:7348", "fix:"}, r)
}

// triedFor is how long a command says that it tried to reach a server.
var triedFor = regexp.MustCompile(`answered in ([0-9.]+m?s)`)

// saysHowLong wants an error to tell how long a server was tried: its five seconds, or more on a machine that stood still meanwhile, but no more than
// the command took.
func saysHowLong(t *testing.T, r result, took time.Duration) {
	t.Helper()
	var said time.Duration
	m := triedFor.FindStringSubmatch(r.err)
	if m != nil {
		said, _ = time.ParseDuration(m[1])
	}
	if said < client.DefaultPatience || said > took.Round(100*time.Millisecond) {
		t.Errorf("the command took %s, and has to try for %s; it says:\n%s", took, client.DefaultPatience, r.err)
	}
}

const serverAddress = "172.31.0.1:7348"

// parts of a token: kind.id.secret.ca.
func parts(t testing.TB, token string) (id, secret, ca string) {
	t.Helper()
	p := strings.Split(token, ".")
	if len(p) != 4 {
		t.Fatalf("%q is no token", token)
	}
	return p[1], p[2], p[3]
}

// turned is another hexadecimal string of the same form.
func turned(hex string) string {
	return strings.Map(func(r rune) rune {
		i := strings.IndexRune("0123456789abcdef", r)
		return rune("123456789abcdef0"[i])
	}, hex)
}

// refuseSmallUnderlay: a pinned MTU that the uplink of the host cannot carry, when a port is attached there.
func refuseSmallUnderlay(t *testing.T, f *fixture) {
	f.must(t, "network", "create", "big", "--tenant", "refuse", "--mtu", "9000", "--subnet", "10.4.0.0/24")
	f.must(t, "port", "create", "big1", "--tenant", "refuse", "--network", "big")
	refused(t, f, 1, []string{"9050", "1550", "fix:"}, func() result {
		return f.weftOn(t, "h2", "port", "attach", "big1", "--tenant", "refuse", "--netns", f.nodeName(t, "h2"), "--ifname", "big1")
	})
	if _, err := f.node(t, "h2").LinkByName("big1"); err == nil {
		t.Error("the refused attachment left an interface")
	}
}

// spare is a namespace on the management link that is no host.
type spare struct {
	name string
	ns   *netdev.Handle
	dir  string
}

func addSpare(t *testing.T, f *fixture, name string, octet byte) *spare {
	t.Helper()
	s := &spare{name: "wefttest-accept-" + name, dir: t.TempDir()}
	if err := netdev.DeleteNamespace(s.name); err != nil {
		t.Fatal(err)
	}
	if err := netdev.CreateNamespace(s.name); err != nil {
		t.Fatal(err)
	}
	atEnd(t, func() error { return netdev.DeleteNamespace(s.name) })
	var err error
	if s.ns, err = netdev.OpenName(s.name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.ns.Close)
	server := f.node(t, "server")
	link := "to-" + name
	_, _, err = server.EnsureVeth(netdev.Veth{Name: link, Peer: netdev.VethPeer{Namespace: s.ns, Name: "mgmt0",
		Addresses: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 31, 2, octet}), 16)}}})
	if err == nil {
		err = server.SetMaster(link, "mgmt0")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.DeleteLink(link) })
	return s
}

// agent is the command line of an agent there, with an identity of its own by its directory.
func (s *spare) agent(f *fixture, host, dir, token string) *exec.Cmd {
	d := filepath.Join(s.dir, dir)
	cmd := exec.Command(f.bin, "agent", "--name", host, "--server", serverAddress, "--dir", d, "--socket", d+".sock",
		"--pin-root", "/sys/fs/bpf/"+s.name, "--instance", s.name, "--vtep-address", s.address())
	cmd.Env = clean("WEFT_TOKEN=" + token)
	return cmd
}

func (s *spare) address() string {
	a, err := s.ns.Addresses("mgmt0")
	if err != nil {
		return ""
	}
	for _, x := range a {
		if x.Prefix.Addr().Is4() {
			return x.Prefix.Addr().String()
		}
	}
	return ""
}

// run is an agent that is expected to give up by itself; one that does not is ended.
func (s *spare) run(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), inTime)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	atEnd(t, func() error { cancel(); return nil })
	r := finish(t, cmd, s.ns.Start)
	if ctx.Err() != nil {
		t.Errorf("the agent did not give up in %s:\n%s", inTime, r.err)
	}
	return r
}

// TestTokensAndForeignDevices: a join token that is wrong, used, expired, of another host or of another deployment, and a machine where
// somebody else's vxlan device has the UDP port.
// Goes red when UseJoinToken does not look at the token's expiry, host or use, when the pin is not compared, or when datapath.Open
// makes its device beside another one.
func TestTokensAndForeignDevices(t *testing.T) {
	f := sharedLab(t)
	s := addSpare(t, f, "spare", 1)
	atEnd(t, func() error { return os.RemoveAll("/sys/fs/bpf/" + s.name) })
	create := func(host string, args ...string) string {
		token := strings.TrimSpace(f.must(t, append([]string{"host", "token", "create", host}, args...)...))
		t.Cleanup(func() { f.weft(t, "host", "remove", host) })
		return token
	}
	good, expired := create("spare1"), create("spare2", "--lifetime", "1ms")
	id, secret, ca := parts(t, good)
	for _, c := range []struct {
		name, host, token string
		status            int
		words             []string
	}{
		{"none", "spare1", "", 1, []string{"token", "weft host token create spare1"}},
		{"garbage", "spare1", "garbage", 1, []string{"token", "weft-join", "fix:"}},
		{"of-another-kind", "spare1", strings.Replace(good, "weft-join", "weft-api", 1), 1, []string{"token", "join token", "fix:"}},
		{"wrong", "spare1", "weft-join." + id + "." + turned(secret) + "." + ca, 1, []string{"token", "weft host token create spare1"}},
		{"unknown", "spare1", "weft-join." + turned(id) + "." + secret + "." + ca, 1, []string{"token", "weft host token create spare1"}},
		{"of-another-deployment", "spare1", "weft-join." + id + "." + secret + "." + turned(ca), 1, []string{"CA", "of another deployment", "use a token"}},
		{"of-another-host", "spare2", good, 1, []string{"token", "spare1", "weft host token create spare2"}},
		{"expired", "spare2", expired, 1, []string{"token", "expired", "weft host token create spare2"}},
	} {
		t.Run("token-"+c.name, func(t *testing.T) {
			refused(t, f, c.status, c.words, func() result { return s.run(t, s.agent(f, c.host, "refused", c.token)) })
		})
	}
	t.Run("another-vxlan-device", func(t *testing.T) {
		local := netip.MustParseAddr(s.address())
		if err := s.ns.AddVXLAN(netdev.VXLAN{Name: "theirs", VNI: 5, Local: local, UDPPort: 4789, Underlay: "mgmt0"}); err != nil {
			t.Fatal(err)
		}
		if err := s.ns.SetUp("theirs"); err != nil {
			t.Fatal(err)
		}
		r := s.run(t, s.agent(f, "spare1", "joined", good))
		for _, w := range []string{"theirs", "4789"} {
			if !strings.Contains(r.err, w) {
				t.Errorf("the error does not say %q:\n%s", w, r.err)
			}
		}
		if r.status != 1 {
			t.Errorf("exit status %d, want 1", r.status)
		}
		if err := s.ns.DeleteLink("theirs"); err != nil {
			t.Fatal(err)
		}
		nothingLeft(t, s)
	})
	// It has joined all the same: the token is used.
	t.Run("token-used", func(t *testing.T) {
		refused(t, f, 1, []string{"token", "used", "weft host token create spare1"}, func() result { return s.run(t, s.agent(f, "spare1", "again", good)) })
	})
}

// nothingLeft: no interface, link or pin of weft's.
func nothingLeft(t *testing.T, s *spare) {
	t.Helper()
	links, err := s.ns.Links()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if strings.HasPrefix(l.Name, "weft") {
			t.Errorf("the interface %s is left", l.Name)
		}
	}
}

// TestNotRoot: what needs root says so, as another user.
// Goes red when requireRoot is left out of a command: the error is then about some file.
func TestNotRoot(t *testing.T) {
	f := sharedLab(t)
	s, err := f.State()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args  []string
		words []string
	}{
		{[]string{"server"}, []string{"root"}},
		{[]string{"agent", "--server", serverAddress}, []string{"root"}},
		{[]string{"up"}, []string{"root"}},
		{[]string{"lab", "up", "--name", "not-root"}, []string{"root"}},
		{[]string{"tenant", "create", "x"}, []string{s.ServerSocket, "root"}},
		{[]string{"port", "attach", "x", "--tenant", "x", "--netns", "x"}, []string{s.Hosts[0].AgentSocket, "root"}},
	} {
		t.Run(c.args[0], func(t *testing.T) {
			refused(t, f, 1, c.words, func() result {
				cmd := exec.Command(f.bin, c.args...)
				cmd.Env = clean("WEFT_SOCKET="+s.ServerSocket, "WEFT_AGENT_SOCKET="+s.Hosts[0].AgentSocket, "HOME=/nonexistent")
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
				cmd.Dir = "/"
				return finish(t, cmd, (*exec.Cmd).Start)
			})
		})
	}
}

// TestServerUnreachable: the error names the address and how long it tried, and the time is true.
// Goes red when client.Unreachable leaves either out.
func TestServerUnreachable(t *testing.T) {
	testenv.Require(t, testenv.Root)
	// A listener that never answers, and a port where nobody listens, which nobody is given by chance.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	const closed = "127.0.0.1:9"
	token := "weft-api.0123456789abcdef." + strings.Repeat("0a", 32) + "." + strings.Repeat("0b", 32)
	cmd := exec.Command(weft(t), "tenant", "list")
	cmd.Env = clean("WEFT_SERVER="+silent.Addr().String()+","+closed, "WEFT_TOKEN="+token, "HOME=/nonexistent")
	began := time.Now()
	r := finish(t, cmd, (*exec.Cmd).Start)
	took := time.Since(began)
	for _, w := range []string{silent.Addr().String(), closed, "connection refused", "no answer", "fix:", "WEFT_SERVER"} {
		if !strings.Contains(r.err, w) {
			t.Errorf("the error does not say %q:\n%s", w, r.err)
		}
	}
	saysHowLong(t, r, took)
	if r.status != 1 {
		t.Errorf("exit status %d, want 1", r.status)
	}
	cmd = exec.Command(weft(t), "tenant", "list", "--socket", "/run/weft-nowhere.sock")
	cmd.Env = clean("HOME=/nonexistent")
	if r := finish(t, cmd, (*exec.Cmd).Start); r.status != 1 || !strings.Contains(r.err, "/run/weft-nowhere.sock") || !strings.Contains(r.err, "fix:") {
		t.Errorf("status %d: %s", r.status, r.err)
	}
}
