package trust

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/weftnet/weft/model"
)

const (
	// hostFile holds the host's key, its certificate and the CA's, in one file for the sake of one rename.
	hostFile = "host.pem"
	// joinFile holds key and request of a join that is under way, so that a retry after a crash is the same join.
	joinFile = "join.pem"
)

// HostIdentity is what a host proves itself with. It is immutable; a renewal makes another.
type HostIdentity struct {
	// UID of the host, as the server gave it.
	UID model.UID
	// JoinedWith is the id of the join token that the host came with; renewals keep it.
	JoinedWith string
	cert       tls.Certificate
	ca         *x509.Certificate
}

// LoadHostIdentity reads the identity in a directory. The error is fs.ErrNotExist for a host that has not joined.
func LoadHostIdentity(dir string) (*HostIdentity, error) {
	path := filepath.Join(dir, hostFile)
	b, err := readPrivate(path)
	if err != nil {
		return nil, fmt.Errorf("read the host's identity: %w", err)
	}
	key, certs, err := parseKeyAndCerts(b)
	if err != nil {
		return nil, fmt.Errorf("read the host's identity %s: %w", path, err)
	}
	id, err := newHostIdentity(key, certs)
	if err != nil {
		return nil, fmt.Errorf("read the host's identity %s: %w", path, err)
	}
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == pemToken {
			id.JoinedWith = string(block.Bytes)
		}
	}
	return id, nil
}

// Supersedes reports whether a host that has this identity and is given the token is to join again: the token is not the one
// that it joined with. Someone made it because the identity is worth nothing any more: it expired, or the host was removed.
func (t Token) Supersedes(h *HostIdentity) bool {
	return t.Kind == JoinToken && h.JoinedWith != "" && t.ID != h.JoinedWith
}

func newHostIdentity(key *ecdsa.PrivateKey, certs []*x509.Certificate) (*HostIdentity, error) {
	if len(certs) != 2 {
		return nil, fmt.Errorf("there are %d certificates instead of the host's and the CA's", len(certs))
	}
	leaf, ca := certs[0], certs[1]
	uid, ok := hostOf(leaf)
	if !ok {
		return nil, errors.New("the certificate does not name a host")
	}
	if !ca.IsCA {
		return nil, errors.New("the second certificate is not a CA's")
	}
	if err := leaf.CheckSignatureFrom(ca); err != nil {
		return nil, fmt.Errorf("the certificate is not signed by the CA beside it: %w", err)
	}
	return &HostIdentity{UID: uid, ca: ca, cert: tls.Certificate{
		Certificate: [][]byte{leaf.Raw, ca.Raw}, PrivateKey: key, Leaf: leaf,
	}}, nil
}

// save replaces the identity in dir.
func (h *HostIdentity) save(dir string) error {
	b, err := encodeKey(h.cert.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		return err
	}
	for _, der := range h.cert.Certificate {
		b = append(b, encodeCert(der)...)
	}
	if h.JoinedWith != "" {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: pemToken, Bytes: []byte(h.JoinedWith)})...)
	}
	return writeFile(filepath.Join(dir, hostFile), b)
}

// Certificate of the host.
func (h *HostIdentity) Certificate() *x509.Certificate { return h.cert.Leaf }

// Pin is the deployment's CA.
func (h *HostIdentity) Pin() Pin { return PinCA(h.ca) }

// ClientTLS is the host's side of a connection to a server ("host:port"), proved with this identity.
func (h *HostIdentity) ClientTLS(server string, clock func() time.Time) *tls.Config {
	cfg := h.Pin().TLS(server, clock)
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if err := h.Check(clock()); err != nil {
			return nil, err
		}
		return &h.cert, nil
	}
	return cfg
}

// Check says whether the certificate is good at a time. A certificate that ended stops no packet, but its host needs a new
// token to talk to servers again.
func (h *HostIdentity) Check(now time.Time) error {
	leaf := h.cert.Leaf
	switch {
	case now.After(leaf.NotAfter):
		return model.Errorf(model.Unauthenticated, "certificate",
			"make a token with `weft host token create NAME` and start the agent with it; what is attached goes on meanwhile",
			"this host's certificate expired at %s (here it is %s)", stamp(leaf.NotAfter), stamp(now))
	case now.Before(leaf.NotBefore):
		return model.Errorf(model.Unauthenticated, "certificate", "set this host's clock: it may be an hour off",
			"this host's certificate is valid from %s (here it is %s)", stamp(leaf.NotBefore), stamp(now))
	}
	return nil
}

// Join is a host's request to be let in: a key that stays here and a CSR.
type Join struct {
	// CSR to send with the token, PKCS #10 DER.
	CSR []byte
	// Token that it is sent with. Accept keeps its id, no more.
	Token Token

	dir string
	key *ecdsa.PrivateKey
}

// PrepareJoin makes a key and a request in dir, or finds those of a join that did not end: the server answers the same
// request again though its token was used.
func PrepareJoin(dir string) (*Join, error) {
	if err := privateDir(dir); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, joinFile)
	b, err := readPrivate(path)
	if err == nil {
		if j, ok := parseJoin(b); ok {
			j.dir = dir
			return j, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the join under way: %w", err)
	}
	key, csr, err := newCSR()
	if err != nil {
		return nil, err
	}
	if b, err = encodeKey(key); err != nil {
		return nil, err
	}
	b = append(b, pem.EncodeToMemory(&pem.Block{Type: pemCSR, Bytes: csr})...)
	if err := writeFile(path, b); err != nil {
		return nil, err
	}
	return &Join{CSR: csr, dir: dir, key: key}, nil
}

func parseJoin(b []byte) (*Join, bool) {
	j := &Join{}
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case pemKey:
			j.key, _ = x509.ParseECPrivateKey(block.Bytes)
		case pemCSR:
			j.CSR = block.Bytes
		}
	}
	return j, j.key != nil && len(j.CSR) > 0
}

// Accept checks the server's answer (the host's certificate and the CA's, DER) against the pin and the key, and keeps it.
func (j *Join) Accept(chain [][]byte, pin Pin, now time.Time) (*HostIdentity, error) {
	id, err := acceptChain(j.key, chain, pin, now)
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	id.JoinedWith = j.Token.ID
	if err := id.save(j.dir); err != nil {
		return nil, err
	}
	if err := os.Remove(filepath.Join(j.dir, joinFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("end the join: %w", err)
	}
	return id, nil
}

func acceptChain(key *ecdsa.PrivateKey, chain [][]byte, pin Pin, now time.Time) (*HostIdentity, error) {
	var certs []*x509.Certificate
	for _, der := range chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("read the server's answer: %w", err)
		}
		certs = append(certs, c)
	}
	id, err := newHostIdentity(key, certs)
	if err != nil {
		return nil, fmt.Errorf("the server's answer: %w", err)
	}
	if !FingerprintOf(id.ca).Is(pin.fingerprint) {
		return nil, fmt.Errorf("the server's answer is signed by the CA %s, and %s is pinned", FingerprintOf(id.ca), pin.fingerprint)
	}
	if !key.PublicKey.Equal(id.cert.Leaf.PublicKey) {
		return nil, errors.New("the server's answer is for another key")
	}
	if err := id.Check(now); err != nil {
		return nil, err
	}
	return id, nil
}
