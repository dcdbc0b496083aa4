package trust

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/weftnet/weft/model"
)

const (
	// Skew is how far the clocks of two machines may be apart in either direction.
	Skew = time.Hour
	// Lifetime of a server's or a host's certificate, before Skew is added at both ends.
	Lifetime = 24 * time.Hour
	// caLifetime of the deployment's CA.
	caLifetime = 10 * 365 * 24 * time.Hour

	// caFile holds key and certificate in one file, so that a crash cannot leave one without the other.
	caFile = "ca.pem"
	// caCertFile is a copy of the certificate alone, to be given to clients.
	caCertFile = "ca.crt"

	pemKey  = "EC PRIVATE KEY"
	pemCert = "CERTIFICATE"
	pemCSR  = "CERTIFICATE REQUEST"
	// pemToken holds the id, which is no secret, of the token that a host joined with.
	pemToken = "WEFT JOIN TOKEN ID"
)

// Fingerprint is the SHA-256 of a certificate's DER form.
type Fingerprint [sha256.Size]byte

// FingerprintOf a certificate.
func FingerprintOf(cert *x509.Certificate) Fingerprint { return sha256.Sum256(cert.Raw) }

// ParseFingerprint reads 64 hexadecimal digits.
func ParseFingerprint(s string) (Fingerprint, error) {
	var f Fingerprint
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(f) {
		return Fingerprint{}, fmt.Errorf("%q is not a SHA-256 fingerprint of 64 hexadecimal digits", s)
	}
	copy(f[:], b)
	return f, nil
}

// String is 64 hexadecimal digits.
func (f Fingerprint) String() string { return hex.EncodeToString(f[:]) }

// IsZero reports whether there is no fingerprint.
func (f Fingerprint) IsZero() bool { return f == Fingerprint{} }

// Is compares in constant time.
func (f Fingerprint) Is(g Fingerprint) bool { return subtle.ConstantTimeCompare(f[:], g[:]) == 1 }

// CA is a deployment's certificate authority. It is safe for concurrent use.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// OpenCA reads the CA in dir, or makes one at the first start: a directory of mode 0700 with files of mode 0600. Two
// servers that start on the same directory at once end with the same CA.
func OpenCA(dir string, now time.Time) (*CA, error) {
	if err := privateDir(dir); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, caFile)
	ca, err := readCA(path)
	if errors.Is(err, fs.ErrNotExist) {
		ca, err = makeCA(path, now)
	}
	if err != nil {
		return nil, err
	}
	if now.After(ca.cert.NotAfter) {
		return nil, fmt.Errorf("the CA in %s expired on %s: move the directory away and let every host and client join again",
			path, ca.cert.NotAfter.Format(time.DateOnly))
	}
	if err := writeFile(filepath.Join(dir, caCertFile), ca.PEM()); err != nil {
		return nil, err
	}
	return ca, nil
}

// HasCA reports whether there is a CA in dir, readable or not.
func HasCA(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, caFile))
	return !errors.Is(err, fs.ErrNotExist)
}

func readCA(path string) (*CA, error) {
	b, err := readPrivate(path)
	if err != nil {
		return nil, fmt.Errorf("read the CA: %w", err)
	}
	key, certs, err := parseKeyAndCerts(b)
	if err != nil {
		return nil, fmt.Errorf("read the CA %s: %w", path, err)
	}
	if len(certs) != 1 || !certs[0].IsCA {
		return nil, fmt.Errorf("read the CA %s: it does not hold one CA certificate", path)
	}
	return &CA{cert: certs[0], key: key}, nil
}

func makeCA(path string, now time.Time) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the CA's key: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "weft CA " + hex.EncodeToString(serial.Bytes()[:4])},
		NotBefore:             now.Add(-Skew),
		NotAfter:              now.Add(caLifetime),
		IsCA:                  true,
		MaxPathLenZero:        true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make the CA's certificate: %w", err)
	}
	b, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	b = append(b, encodeCert(der)...)
	if err := createFile(path, b); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return readCA(path) // ours, or that of the server that was first
}

// Certificate of the CA.
func (c *CA) Certificate() *x509.Certificate { return c.cert }

// Fingerprint of the CA's certificate, which tokens carry.
func (c *CA) Fingerprint() Fingerprint { return FingerprintOf(c.cert) }

// PEM is the CA's certificate, for clients that pin it by file.
func (c *CA) PEM() []byte { return encodeCert(c.cert.Raw) }

// pool holds the CA alone.
func (c *CA) pool() *x509.CertPool { return poolOf(c.cert) }

// SignHost checks a host's CSR (see CheckCSR) and answers with its certificate and the CA's, DER. Names in the CSR are
// ignored: the certificate says weft://host/<uid> and nothing else.
func (c *CA) SignHost(csr []byte, host model.UID, now time.Time) ([][]byte, error) {
	checked, err := CheckCSR(csr)
	if err != nil {
		return nil, err
	}
	if host == "" {
		return nil, errors.New("sign a host's certificate: no uid")
	}
	uri := hostURI(host)
	der, err := c.issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: uri.String()},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs:        uriList(uri),
	}, checked.key, now)
	if err != nil {
		return nil, err
	}
	return [][]byte{der, c.cert.Raw}, nil
}

// issue fills in what every certificate has in common and signs it.
func (c *CA) issue(tmpl *x509.Certificate, key *ecdsa.PublicKey, now time.Time) ([]byte, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	tmpl.SerialNumber = serial
	tmpl.NotBefore = now.Add(-Skew)
	tmpl.NotAfter = now.Add(Lifetime + Skew)
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	tmpl.BasicConstraintsValid = true
	der, err := x509.CreateCertificate(rand.Reader, tmpl, c.cert, key, c.key)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate: %w", err)
	}
	return der, nil
}

// newSerial is 127 random bits, never short: the CA's name is taken from its octets.
func newSerial() (*big.Int, error) {
	b := make([]byte, 16)
	if _, err := rand.Read(b); err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b), nil
}

func poolOf(cert *x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return pool
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemCert, Bytes: der})
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}), nil
}

// parseKeyAndCerts reads a PEM file with one key and the certificate that belongs to it first among the others.
func parseKeyAndCerts(b []byte) (*ecdsa.PrivateKey, []*x509.Certificate, error) {
	var key *ecdsa.PrivateKey
	var certs []*x509.Certificate
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case pemKey:
			k, err := x509.ParseECPrivateKey(block.Bytes)
			if err != nil {
				return nil, nil, fmt.Errorf("parse the key: %w", err)
			}
			key = k
		case pemCert:
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, nil, fmt.Errorf("parse a certificate: %w", err)
			}
			certs = append(certs, c)
		}
	}
	switch {
	case key == nil:
		return nil, nil, errors.New("there is no key in it")
	case len(certs) == 0:
		return nil, nil, errors.New("there is no certificate in it")
	case !key.PublicKey.Equal(certs[0].PublicKey):
		return nil, nil, errors.New("key and certificate do not belong together")
	}
	return key, certs, nil
}

// readPrivate reads a file that must be nobody else's to read.
func readPrivate(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s has mode %04o and holds a key: chmod 600 %s", path, st.Mode().Perm(), path)
	}
	return os.ReadFile(path)
}
