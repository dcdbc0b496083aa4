package trust

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weftnet/weft/model"
)

type addr = netip.Addr

func addrOf(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestJoinRetriesWithTheSameKey(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	ca := openCA(t)
	if _, err := LoadHostIdentity(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("before joining: %v", err)
	}
	first, err := PrepareJoin(dir)
	if err != nil {
		t.Fatal(err)
	}
	second, err := PrepareJoin(dir) // after a crash
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.CSR, second.CSR) {
		t.Error("the retry makes another request")
	}
	chain, err := ca.SignHost(second.CSR, "uid1", noon)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := second.Accept(chain, PinCA(ca.Certificate()), noon); err != nil {
		t.Fatal(err)
	}
	id, err := LoadHostIdentity(dir)
	if err != nil || id.UID != "uid1" {
		t.Fatalf("after joining: %v %v", id, err)
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 1 || entries[0].Name() != hostFile {
		t.Errorf("the directory holds %v", entries)
	}
	if st, _ := os.Stat(filepath.Join(dir, hostFile)); st.Mode().Perm() != 0o600 {
		t.Errorf("mode %o", st.Mode().Perm())
	}
	third, err := PrepareJoin(dir)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(third.CSR, first.CSR) {
		t.Error("a new join uses the old key")
	}
}

func TestJoiningAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	ca := openCA(t)
	first, second := newToken(t, JoinToken, ca.Fingerprint()), newToken(t, JoinToken, ca.Fingerprint())
	joinWith := func(token Token) {
		t.Helper()
		j, err := PrepareJoin(dir)
		if err != nil {
			t.Fatal(err)
		}
		j.Token = token
		chain, err := ca.SignHost(j.CSR, "uid1", noon)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := j.Accept(chain, PinCA(ca.Certificate()), noon); err != nil {
			t.Fatal(err)
		}
	}
	joinWith(first)
	id, err := LoadHostIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	if first.Supersedes(id) || !second.Supersedes(id) || (Token{}).Supersedes(id) {
		t.Error("the token that it joined with supersedes the identity, or another does not")
	}
	r := NewRenewer(RenewerConfig{Dir: dir, Identity: id, Clock: at(noon),
		Renew: func(_ context.Context, csr []byte) ([][]byte, error) { return ca.SignHost(csr, "uid1", noon) }})
	if err := r.renew(t.Context(), noon); err != nil {
		t.Fatal(err)
	}
	if id, err = LoadHostIdentity(dir); err != nil || first.Supersedes(id) || !second.Supersedes(id) {
		t.Errorf("a renewal forgets the token: %v", err)
	}
	joinWith(second)
	if id, err = LoadHostIdentity(dir); err != nil || !first.Supersedes(id) || second.Supersedes(id) {
		t.Errorf("joining again keeps the old token: %v", err)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, hostFile)); bytes.Contains(b, []byte(second.Secret)) {
		t.Error("the secret is kept")
	}
}

func TestAcceptRefuses(t *testing.T) {
	ours, theirs := openCA(t), openCA(t)
	other, err := PrepareJoin(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, sign := range map[string]func(csr []byte) ([][]byte, error){
		"another CA":  func(csr []byte) ([][]byte, error) { return theirs.SignHost(csr, "uid1", noon) },
		"another key": func([]byte) ([][]byte, error) { return ours.SignHost(other.CSR, "uid1", noon) },
		"no CA": func(csr []byte) ([][]byte, error) {
			chain, err := ours.SignHost(csr, "uid1", noon)
			return chain[:1], err
		},
		"a CA that did not sign": func(csr []byte) ([][]byte, error) {
			chain, err := theirs.SignHost(csr, "uid1", noon)
			return [][]byte{chain[0], ours.cert.Raw}, err
		},
		"an expired one": func(csr []byte) ([][]byte, error) { return ours.SignHost(csr, "uid1", noon.Add(-48*time.Hour)) },
		"nothing":        func([]byte) ([][]byte, error) { return nil, nil },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			j, err := PrepareJoin(dir)
			if err != nil {
				t.Fatal(err)
			}
			chain, err := sign(j.CSR)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := j.Accept(chain, PinFingerprint(ours.Fingerprint()), noon); err == nil {
				t.Fatal("accepted")
			}
			if _, err := LoadHostIdentity(dir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("an identity was left: %v", err)
			}
		})
	}
}

func TestNextRenewal(t *testing.T) {
	ca := openCA(t)
	seen := map[time.Time]bool{}
	for range 20 {
		leaf := join(t, ca, "uid1", noon).Certificate()
		next := NextRenewal(leaf, noon)
		if next != NextRenewal(leaf, noon.Add(time.Hour)) {
			t.Error("the answer depends on when one asks")
		}
		if early, late := noon.Add(Lifetime/2), noon.Add(Lifetime/2+renewJitter); next.Before(early) || next.After(late) {
			t.Errorf("renewal at %s, want %s to %s", next, early, late)
		}
		seen[next] = true
		if past := noon.Add(20 * time.Hour); !NextRenewal(leaf, past).Equal(past) {
			t.Error("an overdue renewal waits")
		}
	}
	if len(seen) < 15 {
		t.Errorf("20 hosts renew at %d moments", len(seen))
	}
}

// renewing runs a Renewer in a bubble of fake time for a while, against a server that is away when down says so.
func renewing(t *testing.T, during time.Duration, down func(since time.Duration) bool) (id *HostIdentity, dir string, calls int, err error) {
	dir = filepath.Join(t.TempDir(), "keys")
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		ca, cerr := OpenCA(filepath.Join(t.TempDir(), "ca"), start)
		if cerr != nil {
			t.Fatal(cerr)
		}
		j, cerr := PrepareJoin(dir)
		if cerr != nil {
			t.Fatal(cerr)
		}
		chain, cerr := ca.SignHost(j.CSR, "uid1", start)
		if cerr != nil {
			t.Fatal(cerr)
		}
		first, cerr := j.Accept(chain, PinCA(ca.Certificate()), start)
		if cerr != nil {
			t.Fatal(cerr)
		}
		r := NewRenewer(RenewerConfig{Dir: dir, Identity: first, Renew: func(_ context.Context, csr []byte) ([][]byte, error) {
			calls++
			if down(time.Since(start)) {
				return nil, errors.New("the server is away")
			}
			return ca.SignHost(csr, "uid1", time.Now())
		}})
		ctx, cancel := context.WithTimeout(t.Context(), during)
		defer cancel()
		err = r.Run(ctx)
		id = r.Identity()
		if err == nil {
			err = id.Check(time.Now())
		}
	})
	return id, dir, calls, err
}

func TestRenewerKeepsTheCertificateFresh(t *testing.T) {
	id, dir, calls, err := renewing(t, 10*24*time.Hour, func(time.Duration) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	if calls < 16 || calls > 20 {
		t.Errorf("%d renewals in ten days", calls)
	}
	kept, err := LoadHostIdentity(dir)
	if err != nil || !kept.Certificate().Equal(id.Certificate()) {
		t.Errorf("the file does not hold the current identity: %v", err)
	}
}

func TestRenewerOutlivesAnOutage(t *testing.T) {
	_, _, calls, err := renewing(t, 3*24*time.Hour, func(since time.Duration) bool {
		return since > 11*time.Hour && since < 24*time.Hour
	})
	if err != nil {
		t.Fatal(err)
	}
	if calls > 120 {
		t.Errorf("%d calls: no back-off", calls)
	}
}

func TestRenewerSaysThatTheCertificateExpired(t *testing.T) {
	_, _, _, err := renewing(t, 3*24*time.Hour, func(time.Duration) bool { return true })
	var refusal *model.Error
	if !errors.As(err, &refusal) || refusal.Field != "certificate" || refusal.Fix == "" {
		t.Fatalf("error %v", err)
	}
}

func TestRenewerRefusesAnotherHostsCertificate(t *testing.T) {
	ca := openCA(t)
	r := NewRenewer(RenewerConfig{Dir: t.TempDir(), Identity: join(t, ca, "uid1", noon), Clock: at(noon),
		Renew: func(_ context.Context, csr []byte) ([][]byte, error) { return ca.SignHost(csr, "uid2", noon) }})
	if err := r.renew(t.Context(), noon); err == nil || r.Identity().UID != "uid1" {
		t.Fatalf("error %v, identity %s", err, r.Identity().UID)
	}
}
