package main

import "testing"

func TestOwnServer(t *testing.T) {
	for listen, want := range map[string]string{
		":7348":          "127.0.0.1:7348",
		"0.0.0.0:1":      "127.0.0.1:1",
		"[::]:7348":      "[::1]:7348",
		"192.0.2.1:7348": "192.0.2.1:7348",
		"[fd00::1]:7348": "[fd00::1]:7348",
	} {
		if got, err := ownServer(listen); err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", listen, got, err, want)
		}
	}
	if got, err := ownServer("foo"); err == nil {
		t.Errorf("foo: %s, want an error", got)
	}
}
