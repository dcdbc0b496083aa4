package trust

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"net/url"
	"strings"

	"github.com/weftnet/weft/model"
)

// hostURIPrefix precedes the uid in a host's certificate.
const hostURIPrefix = "weft://host/"

// CSR is a certificate request that was checked.
type CSR struct {
	key *ecdsa.PublicKey
	// KeyHash is the SHA-256 of the public key: the same for a retry, whatever else is in the request.
	KeyHash []byte
}

// CheckCSR parses a PKCS #10 request, which must be signed by its own key (proof of possession) on P-256. Its names and
// extensions are ignored.
func CheckCSR(der []byte) (*CSR, error) {
	const fix = "start the agent again, it makes a new request"
	req, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, model.Errorf(model.Invalid, "csr", fix, "the certificate request cannot be read")
	}
	if err := req.CheckSignature(); err != nil {
		return nil, model.Errorf(model.Invalid, "csr", fix, "the certificate request is not signed by its own key")
	}
	key, ok := req.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, model.Errorf(model.Invalid, "csr", fix, "the certificate request's key is not ECDSA P-256")
	}
	sum := sha256.Sum256(req.RawSubjectPublicKeyInfo)
	return &CSR{key: key, KeyHash: sum[:]}, nil
}

// newCSR makes a key and a request for it. The request names nobody: the server decides the name.
func newCSR() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a host key: %w", err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, nil, fmt.Errorf("make a certificate request: %w", err)
	}
	return key, der, nil
}

func hostURI(uid model.UID) *url.URL {
	return &url.URL{Scheme: "weft", Host: "host", Path: "/" + string(uid)}
}

func uriList(u *url.URL) []*url.URL { return []*url.URL{u} }

// hostOf is the uid in a host's certificate.
func hostOf(cert *x509.Certificate) (model.UID, bool) {
	if len(cert.URIs) != 1 {
		return "", false
	}
	uid, ok := strings.CutPrefix(cert.URIs[0].String(), hostURIPrefix)
	if !ok || uid == "" || strings.Contains(uid, "/") {
		return "", false
	}
	return model.UID(uid), true
}
