package accept_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/lab"
	"github.com/weftnet/weft/lab/probe"
)

// busyLab is a lab with a tenant "acme", a network "blue" and two workloads on each host.
func busyLab(t *testing.T, name string) (*fixture, []*workload) {
	t.Helper()
	f := ownLab(t, lab.Config{Name: name})
	f.tenant(t, "acme")
	f.network(t, "acme", "blue", &weftv1.NetworkSpec{Subnets: []string{"10.1.0.0/16", "fd00:1::/64"}})
	var all []*workload
	for i := range 6 {
		host := fmt.Sprintf("h%d", 1+i%3)
		all = append(all, f.workload(t, lab.WorkloadSpec{Name: fmt.Sprintf("w%d", i+1), Host: host, Tenant: "acme", Network: "blue"}))
	}
	for i, w := range all {
		reaches(t, w.ns, all[(i+1)%len(all)].v4())
		reaches(t, w.ns, all[(i+1)%len(all)].v6())
	}
	f.settled(t)
	return f, all
}

// unharmed runs something while numbered datagrams go between hosts, and wants every one of them delivered once.
func unharmed(t *testing.T, all []*workload, do func()) {
	t.Helper()
	l := startLoad(t, all[:3], dose{packets: 3000, sessions: 12})
	do()
	var o outcome
	l.stop(&o)
	t.Logf("meanwhile: %s", o)
	if o.sequence.Lost > 0 || o.sequence.Duplicated > 0 || o.sequence.Received == 0 || len(o.broken) > 0 {
		t.Errorf("want all, once, and no connection ended: %s, %v", o, o.broken)
	}
}

// TestAgentRestart kills agents, and asks them to end: forwarding goes on while there is none, and the next one changes nothing.
//
// Red when Agent.Run ends with `defer datapath.Remove(a.cfg.PinRoot)`; when attachTo makes a new link instead of exchanging the
// program (`if false` for `if linkIfindex(l) == ifindex`); when load does not look for the ports' interfaces (no checkLinks).
func TestAgentRestart(t *testing.T) {
	f, all := busyLab(t, "restart")
	for _, how := range []struct {
		name string
		end  func(context.Context, string) error
	}{{"killed", f.KillAgent}, {"asked to end", f.StopAgent}} {
		t.Run(how.name, func(t *testing.T) {
			before := map[string][]string{}
			for _, h := range []string{"h1", "h2", "h3"} {
				before[h] = f.octets(t, h)
			}
			same := func(when string) {
				t.Helper()
				for h, was := range before {
					if d := differs(was, f.octets(t, h)); len(d) > 0 {
						t.Errorf("%s: the kernel of %s changed:\n%s", when, h, strings.Join(d, "\n"))
					}
				}
			}
			unharmed(t, all, func() {
				for h := range before {
					if err := how.end(limited(t), h); err != nil {
						t.Fatal(err)
					}
				}
				same("without agents")
				for _, w := range all {
					reaches(t, all[0].ns, w.v4())
				}
				for h := range before {
					f.agentBack(t, h)
				}
				same("with new agents")
			})
			f.settled(t)
		})
	}
}

// TestEverythingKilled kills every process of weft. Agents come back before the server does.
//
// Red for the reasons of TestAgentRestart.
func TestEverythingKilled(t *testing.T) {
	f, all := busyLab(t, "allkilled")
	hosts := []string{"h1", "h2", "h3"}
	before := map[string][]string{}
	for _, h := range hosts {
		before[h] = f.octets(t, h)
	}
	unharmed(t, all, func() {
		if err := f.KillServer(limited(t)); err != nil {
			t.Fatal(err)
		}
		for _, h := range hosts {
			if err := f.KillAgent(limited(t), h); err != nil {
				t.Fatal(err)
			}
		}
		for i, w := range all {
			reaches(t, w.ns, all[(i+1)%len(all)].v4())
		}
		for _, h := range hosts {
			restartHeadless(t, f, h)
		}
		if err := f.StartServer(limited(t)); err != nil {
			t.Fatal(err)
		}
		for _, h := range hosts {
			f.caughtUp(t, h)
		}
	})
	for _, h := range hosts {
		if d := differs(before[h], f.octets(t, h)); len(d) > 0 {
			t.Errorf("the kernel of %s changed:\n%s", h, strings.Join(d, "\n"))
		}
	}
	f.settled(t)
}

// TestServerKilledWhileWriting kills the server while ports are created as fast as it goes. What it acknowledged is there afterwards, and
// what is half there can be asked for again. Then agents come back to a server that has nothing new: they resume by
// digests and are not sent the plan again.
//
// Red when the store answers before etcd has committed (`go s.commit(…)` in write); when Staging.Hello carries no Scopes, so that each
// is sent whole (29,362 octets to resume).
func TestServerKilledWhileWriting(t *testing.T) {
	f, _ := busyLab(t, "writes")
	made := map[string]*weftv1.Port{}
	for round := range 3 {
		for name, p := range writeUntilKilled(t, f, round) {
			made[name] = p
		}
		if err := f.StartServer(limited(t)); err != nil {
			t.Fatal(err)
		}
		for name, p := range made {
			res, err := f.api(t).Ports.GetPort(limited(t), connect.NewRequest(&weftv1.GetPortRequest{Tenant: "acme", Name: name}))
			if err != nil {
				t.Fatalf("%s was acknowledged, and after the server's return: %v", name, err)
			}
			was, is := p, res.Msg
			if was.GetMeta().GetUid() != is.GetMeta().GetUid() || !slices.Equal(was.GetStatus().GetMacs(), is.GetStatus().GetMacs()) || !slices.Equal(was.GetStatus().GetIps(), is.GetStatus().GetIps()) {
				t.Errorf("%s was acknowledged as %v, and is %v", name, was, is)
			}
		}
	}
	t.Logf("%d ports acknowledged in 3 rounds, all there", len(made))

	for _, h := range []string{"h1", "h2", "h3"} {
		f.caughtUp(t, h)
	}
	f.settled(t)
	resumed := f.sentTo(t, "h1", func() {
		if err := f.KillServer(limited(t)); err != nil {
			t.Fatal(err)
		}
		if err := f.StartServer(limited(t)); err != nil {
			t.Fatal(err)
		}
		f.caughtUp(t, "h1")
	})
	whole := f.sentTo(t, "h1", func() { f.resync(t, "h1") })
	t.Logf("octets sent to h1: %d when it resumed, %d when it had no plan", resumed, whole)
	if resumed > whole/2 {
		t.Errorf("%d octets were sent to an agent that had everything, %d to one that had nothing: want less than half", resumed, whole)
	}
}

// writeUntilKilled creates ports from four sides, kills the server in the middle, and returns what was acknowledged.
func writeUntilKilled(t *testing.T, f *fixture, round int) map[string]*weftv1.Port {
	t.Helper()
	const before = 100 // acknowledged, and then the kill
	ctx, cancel := context.WithCancel(limited(t))
	defer cancel()
	var mu sync.Mutex
	made := map[string]*weftv1.Port{}
	enough := make(chan struct{})
	var writers sync.WaitGroup
	for side := range 4 {
		writers.Go(func() {
			for i := 0; ; i++ {
				name := fmt.Sprintf("p-%d-%d-%d", round, side, i)
				res, err := f.mustClient().Ports.CreatePort(ctx, connect.NewRequest(&weftv1.CreatePortRequest{Tenant: "acme", Name: name,
					Spec: &weftv1.PortSpec{Network: "blue"}}))
				if err != nil {
					return
				}
				mu.Lock()
				made[name] = res.Msg
				if len(made) == before {
					close(enough)
				}
				mu.Unlock()
			}
		})
	}
	select {
	case <-enough:
	case <-ctx.Done():
		t.Fatalf("%d ports were created in %s, not %d", len(made), inTime, before)
	}
	if err := f.KillServer(ctx); err != nil {
		t.Fatal(err)
	}
	cancel() // who asks only now would look for a server for seconds
	writers.Wait()
	return made
}

// sentTo counts the octets on a host's management link while something is done.
func (f *fixture) sentTo(t *testing.T, host string, do func()) uint64 {
	t.Helper()
	read := func() uint64 {
		st, err := f.node(t, "server").Stats("to-" + host)
		if err != nil {
			t.Fatal(err)
		}
		return st.TxOctets
	}
	before := read()
	do()
	return read() - before
}

// TestSlowHost stops h3's agent for 20 seconds while ports are created, deleted and attached as fast as it goes. The other hosts
// get every change meanwhile; h3 forwards, and catches up.
//
// Red when the distributor believes that a host that comes back has everything (`if true` for `if now.Matches` in start).
func TestSlowHost(t *testing.T) {
	f, all := busyLab(t, "slow")
	agent := f.hostOf(t, "h3").Agent
	c := newChurn(t, f, "acme", "blue", 8)
	c.hosts = []string{"h1", "h2"}
	unharmed(t, all, func() {
		if err := unix.Kill(agent.PID, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		defer unix.Kill(agent.PID, unix.SIGCONT)
		done := time.After(20 * time.Second)
		c.start(*seed, 50)
		for waiting := true; waiting; {
			for _, h := range c.hosts {
				f.caughtUp(t, h)
			}
			select {
			case <-done:
				waiting = false
			default:
			}
		}
		c.end()
		h, err := f.api(t).Hosts.GetHost(limited(t), connect.NewRequest(&weftv1.GetHostRequest{Name: "h3"}))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("h3 is %s at revision %d", h.Msg.GetStatus().GetState(), h.Msg.GetStatus().GetAppliedRevision())
	})
	t.Logf("changes: %s", c)
	for why, n := range c.refusal {
		t.Errorf("refused %d times: %s", n, why)
	}
	f.caughtUp(t, "h3")
	c.verify(t)
	f.settled(t)
	c.clear(t)
}

// TestExpiredCertificate gives h1 a certificate that ended yesterday, which is a host that could not renew for a day. It forwards, its agent
// restarts and says what is wrong, and with a good certificate it goes on.
//
// Red when the end of the Renewer ends the agent (`cancel(err)` in Run).
func TestExpiredCertificate(t *testing.T) {
	f, all := busyLab(t, "expired")
	s, err := f.State()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(s.Dir, "h1", "data", "identity", "host.pem")
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before := f.octets(t, "h1")
	unharmed(t, all, func() {
		if err := f.KillAgent(limited(t), "h1"); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, expired(t, good, filepath.Join(s.Dir, "server", "data", "ca", "ca.pem")), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := f.StartAgent("h1"); err != nil {
			t.Fatal(err)
		}
		a, err := f.Agent("h1")
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		ctx := limited(t)
		eventually(t, "the agent says that its certificate expired", func() (bool, string) {
			st, err := a.GetStatus(ctx, connect.NewRequest(&localv1.GetStatusRequest{}))
			if err != nil {
				return false, err.Error()
			}
			now := fmt.Sprint(st.Msg.GetConditions())
			return !st.Msg.GetConnected() && strings.Contains(now, "expired"), now
		})
		if d := differs(before, f.octets(t, "h1")); len(d) > 0 {
			t.Errorf("the kernel changed:\n%s", strings.Join(d, "\n"))
		}
		for _, w := range all {
			if _, err := probe.Ping(limited(t), all[0].ns, w.v4(), probe.PingConfig{Count: 3}); err != nil {
				t.Error(err)
			}
		}
		if err := f.KillAgent(limited(t), "h1"); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, good, 0o600); err != nil {
			t.Fatal(err)
		}
		f.agentBack(t, "h1")
	})
	f.settled(t)
}

// expired makes the certificate of an identity file anew, by the CA's own key, so that it ended a day ago.
func expired(t *testing.T, identity []byte, caFile string) []byte {
	t.Helper()
	caPEM, err := os.ReadFile(caFile)
	if err != nil {
		t.Fatal(err)
	}
	caKey, caCert := keyAndCert(t, caPEM)
	key, cert := keyAndCert(t, identity)
	cert.NotBefore, cert.NotAfter = time.Now().Add(-49*time.Hour), time.Now().Add(-24*time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, cert, caCert, key.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	swapped := false
	for block, rest := pem.Decode(identity); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" && !swapped {
			block.Bytes, swapped = der, true
		}
		if err := pem.Encode(&out, block); err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes()
}

// keyAndCert are the first of each in a PEM file.
func keyAndCert(t *testing.T, b []byte) (key *ecdsa.PrivateKey, cert *x509.Certificate) {
	t.Helper()
	var err error
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case block.Type == "EC PRIVATE KEY" && key == nil:
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case block.Type == "CERTIFICATE" && cert == nil:
			cert, err = x509.ParseCertificate(block.Bytes)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if key == nil || cert == nil {
		t.Fatal("the file has no key or no certificate")
	}
	return key, cert
}
