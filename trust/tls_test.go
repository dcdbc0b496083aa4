package trust

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weftnet/weft/model"
)

func at(t time.Time) func() time.Time { return func() time.Time { return t } }

// shake makes one connection over loopback and sends an octet each way, as TLS 1.3 tells a client of a refused
// certificate only when it reads. It returns what each side saw.
func shake(t *testing.T, server *tls.Config, dial func(addr string) *tls.Config) (peer tls.ConnectionState, serverErr, clientErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		defer c.Close()
		conn := tls.Server(c, server)
		err = conn.Handshake()
		peer = conn.ConnectionState()
		if err == nil {
			_, err = conn.Write([]byte{1})
		}
		done <- err
		_, _ = io.Copy(io.Discard, c)
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(c, dial(l.Addr().String()))
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if clientErr = conn.Handshake(); clientErr == nil {
		_, clientErr = conn.Read(make([]byte, 1))
	}
	c.Close()
	serverErr = <-done
	return peer, serverErr, clientErr
}

func join(t *testing.T, ca *CA, uid model.UID, now time.Time) *HostIdentity {
	t.Helper()
	j, err := PrepareJoin(filepath.Join(t.TempDir(), "keys"))
	if err != nil {
		t.Fatal(err)
	}
	chain, err := ca.SignHost(j.CSR, uid, now)
	if err != nil {
		t.Fatal(err)
	}
	id, err := j.Accept(chain, PinFingerprint(ca.Fingerprint()), now)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestClocksAnHourApart(t *testing.T) {
	for name, skew := range map[string]time.Duration{"same": 0, "server an hour ahead": time.Hour, "server an hour behind": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			// The CA is made in the same minute, by the server's clock: its first host joins at once.
			serverTime := noon.Add(skew)
			ca, err := OpenCA(filepath.Join(t.TempDir(), "ca"), serverTime)
			if err != nil {
				t.Fatal(err)
			}
			server := ServerTLS(ca, nil, at(serverTime))
			_, _, err = shake(t, server, func(addr string) *tls.Config { return PinFingerprint(ca.Fingerprint()).TLS(addr, at(noon)) })
			if err != nil {
				t.Fatalf("before joining: %v", err)
			}
			j, err := PrepareJoin(filepath.Join(t.TempDir(), "keys"))
			if err != nil {
				t.Fatal(err)
			}
			chain, err := ca.SignHost(j.CSR, "uid1", serverTime)
			if err != nil {
				t.Fatal(err)
			}
			id, err := j.Accept(chain, PinFingerprint(ca.Fingerprint()), noon)
			if err != nil {
				t.Fatalf("join: %v", err)
			}
			for _, later := range []time.Duration{0, Lifetime / 2, Lifetime - time.Minute} {
				server := ServerTLS(ca, nil, at(serverTime.Add(later)))
				peer, serverErr, clientErr := shake(t, server, func(addr string) *tls.Config { return id.ClientTLS(addr, at(noon.Add(later))) })
				if serverErr != nil || clientErr != nil {
					t.Fatalf("%s after joining: server %v, client %v", later, serverErr, clientErr)
				}
				if uid, ok := PeerHost(&peer); !ok || uid != "uid1" {
					t.Errorf("the server sees host %q", uid)
				}
			}
		})
	}
}

func TestExpiredHostCertificate(t *testing.T) {
	ca := openCA(t)
	id := join(t, ca, "uid1", noon)
	later := noon.Add(26 * time.Hour)

	t.Run("is not shown", func(t *testing.T) {
		_, _, err := shake(t, ServerTLS(ca, nil, at(later)), func(addr string) *tls.Config { return id.ClientTLS(addr, at(later)) })
		var refusal *model.Error
		if !errors.As(err, &refusal) || !strings.Contains(refusal.Reason, "expired at 2026-11-23T13:00:00Z") || !strings.Contains(refusal.Fix, "weft host token create") {
			t.Fatalf("error %v", err)
		}
	})
	t.Run("is not believed", func(t *testing.T) {
		// By the host's clock, half an hour behind, it is still good.
		_, serverErr, clientErr := shake(t, ServerTLS(ca, nil, at(noon.Add(25*time.Hour+time.Minute))), func(addr string) *tls.Config {
			return id.ClientTLS(addr, at(noon.Add(24*time.Hour+30*time.Minute)))
		})
		if serverErr == nil || clientErr == nil || !strings.Contains(serverErr.Error(), "expired") {
			t.Fatalf("server %v, client %v", serverErr, clientErr)
		}
	})
}

func TestHostOfAnotherDeployment(t *testing.T) {
	ours, theirs := openCA(t), openCA(t)
	id := join(t, theirs, "uid1", noon)
	_, serverErr, _ := shake(t, ServerTLS(ours, nil, at(noon)), func(addr string) *tls.Config {
		cfg := PinFingerprint(ours.Fingerprint()).TLS(addr, at(noon))
		cfg.Certificates = []tls.Certificate{id.cert}
		// A client that does not look at the authorities the server names.
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &id.cert, nil }
		return cfg
	})
	if serverErr == nil {
		t.Fatal("the server took a certificate of another CA")
	}
}

func TestPin(t *testing.T) {
	ours, theirs := openCA(t), openCA(t)
	server := ServerTLS(ours, []string{"weft.example", "192.0.2.7"}, at(noon))
	for name, c := range map[string]struct {
		pin  Pin
		name string
		now  time.Time
		want string
	}{
		"fingerprint and dialled address": {PinFingerprint(ours.Fingerprint()), "", noon, ""},
		"certificate and dialled address": {PinCA(ours.Certificate()), "", noon, ""},
		"a name of the server":            {PinCA(ours.Certificate()), "weft.example", noon, ""},
		"an address of the server":        {PinCA(ours.Certificate()), "192.0.2.7", noon, ""},
		"another's fingerprint":           {PinFingerprint(theirs.Fingerprint()), "", noon, "another deployment"},
		"another's certificate":           {PinCA(theirs.Certificate()), "", noon, "not signed by the pinned CA"},
		"another name":                    {PinCA(ours.Certificate()), "evil.example", noon, "does not call itself evil.example"},
		"another address":                 {PinCA(ours.Certificate()), "192.0.2.8", noon, "does not call itself 192.0.2.8"},
		"clock two hours behind":          {PinCA(ours.Certificate()), "", noon.Add(-2 * time.Hour), "set the clocks"},
		"clock two days ahead":            {PinCA(ours.Certificate()), "", noon.Add(48 * time.Hour), "set the clocks"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := shake(t, server, func(addr string) *tls.Config {
				if c.name != "" {
					addr = c.name
				}
				return c.pin.TLS(addr, at(c.now))
			})
			if c.want == "" && err != nil {
				t.Fatal(err)
			}
			if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Fatalf("error %v, want %q", err, c.want)
			}
		})
	}
}

// A certificate for clients must not be good for playing the server to others, though the same CA signed it and it has the
// server's address.
func TestHostCannotPlayTheServer(t *testing.T) {
	ca := openCA(t)
	key, _, err := newCSR()
	if err != nil {
		t.Fatal(err)
	}
	der, err := ca.issue(&x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, URIs: uriList(hostURI("uid1"))}, &key.PublicKey, noon)
	if err != nil {
		t.Fatal(err)
	}
	forClients := tls.Certificate{Certificate: [][]byte{der, ca.cert.Raw}, PrivateKey: key}
	for kind, cert := range map[string]tls.Certificate{"a host's": join(t, ca, "uid1", noon).cert, "one with the address": forClients} {
		rogue := &tls.Config{Certificates: []tls.Certificate{cert}, Time: at(noon), NextProtos: []string{"h2"}}
		for name, pin := range map[string]Pin{"by fingerprint": PinFingerprint(ca.Fingerprint()), "by certificate": PinCA(ca.Certificate())} {
			if _, _, err := shake(t, rogue, func(addr string) *tls.Config { return pin.TLS(addr, at(noon)) }); err == nil {
				t.Errorf("pinned %s, %s certificate was taken for the server's", name, kind)
			}
		}
	}
}

// A rogue that shows the true CA's certificate beside a leaf of its own making must not pass.
func TestTrueCABesideAForgedLeaf(t *testing.T) {
	ours, theirs := openCA(t), openCA(t)
	certs := &serverCerts{ca: theirs, clock: at(noon), dns: []string{"localhost"}}
	forged, err := certs.issue(addrOf("127.0.0.1"), noon)
	if err != nil {
		t.Fatal(err)
	}
	forged.Certificate[1] = ours.cert.Raw
	rogue := &tls.Config{Certificates: []tls.Certificate{*forged}, Time: at(noon), NextProtos: []string{"h2"}}
	if _, _, err := shake(t, rogue, func(addr string) *tls.Config { return PinFingerprint(ours.Fingerprint()).TLS(addr, at(noon)) }); err == nil {
		t.Fatal("the forged leaf passed")
	}
}

func TestServerCertificateRenewsInMemory(t *testing.T) {
	now := noon
	certs := &serverCerts{ca: openCA(t), clock: func() time.Time { return now }, byAddr: map[addr]*tls.Certificate{}}
	get := func() *x509.Certificate {
		c, err := certs.get(&tls.ClientHelloInfo{})
		if err != nil {
			t.Fatal(err)
		}
		return c.Leaf
	}
	first := get()
	now = noon.Add(Lifetime/2 - time.Second)
	if !get().Equal(first) {
		t.Error("renewed before half-life")
	}
	now = noon.Add(Lifetime / 2)
	second := get()
	if second.Equal(first) || !second.NotAfter.Equal(now.Add(Lifetime+Skew)) {
		t.Error("not renewed at half-life")
	}
	now = noon.Add(-24 * time.Hour)
	if get().NotBefore.After(now) {
		t.Error("not renewed when the clock was set back")
	}
}
