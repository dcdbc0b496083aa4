package client

import "testing"

func TestWithPort(t *testing.T) {
	for in, want := range map[string]string{
		"weft.example": "weft.example:7348", "weft.example:1": "weft.example:1", "10.0.0.1": "10.0.0.1:7348",
		"fd00::1": "[fd00::1]:7348", "[fd00::1]": "[fd00::1]:7348", "[fd00::1]:1": "[fd00::1]:1",
	} {
		if got := WithPort(in); got != want {
			t.Errorf("WithPort(%q) = %q, want %q", in, got, want)
		}
	}
}
