package lab

import (
	"net"
	"slices"
	"strings"
	"testing"
)

// Goes red when a lab whose routers cannot route multicast is built all the same, or when the error does not say what works instead.
func TestMulticastIsRefusedWhereItCannotBe(t *testing.T) {
	for fix, cfg := range map[string]Config{
		"--underlay 4":  {Underlay: 6},
		"--uplinks 1":   {Uplinks: 2},
		"leave it out":  {Direct: true},
		"bare":          {Bare: true},
		"--hosts 1 to ": {Hosts: maxRouted + 1},
	} {
		cfg.Binary = "/bin/true"
		if _, err := cfg.withDefaults(); err != nil {
			t.Errorf("without multicast: %v", err)
		}
		cfg.Multicast = true
		if _, err := cfg.withDefaults(); err == nil || !strings.Contains(err.Error(), "--multicast") || !strings.Contains(err.Error(), fix) {
			t.Errorf("%q: %v", fix, err)
		}
	}
	if _, err := (Config{Multicast: true, Hosts: maxRouted, Binary: "/bin/true"}).withDefaults(); err != nil {
		t.Error(err)
	}
}

// Goes red when the error does not name the package.
func TestPackageOfMissingDaemon(t *testing.T) {
	was := frrFolders
	defer func() { frrFolders = was }()
	frrFolders = []string{t.TempDir()}
	if _, err := Up(t.Context(), testConfig(t, Config{Multicast: true})); err == nil || !strings.Contains(err.Error(), "apt-get install frr") {
		t.Errorf("without pimd: %v", err)
	}
}

// Goes red when a router is not told of one of its links, or spine 1 not that it is the rendezvous point.
func TestWhatRoutersAreTold(t *testing.T) {
	c, err := Config{Multicast: true, Hosts: 2, Spines: 2, Binary: "/bin/true"}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	for router, want := range map[string][]string{
		"leaf2":  {"interface to-spine1", "interface to-spine2", "interface to-h2", "interface to-guest2"},
		"spine1": {"interface to-leaf1", "interface to-leaf2", "interface lo"},
		"spine2": {"interface to-leaf1", "interface to-leaf2"},
	} {
		text := c.pimConfig(router)
		have := slices.DeleteFunc(strings.Split(text, "\n"), func(l string) bool { return !strings.HasPrefix(l, "interface") })
		if !slices.Equal(have, want) || strings.Count(text, " ip pim\n") != len(want) || !strings.Contains(text, "ip pim rp 198.19.1.1 224.0.0.0/4\n") {
			t.Errorf("%s is told:\n%s\nwant %v", router, text, want)
		}
	}
}

// Goes red when an answer that comes in pieces is cut, or one with a status is taken for the answer.
func TestAnswersOfDaemons(t *testing.T) {
	for _, c := range []struct {
		pieces     []string
		want, fail string
	}{
		{[]string{"{}\n\x00\x00\x00\x00"}, "{}\n", ""},
		{[]string{"{\n", "}\n\x00", "\x00\x00", "\x00"}, "{\n}\n", ""},
		{[]string{"\x00\x00\x00\x00"}, "", ""},
		{[]string{"% [PIM] Unknown command: x\n\x00\x00\x00\x02"}, "", "Unknown command"},
		{[]string{"half"}, "", "EOF"},
	} {
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			_, _ = theirs.Read(make([]byte, 64))
			for _, p := range c.pieces {
				_, _ = theirs.Write([]byte(p))
			}
		}()
		got, err := tell(ours, "show x")
		if string(got) != c.want || (err == nil) != (c.fail == "") || err != nil && !strings.Contains(err.Error(), c.fail) {
			t.Errorf("%q: %q, %v", c.pieces, got, err)
		}
		ours.Close()
	}
}
