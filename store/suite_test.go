package store

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/weftnet/weft/internal/testenv"
	"github.com/weftnet/weft/model"
)

// compacts is the case that compacts the history of the etcd that it is given, which resets watches: it runs while no other does.
const compacts = "foreign writes"

// suite is what must hold with every etcd: each case gets the endpoint of an etcd, and takes a prefix of its own in it.
var suite = map[string]func(t *testing.T, endpoint string){
	"tenant":               testTenant,
	"network":              testNetwork,
	"network update":       testNetworkUpdate,
	"port":                 testPort,
	"port update":          testPortUpdate,
	"port with many IPs":   testPortManyIPs,
	"binding":              testBinding,
	"move":                 testMove,
	"settle":               testSettle,
	"host":                 testHost,
	"host forced":          testHostForced,
	"duty":                 testDuty,
	"host failed":          testHostFailed,
	"returned host":        testReturnedHost,
	"join":                 testJoin,
	"facts":                testFacts,
	"vtep and pool":        testVTEPAndPool,
	"group pool":           testGroupPool,
	"race group":           testRaceGroup,
	"quarantine":           testQuarantine,
	"quarantine and hosts": testQuarantineHostGone,
	"quarantine and sweep": testQuarantineSweep,
	"tokens":               testTokens,
	"audit":                testAudit,
	"tombstones":           testTombstones,
	"race for addresses":   testRaceAddresses,
	"race for a VNI":       testRaceVNI,
	"race delete create":   testRaceDeleteCreate,
	"race shrink create":   testRaceShrinkCreate,
	"race bind":            testRaceBind,
	"watch":                testWatch,
	"watch and load agree": testWatchAgrees,
	"watch compacted":      testWatchCompacted,
	"backup and restore":   testBackupRestore,
	"bad backups":          testBadBackups,
	"restore interrupted":  testRestoreInterrupted,
	"size":                 testSize,
	"servers":              testServers,
	"head":                 testHead,
	compacts:               testForeignWrites,
	"CA":                   testCA,
	"fence":                testFence,
	"closed and cancelled": testClosed,
}

// TestEmbedded runs the suite with the etcd that weft brings.
func TestEmbedded(t *testing.T) { runSuite(t, embeddedEndpoint(t)) }

// TestExternal runs the suite with the etcd that the distribution brings (3.4 on Debian 12), as a process.
func TestExternal(t *testing.T) {
	runSuite(t, startExternal(t, "unix://client:0").endpoint)
}

func runSuite(t *testing.T, endpoint string) {
	for name, test := range suite {
		t.Run(name, func(t *testing.T) {
			if name != compacts {
				t.Parallel()
			}
			test(t, endpoint)
		})
	}
}

// shortDir is a directory whose paths fit into the address of a unix socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "wefttest-store-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// external is an etcd process.
type external struct {
	endpoint  string
	path, dir string
	args      []string
	cmd       *exec.Cmd
	log       bytes.Buffer
}

// startExternal starts an etcd process and ends it with the test. Who opens the store waits for it to be ready. etcd 3.4
// wants a port in the address of a unix socket, and takes it as a part of the file's name, which is relative to its
// directory.
func startExternal(t *testing.T, clientURL string, more ...string) *external {
	t.Helper()
	x := &external{path: testenv.RequireTool(t, "etcd"), dir: shortDir(t), endpoint: clientURL}
	const peer = "unix://peer:0"
	x.args = append([]string{
		"--data-dir", "data", "--listen-client-urls", clientURL, "--advertise-client-urls", clientURL,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default=" + peer,
		"--log-level", "error", "--logger", "zap", "--enable-v2=false",
	}, more...)
	if rest, isUnix := strings.CutPrefix(clientURL, "unix://"); isUnix {
		x.endpoint = "unix://" + filepath.Join(x.dir, rest)
	}
	x.start(t)
	t.Cleanup(func() {
		x.kill()
		if t.Failed() {
			t.Logf("etcd: %s", &x.log)
		}
	})
	return x
}

func (x *external) start(t *testing.T) {
	t.Helper()
	for _, socket := range []string{"client:0", "peer:0"} { // 3.4 does not bind over what a killed one left
		os.Remove(filepath.Join(x.dir, socket))
	}
	x.cmd = exec.Command(x.path, x.args...)
	x.cmd.Dir, x.cmd.Stderr = x.dir, &x.log
	must(t, x.cmd.Start())
}

func (x *external) kill() {
	x.cmd.Process.Kill()
	x.cmd.Wait()
}

// TestExternalKilled: a write says that etcd is away; when it is back, a watch goes on without a gap and all that was
// acknowledged is there.
func TestExternalKilled(t *testing.T) {
	x := startExternal(t, "unix://client:0")
	s := openAt(t, Config{Endpoints: []string{x.endpoint}})
	ctx := t.Context()
	world := ok[*model.World](t)(s.Load(ctx))
	events := s.Watch(ctx, world.Revision)
	for i := range 3 {
		for j := range 20 {
			must(t, s.CreateTenant(ctx, tenant(fmt.Sprintf("t%d-%d", i, j))))
		}
		x.kill()
		short, cancel := context.WithTimeout(ctx, time.Second)
		err := s.CreateTenant(short, tenant(fmt.Sprintf("away%d", i)))
		cancel()
		unavailable(t, err, x.endpoint)
		x.start(t)
		for deadline := time.Now().Add(patience); ; {
			if _, err = s.Revision(ctx); err == nil {
				break
			}
			unavailable(t, err, x.endpoint)
			if time.Now().After(deadline) {
				t.Fatal("etcd came back, and the store did not")
			}
		}
	}
	marker := tenant("marker")
	must(t, s.CreateTenant(ctx, marker))
	for world.Revision < marker.Revision {
		e := next(t, events)
		if e.Reset || e.Err != nil || e.Revision != world.Revision+1 { // nobody else writes to this etcd
			t.Fatalf("%+v after %d", e, world.Revision)
		}
		for _, c := range e.Changes {
			world.Apply(c)
		}
		world.Revision = e.Revision
	}
	loaded := ok[*model.World](t)(s.Load(ctx))
	if !reflect.DeepEqual(world, loaded) || len(loaded.Tenants) < 61 {
		t.Fatalf("watched\n%+v\nloaded\n%+v", world, loaded)
	}
}

// TestExternalTLS breaks if Config.TLS is not given to the client.
func TestExternalTLS(t *testing.T) {
	dir := shortDir(t)
	cert, key, pool := selfSigned(t, dir)
	url := "https://127.0.0.1:" + freePort(t)
	startExternal(t, url, "--cert-file", cert, "--key-file", key)
	s := openAt(t, Config{Endpoints: []string{url}, TLS: &tls.Config{RootCAs: pool}})
	must(t, s.CreateTenant(t.Context(), tenant("acme")))

	_, err := Open(t.Context(), Config{Endpoints: []string{url}, TLS: &tls.Config{RootCAs: x509.NewCertPool()}, Timeout: time.Second})
	if err == nil {
		t.Fatal("an etcd with a foreign certificate was taken")
	}
}

// TestExternalAway: the error names the endpoint and the time.
func TestExternalAway(t *testing.T) {
	url := "unix://" + filepath.Join(shortDir(t), "client")
	_, err := Open(t.Context(), Config{Endpoints: []string{url}, Timeout: 300 * time.Millisecond})
	unavailable(t, err, url)
}
