package trust

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/weftnet/weft/model"
)

// maxServerCerts bounds the certificates that a server holds at once: one a local address that clients dial.
const maxServerCerts = 64

// ServerTLS is the server's side of every connection: TLS 1.3, certificates issued in memory and renewed at half-life, a
// client's certificate asked for and, if there is one, verified against the CA. Names are the server's DNS names and IPs; the
// address that a client dialled is added by itself, so that a server reached by address needs no names.
func ServerTLS(ca *CA, names []string, clock func() time.Time) *tls.Config {
	s := &serverCerts{ca: ca, clock: clock, byAddr: map[netip.Addr]*tls.Certificate{}}
	for _, name := range names {
		if ip, err := netip.ParseAddr(name); err == nil {
			s.ips = append(s.ips, ip)
		} else {
			s.dns = append(s.dns, name)
		}
	}
	s.dns = append(s.dns, "localhost")
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		ClientAuth:     tls.VerifyClientCertIfGiven,
		ClientCAs:      ca.pool(),
		NextProtos:     []string{"h2", "http/1.1"},
		Time:           clock,
		GetCertificate: s.get,
		// A ticket would carry the peer's certificate past its renewal and its host's removal.
		SessionTicketsDisabled: true,
	}
}

// serverCerts are a server's certificates, by the local address that was dialled.
type serverCerts struct {
	ca    *CA
	clock func() time.Time
	dns   []string
	ips   []netip.Addr

	mu     sync.Mutex
	byAddr map[netip.Addr]*tls.Certificate
}

func (s *serverCerts) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	var dialled netip.Addr
	if hello.Conn != nil {
		if tcp, ok := hello.Conn.LocalAddr().(*net.TCPAddr); ok {
			dialled = tcp.AddrPort().Addr().Unmap().WithZone("")
		}
	}
	now := s.clock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if cert := s.byAddr[dialled]; cert != nil && now.Before(halfLife(cert.Leaf)) && !now.Before(cert.Leaf.NotBefore) {
		return cert, nil
	}
	cert, err := s.issue(dialled, now)
	if err != nil {
		return nil, err
	}
	if len(s.byAddr) >= maxServerCerts {
		clear(s.byAddr) // they cost a signature each
	}
	s.byAddr[dialled] = cert
	return cert, nil
}

func (s *serverCerts) issue(dialled netip.Addr, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a server key: %w", err)
	}
	tmpl := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "weft server"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    s.dns,
	}
	for _, ip := range s.ips {
		tmpl.IPAddresses = append(tmpl.IPAddresses, ip.AsSlice())
	}
	if dialled.IsValid() {
		tmpl.IPAddresses = append(tmpl.IPAddresses, dialled.AsSlice())
	}
	der, err := s.ca.issue(tmpl, &key.PublicKey, now)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read the server's own certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der, s.ca.cert.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

// PeerHost is the uid in the certificate that the peer proved to hold, if it showed one. Whether such a host still exists is
// the caller's question: `weft host remove` ends a certificate before its time.
func PeerHost(state *tls.ConnectionState) (model.UID, bool) {
	if state == nil || len(state.VerifiedChains) == 0 {
		return "", false
	}
	return hostOf(state.VerifiedChains[0][0])
}

// halfLife is the middle of a certificate's life, which is as long after its making as Lifetime/2.
func halfLife(cert *x509.Certificate) time.Time {
	return cert.NotBefore.Add(cert.NotAfter.Sub(cert.NotBefore) / 2)
}
