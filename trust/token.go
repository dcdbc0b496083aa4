package trust

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/weftnet/weft/model"
)

// TokenKind is what a token is for, and how its text begins.
type TokenKind string

// The kinds of token.
const (
	// JoinToken lets one host join, once.
	JoinToken TokenKind = "weft-join"
	// APIToken is a client's credential.
	APIToken TokenKind = "weft-api"
)

// Token is a secret with the deployment it belongs to: <kind>.<id>.<secret>.<sha256 of the CA's certificate>.
type Token struct {
	Kind TokenKind
	// ID finds the record; it is no secret.
	ID string
	// Secret is 32 random octets in hexadecimal.
	Secret string
	// CA is the only authority that the bearer believes.
	CA Fingerprint
}

// NewToken makes a token of a deployment. Keep Hash of it, and show the token once.
func NewToken(kind TokenKind, ca Fingerprint) (Token, error) {
	var b [40]byte
	if _, err := rand.Read(b[:]); err != nil {
		return Token{}, fmt.Errorf("make a token: %w", err)
	}
	return Token{Kind: kind, ID: hex.EncodeToString(b[:8]), Secret: hex.EncodeToString(b[8:]), CA: ca}, nil
}

// ParseToken reads a token of the kind. What is wrong is said without repeating the text, which may be a secret.
func ParseToken(kind TokenKind, s string) (Token, error) {
	fix := "copy the whole line that `weft token create` printed"
	if kind == JoinToken {
		fix = "copy the whole line that `weft host token create` printed"
	}
	parts := strings.Split(strings.TrimSpace(s), ".")
	if len(parts) > 0 && parts[0] != string(kind) {
		switch TokenKind(parts[0]) {
		case JoinToken:
			return Token{}, model.Errorf(model.Unauthenticated, "token", fix, "it is a join token, and an API token is needed here")
		case APIToken:
			return Token{}, model.Errorf(model.Unauthenticated, "token", fix, "it is an API token, and a join token is needed here")
		}
		return Token{}, model.Errorf(model.Unauthenticated, "token", fix, "it does not begin with %s", kind)
	}
	if len(parts) != 4 {
		return Token{}, model.Errorf(model.Unauthenticated, "token", fix, "it has %d parts instead of 4", len(parts))
	}
	id, ierr := hex.DecodeString(parts[1])
	secret, serr := hex.DecodeString(parts[2])
	ca, cerr := ParseFingerprint(parts[3])
	if ierr != nil || serr != nil || cerr != nil || len(id) != 8 || len(secret) != 32 {
		return Token{}, model.Errorf(model.Unauthenticated, "token", fix, "it is damaged")
	}
	return Token{Kind: kind, ID: parts[1], Secret: parts[2], CA: ca}, nil
}

// String is the text that a user copies. It is a secret.
func (t Token) String() string {
	return strings.Join([]string{string(t.Kind), t.ID, t.Secret, t.CA.String()}, ".")
}

// Hash is what is kept of the secret.
func (t Token) Hash() []byte {
	sum := sha256.Sum256([]byte(t.Secret))
	return sum[:]
}

// matches compares in constant time.
func (t Token) matches(hash []byte) bool { return subtle.ConstantTimeCompare(t.Hash(), hash) == 1 }

// CheckJoin says whether a host of that name may join with the token now. Record is nil when there is none of that id; keyHash
// is CSR.KeyHash: a retry of the join that used the token, with the same key, is let through. A wrong secret and an
// unknown id get the same answer.
func (t Token) CheckJoin(ca Fingerprint, record *model.JoinToken, host string, keyHash []byte, now time.Time) error {
	fix := fmt.Sprintf("make one with `weft host token create %s`", host)
	switch {
	case !t.CA.Is(ca):
		return model.Errorf(model.Unauthenticated, "token", fix, "it belongs to another deployment, with the CA %s", t.CA)
	case record == nil || !t.matches(record.Hash):
		return model.Errorf(model.Unauthenticated, "token", fix, "no such join token")
	case record.Host != host:
		return model.Errorf(model.Unauthenticated, "token", fix, "it is for a host named %q, and this one joins as %q", record.Host, host)
	case record.Used != "" && (len(record.CSRHash) == 0 || subtle.ConstantTimeCompare(record.CSRHash, keyHash) != 1):
		return model.Errorf(model.Unauthenticated, "token", fix, "it was used already")
	case !now.Before(record.Expires):
		return model.Errorf(model.Unauthenticated, "token", fix, "it expired at %s", record.Expires.UTC().Format(time.RFC3339))
	}
	return nil
}

// CheckAPI says whether the token is good now. Record is nil when there is none of that id; a wrong secret and an unknown
// id get the same answer.
func (t Token) CheckAPI(record *model.APIToken, now time.Time) error {
	const fix = "make one with `weft token create` on the server's machine"
	switch {
	case record == nil || !t.matches(record.Hash):
		return model.Errorf(model.Unauthenticated, "token", fix, "no such API token")
	case !record.Expires.IsZero() && !now.Before(record.Expires):
		return model.Errorf(model.Unauthenticated, "token", fix, "it expired at %s", record.Expires.UTC().Format(time.RFC3339))
	}
	return nil
}
