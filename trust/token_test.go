package trust

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/weftnet/weft/model"
)

func newToken(t *testing.T, kind TokenKind, ca Fingerprint) Token {
	t.Helper()
	token, err := NewToken(kind, ca)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestTokenText(t *testing.T) {
	token := newToken(t, JoinToken, Fingerprint{1, 2})
	back, err := ParseToken(JoinToken, " "+token.String()+"\n")
	if err != nil || back != token {
		t.Fatalf("%v %v", back, err)
	}
	if strings.Contains(string(token.Hash()), token.Secret) {
		t.Error("the hash holds the secret")
	}
	text := token.String()
	for name, bad := range map[string]string{
		"nothing": "", "a word": "secret", "cut": text[:len(text)-3], "too long": text + ".x",
		"not hexadecimal": strings.Replace(text, token.Secret, strings.Repeat("z", 64), 1),
		"another kind":    newToken(t, APIToken, Fingerprint{}).String(),
	} {
		_, err := ParseToken(JoinToken, bad)
		var refusal *model.Error
		if !errors.As(err, &refusal) || refusal.Kind != model.Unauthenticated || refusal.Fix == "" {
			t.Errorf("%s: %v", name, err)
		} else if strings.Contains(err.Error(), token.Secret[:60]) {
			t.Errorf("%s: the message repeats the secret", name)
		}
	}
}

func TestCheckJoin(t *testing.T) {
	ca := Fingerprint{7}
	token, key := newToken(t, JoinToken, ca), []byte("key")
	record := func(change func(*model.JoinToken)) *model.JoinToken {
		r := &model.JoinToken{ID: token.ID, Host: "h1", Hash: token.Hash(), Expires: noon.Add(time.Hour)}
		if change != nil {
			change(r)
		}
		return r
	}
	for name, c := range map[string]struct {
		token  Token
		record *model.JoinToken
		host   string
		now    time.Time
		want   string
	}{
		"good":          {token, record(nil), "h1", noon, ""},
		"unknown":       {token, nil, "h1", noon, "no such join token"},
		"wrong":         {Token{JoinToken, token.ID, strings.Repeat("0", 64), ca}, record(nil), "h1", noon, "no such join token"},
		"expired":       {token, record(nil), "h1", noon.Add(time.Hour), "expired at"},
		"another":       {token, record(nil), "h2", noon, `for a host named "h1"`},
		"foreign":       {Token{JoinToken, token.ID, token.Secret, Fingerprint{8}}, record(nil), "h1", noon, "another deployment"},
		"used":          {token, record(func(r *model.JoinToken) { r.Used, r.CSRHash = "u", []byte("other") }), "h1", noon, "used already"},
		"used, no hash": {token, record(func(r *model.JoinToken) { r.Used = "u" }), "h1", noon, "used already"},
		"retried":       {token, record(func(r *model.JoinToken) { r.Used, r.CSRHash = "u", key }), "h1", noon, ""},
		"no hash":       {token, record(func(r *model.JoinToken) { r.Hash = nil }), "h1", noon, "no such join token"},
	} {
		err := c.token.CheckJoin(ca, c.record, c.host, key, c.now)
		checkRefusal(t, name, err, c.want)
	}
}

func TestCheckAPI(t *testing.T) {
	token := newToken(t, APIToken, Fingerprint{7})
	good := &model.APIToken{ID: token.ID, Hash: token.Hash(), Expires: noon.Add(time.Hour)}
	forever := &model.APIToken{ID: token.ID, Hash: token.Hash()}
	checkRefusal(t, "good", token.CheckAPI(good, noon), "")
	checkRefusal(t, "for ever", token.CheckAPI(forever, noon.AddDate(5, 0, 0)), "")
	checkRefusal(t, "unknown", token.CheckAPI(nil, noon), "no such API token")
	checkRefusal(t, "expired", token.CheckAPI(good, noon.Add(time.Hour)), "expired at")
	token.Secret = strings.Repeat("0", 64)
	checkRefusal(t, "wrong", token.CheckAPI(good, noon), "no such API token")
}

func checkRefusal(t *testing.T, name string, err error, want string) {
	t.Helper()
	if want == "" {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return
	}
	var refusal *model.Error
	if !errors.As(err, &refusal) || refusal.Kind != model.Unauthenticated || refusal.Field != "token" ||
		refusal.Fix == "" || !strings.Contains(refusal.Reason, want) {
		t.Errorf("%s: error %v, want %q", name, err, want)
	}
}

func FuzzParseToken(f *testing.F) {
	token, err := NewToken(JoinToken, Fingerprint{1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(token.String())
	f.Add("weft-join...")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseToken(JoinToken, text)
		if err != nil {
			return
		}
		if back, err := ParseToken(JoinToken, token.String()); err != nil || back != token {
			t.Errorf("%q does not come back: %v", text, err)
		}
	})
}

func FuzzCheckCSR(f *testing.F) {
	_, csr, err := newCSR()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(csr)
	f.Fuzz(func(t *testing.T, der []byte) {
		if csr, err := CheckCSR(der); err == nil && csr.key == nil {
			t.Error("a request without a key passed")
		}
	})
}
