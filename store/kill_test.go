package store

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weftnet/weft/model"
)

// child writes tenants as fast as it can and prints each that was acknowledged, until it is killed.
func child(dir string) {
	s, err := Open(context.Background(), Config{Dir: dir})
	if err != nil {
		fmt.Println("failed", err)
		os.Exit(1)
	}
	done := make(chan struct{})
	for g := range 4 {
		go func() {
			for i := 0; ; i++ {
				name := fmt.Sprintf("g%d-%d", g, i)
				if err := s.CreateTenant(context.Background(), tenant(name)); err != nil {
					fmt.Println("failed", err)
					os.Exit(1)
				}
				fmt.Println("wrote", name)
			}
		}()
	}
	<-done
}

// TestKilled breaks with UnsafeNoFsync only on a machine that loses its page cache; on any machine it breaks if a write is
// acknowledged before etcd has it.
func TestKilled(t *testing.T) {
	dir := shortDir(t)
	for round := range 2 {
		killOnce(t, dir, round)
	}
}

func killOnce(t *testing.T, dir string, round int) {
	dir = filepath.Join(dir, fmt.Sprint(round))
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	defer cmd.Wait()
	defer cmd.Process.Kill()
	var wrote []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		name, isName := strings.CutPrefix(lines.Text(), "wrote ")
		if !isName {
			t.Fatal(lines.Text())
		}
		wrote = append(wrote, name)
		if len(wrote) == 20 {
			_, err := Open(t.Context(), Config{Dir: dir})
			var used *InUseError
			if !errors.As(err, &used) || used.PID != fmt.Sprint(cmd.Process.Pid) {
				t.Fatalf("opened while process %d has it: %v", cmd.Process.Pid, err)
			}
		}
		if len(wrote) == 150+50*round {
			must(t, cmd.Process.Kill())
		}
	}
	cmd.Wait()
	if len(wrote) < 150 {
		t.Fatalf("the process ended by itself after %d writes", len(wrote))
	}
	s := openAt(t, Config{Dir: dir})
	w := ok[*model.World](t)(s.Load(t.Context()))
	for _, name := range wrote {
		if w.Tenants[name] == nil {
			t.Fatalf("%s was acknowledged and is gone (%d were, %d are there)", name, len(wrote), len(w.Tenants))
		}
	}
	must(t, s.Close())
}

// TestLongDir: a directory longer than a unix socket's address, that only its owner can enter, and no TCP listener.
func TestLongDir(t *testing.T) {
	dir := filepath.Join(shortDir(t), strings.Repeat("long/", 40))
	before := listening(t)
	s := openAt(t, Config{Dir: dir})
	must(t, s.CreateTenant(t.Context(), tenant("acme")))
	for _, sub := range []string{"", "data", "sockets"} {
		st, err := os.Stat(filepath.Join(dir, sub))
		must(t, err)
		if st.Mode().Perm() != 0o700 {
			t.Fatalf("%s has mode %v", sub, st.Mode())
		}
	}
	for name, inode := range listeningUnix(t) {
		if ours(t, inode) && !strings.HasPrefix(name, "/proc/self/fd/") {
			t.Errorf("a unix socket outside the directory: %q", name)
		}
	}
	for inode := range listening(t) {
		if !before[inode] && ours(t, inode) {
			t.Fatalf("a TCP listener (inode %s) came with the store", inode)
		}
	}
	_, err := Open(t.Context(), Config{Dir: dir})
	var used *InUseError
	if !errors.As(err, &used) {
		t.Fatalf("opened twice: %v", err)
	}
	must(t, s.Close())
	if n, elsewhere := (Config{Dir: dir}).FileOctets(), (Config{Dir: dir, Endpoints: []string{"etcd:2379"}}).FileOctets(); n == 0 || elsewhere != 0 {
		t.Errorf("the file has %d octets, and one that is not here %d", n, elsewhere)
	}
	again := openAt(t, Config{Dir: dir})
	if again.ID() != s.ID() || len(ok[*model.World](t)(again.Load(t.Context())).Tenants) != 1 {
		t.Fatal("another store after reopening")
	}
}

// listening are the inodes of listening TCP sockets in this network namespace.
func listening(t *testing.T) map[string]bool {
	t.Helper()
	inodes := map[string]bool{}
	for _, file := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for _, line := range strings.Split(string(b), "\n") {
			if f := strings.Fields(line); len(f) > 9 && f[3] == "0A" {
				inodes[f[9]] = true
			}
		}
	}
	return inodes
}

// listeningUnix are the inodes of listening unix sockets in this network namespace, by address.
func listeningUnix(t *testing.T) map[string]string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/net/unix")
	must(t, err)
	inodes := map[string]string{}
	for _, line := range strings.Split(string(b), "\n") {
		// Num RefCount Protocol Flags Type St Inode Path; flag 0x10000 is listening
		if f := strings.Fields(line); len(f) >= 7 && f[3] == "00010000" {
			inodes[strings.Join(f[7:], " ")+" "+f[6]] = f[6]
		}
	}
	return inodes
}

// ours says whether this process has a socket open.
func ours(t *testing.T, inode string) bool {
	t.Helper()
	fds, err := filepath.Glob("/proc/self/fd/*")
	must(t, err)
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && to == "socket:["+inode+"]" {
			return true
		}
	}
	return false
}

// TestQuota: a store that reaches its quota says so, makes room from its history, and takes writes again.
func TestQuota(t *testing.T) {
	dir := shortDir(t)
	s := openAt(t, Config{Dir: dir, QuotaOctets: 4 << 20, CompactEvery: time.Second})
	ctx := t.Context()
	big := tenant("big")
	must(t, s.CreateTenant(ctx, big))
	// refuse writes until the quota is reached, and says how large the store was at most: the upkeep makes it small again by itself. Few writes, and
	// large ones, are faster than that.
	refuse := func() (octets, quota int64) {
		t.Helper()
		look := func() {
			now, q, err := s.Size(ctx)
			must(t, err)
			octets, quota = max(octets, now), q
		}
		for i := range 100 {
			look()
			big.Spec.Description = fmt.Sprint(i) + strings.Repeat("x", 1<<20)
			if err := s.UpdateTenant(ctx, big); err != nil {
				look()
				refused(t, err, model.Exhausted, "", "quota")
				return octets, quota
			}
		}
		t.Fatal("the quota was never reached")
		return 0, 0
	}
	if octets, quota := refuse(); quota != 4<<20 || octets < quota/2 {
		t.Fatalf("%d octets of %d", octets, quota)
	}
	deadline := time.Now().Add(patience)
	for i := 0; ; i++ {
		big.Spec.Description = fmt.Sprint("again", i)
		err := s.UpdateTenant(ctx, big)
		if err == nil {
			break
		}
		refused(t, err, model.Exhausted, "", "quota")
		if time.Now().After(deadline) {
			t.Fatal("no room was made")
		}
		select { // the upkeep works; asking in a tight loop would only take its processor
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	w := ok[*model.World](t)(s.Load(ctx))
	if w.Tenants["big"].Spec.Description != big.Spec.Description {
		t.Fatal("what was acknowledged is not there")
	}
	// Full, closed and opened: it opens.
	refuse()
	must(t, s.Close())
	s = openAt(t, Config{Dir: dir, QuotaOctets: 4 << 20, CompactEvery: time.Hour})
	ok[*model.World](t)(s.Load(ctx))
}

// TestNearlyFull: what lives fills the store. Creating is refused before the quota, so that deleting works, at the latest
// when the upkeep has given fragments back, and makes room.
func TestNearlyFull(t *testing.T) {
	s := openAt(t, Config{Dir: shortDir(t), QuotaOctets: 8 << 20, CompactEvery: 50 * time.Millisecond})
	ctx := t.Context()
	var names []string
	create := func() error {
		big := tenant(fmt.Sprintf("t%d", len(names)))
		big.Spec.Description = strings.Repeat("x", 300<<10)
		err := s.CreateTenant(ctx, big)
		if err == nil {
			names = append(names, big.Name)
		}
		return err
	}
	// Slower than the upkeep: it is asynchronous, and here a write is a good part of the quota.
	for deadline := time.Now().Add(patience); ; awaitLook(t, s) {
		err := create()
		if err != nil && strings.Contains(err.Error(), "creates nothing more") {
			refused(t, err, model.Exhausted, "", "quota")
			break
		}
		if err != nil { // fragments may reach the quota first; they are given back
			refused(t, err, model.Exhausted, "", "quota")
		}
		if time.Now().After(deadline) {
			t.Fatal("creating is never refused")
		}
	}
	w := ok[*model.World](t)(s.Load(ctx))
	if len(w.Tenants) != len(names) {
		t.Fatalf("%d tenants, %d were acknowledged", len(w.Tenants), len(names))
	}
	// A deletion writes a little, too, and etcd counts the fragments of its file: it may have to wait until they are given back.
	for _, name := range names[:len(names)/2] {
		for deadline := time.Now().Add(patience); ; awaitLook(t, s) {
			_, err := s.DeleteTenant(ctx, name)
			if err == nil {
				break
			}
			refused(t, err, model.Exhausted, "", "quota")
			if time.Now().After(deadline) {
				t.Fatal("deleting is refused for ever")
			}
		}
	}
	for deadline := time.Now().Add(patience); create() != nil; awaitLook(t, s) {
		if time.Now().After(deadline) {
			t.Fatal("no room was made")
		}
	}
}

// awaitLook waits until the upkeep has looked how full the store is.
func awaitLook(t *testing.T, s *Store) {
	t.Helper()
	s.written.Store(-1)
	s.kick()
	for deadline := time.Now().Add(patience); s.written.Load() < 0; {
		if time.Now().After(deadline) {
			t.Fatal("the upkeep does not look")
		}
		runtime.Gosched()
	}
}

// TestCompaction: history goes by itself, and an old revision cannot be watched from then on.
func TestCompaction(t *testing.T) {
	s := openAt(t, Config{Dir: shortDir(t), CompactEvery: 50 * time.Millisecond})
	ctx := t.Context()
	from := ok[model.Revision](t)(s.Revision(ctx))
	for i := 0; ; i++ {
		must(t, s.CreateTenant(ctx, tenant(fmt.Sprintf("t%d", i))))
		watching, cancel := context.WithCancel(ctx)
		e := next(t, s.Watch(watching, from))
		cancel()
		if e.Reset {
			return
		}
		if i == 1000 {
			t.Fatal("nothing was ever compacted")
		}
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	must(t, err)
	return port
}

// selfSigned writes a server certificate for 127.0.0.1 and its key.
func selfSigned(t *testing.T, dir string) (certFile, keyFile string, pool *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "etcd"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	keyDER, err := x509.MarshalECPrivateKey(key)
	must(t, err)
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	must(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), 0o600))
	pool = x509.NewCertPool()
	pool.AddCert(cert)
	return certFile, keyFile, pool
}

// TestUpkeepPrunes: an audit trail that has grown too long is cut without anybody's asking. Break it: leave the pruning out of upkeep.
func TestUpkeepPrunes(t *testing.T) {
	s := openAt(t, Config{Dir: shortDir(t), CompactEvery: 100 * time.Millisecond})
	var ops []clientv3.Op
	for i := range auditLimit + 700 {
		ops = append(ops, clientv3.OpPut(fmt.Sprintf("%s%08d", s.keys.in("audit"), i), `{"who":"old"}`))
	}
	for part := range slices.Chunk(ops, 1000) {
		ok[*clientv3.TxnResponse](t)(s.cli.Txn(t.Context()).Then(part...).Commit())
	}
	for deadline := time.Now().Add(patience); ; {
		n := ok[*view](t)(s.look(t.Context(), count(s.keys.in("audit")))).ranges[0].Count
		if n == auditLimit {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d records are kept, want %d", n, auditLimit)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
