package store

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weftnet/weft/internal/testenv"
)

// suite is what must hold with every etcd: each case gets the endpoint of an etcd, and takes a prefix of its own in it.
var suite = map[string]func(t *testing.T, endpoint string){
	"tenant":               testTenant,
	"network":              testNetwork,
	"network update":       testNetworkUpdate,
	"port":                 testPort,
	"port update":          testPortUpdate,
	"port with many IPs":   testPortManyIPs,
	"binding":              testBinding,
	"host":                 testHost,
	"host forced":          testHostForced,
	"join":                 testJoin,
	"facts":                testFacts,
	"vtep and pool":        testVTEPAndPool,
	"quarantine":           testQuarantine,
	"quarantine and hosts": testQuarantineHostGone,
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
	"closed and cancelled": testClosed,
}

// TestEmbedded runs the suite with the etcd that weft brings.
func TestEmbedded(t *testing.T) { runSuite(t, embeddedEndpoint(t)) }

// TestExternal runs the suite with the etcd that the distribution brings (3.4 on Debian 12), as a process.
func TestExternal(t *testing.T) {
	runSuite(t, startExternal(t, "unix://client:0"))
}

func runSuite(t *testing.T, endpoint string) {
	for name, test := range suite {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
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

// startExternal starts an etcd process and ends it with the test, and returns its endpoint. Who opens the store waits for
// it to be ready. etcd 3.4 wants a port in the address of a unix socket, and takes it as a part of the file's name, which is
// relative to its directory.
func startExternal(t *testing.T, clientURL string, more ...string) (endpoint string) {
	t.Helper()
	path := testenv.RequireTool(t, "etcd")
	dir := shortDir(t)
	const peer = "unix://peer:0"
	args := append([]string{
		"--data-dir", "data", "--listen-client-urls", clientURL, "--advertise-client-urls", clientURL,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default=" + peer,
		"--log-level", "error", "--logger", "zap", "--enable-v2=false",
	}, more...)
	cmd := exec.Command(path, args...)
	cmd.Dir = dir
	out := &bytes.Buffer{}
	cmd.Stderr = out
	must(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("etcd: %s", out)
		}
	})
	if rest, isUnix := strings.CutPrefix(clientURL, "unix://"); isUnix {
		return "unix://" + filepath.Join(dir, rest)
	}
	return clientURL
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

// TestExternalAway: the error names the endpoint and the time; what was watched goes on after the return.
func TestExternalAway(t *testing.T) {
	url := "unix://" + filepath.Join(shortDir(t), "client")
	_, err := Open(t.Context(), Config{Endpoints: []string{url}, Timeout: 300 * time.Millisecond})
	unavailable(t, err, url)
}
