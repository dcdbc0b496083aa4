package trust

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weftnet/weft/model"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func openCA(t *testing.T) *CA {
	t.Helper()
	ca, err := OpenCA(filepath.Join(t.TempDir(), "ca"), noon)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func TestCAIsMadeOnceAndPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "server", "ca")
	first, err := OpenCA(dir, noon)
	if err != nil {
		t.Fatal(err)
	}
	again, err := OpenCA(dir, noon.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if first.Fingerprint() != again.Fingerprint() {
		t.Error("the second start made another CA")
	}
	st, _ := os.Stat(dir)
	if st.Mode().Perm() != 0o700 {
		t.Errorf("directory has mode %o", st.Mode().Perm())
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 2 {
		t.Errorf("%d files, want %s and %s", len(entries), caFile, caCertFile)
	}
	for _, e := range entries {
		if info, _ := e.Info(); info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o", e.Name(), info.Mode().Perm())
		}
	}
	pin, err := PinFile(filepath.Join(dir, caCertFile))
	if err != nil || pin.Fingerprint() != first.Fingerprint() {
		t.Errorf("pin by file: %v %v", pin.Fingerprint(), err)
	}
}

func TestCAOfTwoServersThatStartAtOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	var wg sync.WaitGroup
	prints := make([]Fingerprint, 8)
	for i := range prints {
		wg.Go(func() {
			ca, err := OpenCA(dir, noon)
			if err != nil {
				t.Error(err)
				return
			}
			prints[i] = ca.Fingerprint()
		})
	}
	wg.Wait()
	for _, f := range prints {
		if f != prints[0] || f.IsZero() {
			t.Fatalf("different CAs: %v", prints)
		}
	}
}

func TestCARefuses(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(path string) error
		at    time.Time
		want  string
	}{
		"a key that others may read": {func(p string) error { return os.Chmod(p, 0o644) }, noon, "chmod 600"},
		"a cut file":                 {func(p string) error { return os.Truncate(p, 300) }, noon, "no certificate"},
		"an empty file":              {func(p string) error { return os.Truncate(p, 0) }, noon, "no key"},
		"an expired CA":              {func(string) error { return nil }, noon.AddDate(11, 0, 0), "expired"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "ca")
			if _, err := OpenCA(dir, noon); err != nil {
				t.Fatal(err)
			}
			if err := c.spoil(filepath.Join(dir, caFile)); err != nil {
				t.Fatal(err)
			}
			before, _ := os.ReadFile(filepath.Join(dir, caFile))
			_, err := OpenCA(dir, c.at)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, want %q", err, c.want)
			}
			if after, _ := os.ReadFile(filepath.Join(dir, caFile)); string(after) != string(before) {
				t.Error("the file was changed")
			}
		})
	}
}

func TestSignHostIgnoresTheNamesInTheRequest(t *testing.T) {
	ca := openCA(t)
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "weft server"}, DNSNames: []string{"localhost", "server"},
		URIs: uriList(hostURI("other")),
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := ca.SignHost(csr, "uid1", noon)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		t.Fatal(err)
	}
	if uid, ok := hostOf(leaf); !ok || uid != "uid1" {
		t.Errorf("the certificate names %q", uid)
	}
	if len(leaf.DNSNames)+len(leaf.IPAddresses) != 0 || leaf.Subject.CommonName != "weft://host/uid1" || leaf.IsCA {
		t.Errorf("the certificate has names of the request: %v %v", leaf.Subject, leaf.DNSNames)
	}
	if len(leaf.ExtKeyUsage) != 1 || leaf.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth {
		t.Errorf("the certificate is good for %v", leaf.ExtKeyUsage)
	}
	if want := noon.Add(-time.Hour); !leaf.NotBefore.Equal(want) {
		t.Errorf("valid from %s, want %s", leaf.NotBefore, want)
	}
	if want := noon.Add(25 * time.Hour); !leaf.NotAfter.Equal(want) {
		t.Errorf("valid to %s, want %s", leaf.NotAfter, want)
	}
}

func TestCheckCSRRefuses(t *testing.T) {
	p256, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	good, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, p256)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := CheckCSR(good); err != nil {
		t.Fatal(err)
	}
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	curve, _ := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, p384)
	forged := append([]byte(nil), good...)
	forged[len(forged)-1] ^= 1
	for name, der := range map[string][]byte{"nothing": nil, "noise": []byte("noise"), "another curve": curve, "a wrong signature": forged} {
		var refusal *model.Error
		if _, err := CheckCSR(der); !errors.As(err, &refusal) || refusal.Field != "csr" {
			t.Errorf("%s: error %v", name, err)
		}
	}
}
