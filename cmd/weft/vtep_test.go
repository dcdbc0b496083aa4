package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestVTEPCheck turns red when a mistake in the file is no wrong usage (vtep.Parse's errors of another kind), or when a server is named in vain.
func TestVTEPCheck(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write("good.yaml", "networks:\n- {name: blue, vni: 7, remotes: [192.0.2.2], ports: [tap0]}\n")
	bad := write("bad.yaml", "networks:\n- {name: blue, vni: 0}\n")
	cases := map[string]struct {
		args []string
		want int
	}{
		"good":     {[]string{"-f", good}, 0},
		"bad":      {[]string{"-f", bad}, 2},
		"none":     {[]string{"-f", filepath.Join(dir, "none.yaml")}, 1},
		"a server": {[]string{"-f", good, "--server", "h1"}, 2},
		"packaged": {[]string{"-f", "../../packaging/vtep.yaml"}, 0},
	}
	for name, c := range cases {
		if got := run(t.Context(), append([]string{"vtep", "check"}, c.args...)); got != c.want {
			t.Errorf("%s: status %d, want %d", name, got, c.want)
		}
	}
}
