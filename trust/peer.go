package trust

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"
)

// serverURIPrefix is that of the name in the certificate that a server shows to another one.
const serverURIPrefix = "weft://server/"

// PeerTLS is a server's side of connections that it opens to the deployment's other servers: it believes the CA alone, and proves to be
// the server of that id by a certificate that it makes itself, which nobody can who lacks the CA's key.
func PeerTLS(ca *CA, id string, clock func() time.Time) func(server string) *tls.Config {
	p := &peerCert{ca: ca, id: id, clock: clock}
	return func(server string) *tls.Config {
		cfg := PinCA(ca.cert).TLS(server, clock)
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return p.get() }
		return cfg
	}
}

// peerCert is a server's certificate towards other servers, made anew at half-life.
type peerCert struct {
	ca    *CA
	id    string
	clock func() time.Time

	mu   sync.Mutex
	cert *tls.Certificate
}

func (p *peerCert) get() (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.clock()
	if p.cert != nil && now.Before(halfLife(p.cert.Leaf)) && !now.Before(p.cert.Leaf.NotBefore) {
		return p.cert, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key for other servers: %w", err)
	}
	uri := &url.URL{Scheme: "weft", Host: "server", Path: "/" + p.id}
	der, err := p.ca.issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: uri.String()},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs:        uriList(uri),
	}, &key.PublicKey, now)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read the certificate for other servers: %w", err)
	}
	p.cert = &tls.Certificate{Certificate: [][]byte{der, p.ca.cert.Raw}, PrivateKey: key, Leaf: leaf}
	return p.cert, nil
}

// PeerServer is the id in the certificate that the peer proved to hold, if it is a server's.
func PeerServer(state *tls.ConnectionState) (id string, ok bool) {
	if state == nil || len(state.VerifiedChains) == 0 {
		return "", false
	}
	leaf := state.VerifiedChains[0][0]
	if len(leaf.URIs) != 1 {
		return "", false
	}
	id, ok = strings.CutPrefix(leaf.URIs[0].String(), serverURIPrefix)
	return id, ok && id != "" && !strings.Contains(id, "/")
}
