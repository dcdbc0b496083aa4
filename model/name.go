package model

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of what one object may say.
const (
	// MaxName is the length of a DNS label (RFC 1035, section 2.3.4).
	MaxName = 63
	// MaxDescription in octets.
	MaxDescription = 1024
)

const fixName = "use 1 to 63 lower-case letters, digits and hyphens, with a letter or digit at both ends"

// ValidateName refuses a name that is not a DNS label in lower case (RFC 1123, section 2.1). The result is a typed nil
// pointer when the name is good: compare it before storing it in an error variable.
func ValidateName(field, s string) *Error {
	switch {
	case s == "":
		return Errorf(Invalid, field, fixName, "a name is needed")
	case len(s) > MaxName:
		return Errorf(Invalid, field, fixName, "%q has %d characters, more than %d", clip(s), len(s), MaxName)
	case s[0] == '-' || s[len(s)-1] == '-':
		return Errorf(Invalid, field, fixName, "%q begins or ends with a hyphen", s)
	}
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
			return Errorf(Invalid, field, fixName, "%q contains %q", s, r)
		}
	}
	return nil
}

// validateDescription refuses what would break a table or a log: anything that is not printable UTF-8 of bounded length.
func validateDescription(s string) *Error {
	const field = "spec.description"
	switch {
	case len(s) > MaxDescription:
		return Errorf(Invalid, field, "shorten it", "%d octets are more than %d", len(s), MaxDescription)
	case !utf8.ValidString(s):
		return Errorf(Invalid, field, "write it in UTF-8", "it is not valid UTF-8")
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return Errorf(Invalid, field, "write it on one line, without control characters", "it contains a control character")
	}
	return nil
}

// clip keeps a hostile value from filling an error message.
func clip(s string) string {
	if len(s) <= 80 {
		return s
	}
	return strings.ToValidUTF8(s[:80], "") + "..."
}

// at is the field of a list's element.
func at(field string, i int) string { return fmt.Sprintf("%s[%d]", field, i) }

// same refuses a change of what cannot be changed.
func same[T comparable](field string, now, was T, fix string) *Error {
	if now == was {
		return nil
	}
	return Errorf(Invalid, field, fix, "it cannot be changed (from %s to %s)", shown(was), shown(now))
}

func shown(v any) string {
	if s := fmt.Sprint(v); s != "" {
		return clip(s)
	}
	return "nothing"
}
