package trust

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/weftnet/weft/model"
)

// Pin is the only authority that a client believes: by certificate, or by the fingerprint in a token. The system's
// authorities are never asked.
type Pin struct {
	ca          *x509.Certificate
	fingerprint Fingerprint
}

// PinCA pins a CA certificate.
func PinCA(ca *x509.Certificate) Pin { return Pin{ca: ca, fingerprint: FingerprintOf(ca)} }

// PinFingerprint pins a CA whose certificate the server shows.
func PinFingerprint(f Fingerprint) Pin { return Pin{fingerprint: f} }

// PinFile pins the CA certificate in a PEM file, the server's ca/ca.crt.
func PinFile(path string) (Pin, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Pin{}, fmt.Errorf("read the CA file: %w", err)
	}
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != pemCert {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return Pin{}, fmt.Errorf("read the CA file %s: %w", path, err)
		}
		return PinCA(cert), nil
	}
	return Pin{}, fmt.Errorf("read the CA file %s: there is no certificate in it", path)
}

// Fingerprint of the pinned CA.
func (p Pin) Fingerprint() Fingerprint { return p.fingerprint }

// IsZero reports whether nothing is pinned.
func (p Pin) IsZero() bool { return p.fingerprint.IsZero() }

// TLS is a client's side of a connection to a server, "host:port" or "host": its chain must end at the pinned CA, it must be
// for servers, valid at the clock's time, and for that host's name or address.
func (p Pin) TLS(server string, clock func() time.Time) *tls.Config {
	name := serverName(server)
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: name,
		NextProtos: []string{"h2"},
		Time:       clock,
		// Not insecure: VerifyConnection does it all, as the CA is known only when the server has shown it, and
		// crypto/tls does not tell it an IP that was dialled.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			return p.verify(state.PeerCertificates, name, clock())
		},
	}
}

func (p Pin) verify(chain []*x509.Certificate, name string, now time.Time) error {
	if len(chain) == 0 {
		return errors.New("the server showed no certificate")
	}
	ca := p.ca
	if ca == nil {
		for _, c := range chain[1:] {
			if FingerprintOf(c).Is(p.fingerprint) {
				ca = c
			}
		}
	}
	if ca == nil || !ca.IsCA {
		shown := "none"
		if len(chain) > 1 {
			shown = FingerprintOf(chain[len(chain)-1]).String()
		}
		return model.Errorf(model.Unauthenticated, "server", "use a token (or CA file) of this deployment, or the address of the right server",
			"%s is of another deployment: its CA is %s, and the token pins %s", name, shown, p.fingerprint)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: poolOf(ca), DNSName: name, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	var authority x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var host x509.HostnameError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &authority):
		return model.Errorf(model.Unauthenticated, "server", "use the CA file (or a token) of this deployment, or the address of the right server",
			"the certificate of %s is not signed by the pinned CA %s", name, p.fingerprint)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return model.Errorf(model.Unauthenticated, "server", "set the clocks: they may be an hour apart",
			"the certificate of %s is valid from %s to %s, and here it is %s", name,
			stamp(chain[0].NotBefore), stamp(chain[0].NotAfter), stamp(now))
	case errors.As(err, &host):
		return model.Errorf(model.Unauthenticated, "server", "start the server with `--tls-name "+name+"`, or dial one of its names",
			"the server does not call itself %s, but %v %v", name, chain[0].DNSNames, chain[0].IPAddresses)
	}
	return fmt.Errorf("verify the certificate of %s: %w", name, err)
}

// serverName is the host of "host:port".
func serverName(server string) string {
	if host, _, err := net.SplitHostPort(server); err == nil {
		return host
	}
	return server
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
