package weft_test

import (
	"bufio"
	"bytes"
	"go/parser"
	"go/token"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/weftnet/weft/"

// rooms is the import table of ARCHITECTURE.md: what each room may import of the others. Longest prefix wins. A room
// that is not listed may not exist.
var rooms = map[string][]string{
	"wire":             {},
	"model":            {"wire"},
	"plan":             {"wire", "api/gen/plan"},
	"plan/stream":      {},
	"compile":          {"model", "plan", "wire", "api/gen/plan"},
	"vtep":             {"model", "plan", "wire", "api/gen/plan"},
	"store":            {"model", "wire"},
	"trust":            {"model", "wire"},
	"distribute":       {"plan", "api/gen/plan"},
	"server":           {"api", "model", "store", "compile", "plan", "distribute", "trust", "wire", "internal/heap"},
	"datapath":         {"wire"},
	"agent":            {"api/gen/plan", "api/gen/local", "plan", "distribute", "datapath", "trust", "wire", "internal/heap"},
	"client":           {"api", "trust", "wire"},
	"cli":              {"api", "client", "wire"},
	"lab":              {"api", "client", "datapath/netdev", "wire"},
	"bench":            {"api", "client", "lab", "datapath/netdev", "datapath/bpf", "wire"},
	"bench/scale":      {"agent", "api", "client", "compile", "datapath/netdev", "model", "plan", "store", "trust", "internal/heap"},
	"conform":          {"api", "client", "lab", "datapath", "wire"},
	"cmd":              {""},
	"api":              {},
	"internal/heap":    {},
	"internal/testenv": {},
}

// onlyIn says which rooms alone may import an outside package, and why.
var onlyIn = []struct {
	prefix string
	rooms  []string
	why    string
}{
	{"go.etcd.io/", []string{"store"}, "etcd is a detail of the store"},
	{"github.com/cilium/ebpf", []string{"datapath", "bench"}, "only the datapath speaks bpf(2)"},
	{"github.com/vishvananda/netlink", []string{"datapath"}, "only the datapath speaks netlink"},
	{"github.com/vishvananda/netns", []string{"datapath"}, "only the datapath changes namespaces"},
	{"net/http", []string{"server", "client", "agent", "api", "cmd", "bench/scale"}, "the others have no listener and call nobody"},
}

// TestImports turns red when, for instance, model imports store.
func TestImports(t *testing.T) {
	seen := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "tools" || d.Name() == ".git" || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || filepath.Dir(path) == "." {
			return nil
		}
		seen++
		room, allowed := roomOf(filepath.ToSlash(filepath.Dir(path)))
		if room == "" {
			t.Errorf("%s is in no room: add the room to the table here and in ARCHITECTURE.md, or move the file", path)
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range f.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			checkImport(t, path, room, allowed, imported)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 20 {
		t.Fatalf("read %d files only: the walk is broken", seen)
	}
}

func checkImport(t *testing.T, path, room string, allowed []string, imported string) {
	t.Helper()
	if own, ok := strings.CutPrefix(imported, module); ok {
		if own == room || strings.HasPrefix(own, room+"/") {
			return
		}
		if !slices.ContainsFunc(allowed, func(a string) bool { return a == "" || own == a || strings.HasPrefix(own, a+"/") }) {
			t.Errorf("%s: room %s must not import %s (ARCHITECTURE.md, the rooms)", path, room, own)
		}
		return
	}
	for _, rule := range onlyIn {
		if strings.HasPrefix(imported, rule.prefix) && !slices.Contains(rule.rooms, room) {
			t.Errorf("%s: room %s must not import %s: %s", path, room, imported, rule.why)
		}
	}
}

func roomOf(dir string) (string, []string) {
	for room := dir; room != "."; room = filepath.ToSlash(filepath.Dir(room)) {
		if allowed, ok := rooms[room]; ok {
			return room, allowed
		}
	}
	return "", nil
}

// TestPureRooms turns red when a pure room reads a clock, does I/O or logs.
func TestPureRooms(t *testing.T) {
	forbidden := []string{"os", "net", "log", "log/slog", "math/rand", "math/rand/v2", "crypto/rand", "context", "sync", "syscall"}
	for _, room := range []string{"wire", "model", "plan", "compile", "vtep"} {
		files, err := filepath.Glob(room + "/*.go")
		if err != nil || len(files) == 0 {
			t.Fatalf("no files in %s: %v", room, err)
		}
		for _, path := range files {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			for _, spec := range f.Imports {
				if imported, _ := strconv.Unquote(spec.Path.Value); slices.Contains(forbidden, imported) {
					t.Errorf("%s imports %s: %s touches nothing", path, imported, room)
				}
			}
		}
	}
}

// TestAgentHasNoEtcd turns red when something the agent imports links etcd, or the rooms of the server.
func TestAgentHasNoEtcd(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "./agent").Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(bytes.NewReader(out))
	n := 0
	for lines.Scan() {
		n++
		for _, p := range []string{"go.etcd.io/", module + "store", module + "server", module + "compile"} {
			if strings.HasPrefix(lines.Text(), p) {
				t.Errorf("agent links %s", lines.Text())
			}
		}
	}
	if n < 50 {
		t.Fatalf("go list named %d packages only", n)
	}
}

// TestEveryRoomHasADoc turns red when a room's doc.go is deleted.
func TestEveryRoomHasADoc(t *testing.T) {
	for room := range rooms {
		if room == "api" || room == "cmd" || strings.HasPrefix(room, "internal/") {
			continue
		}
		if files, _ := filepath.Glob(room + "/*.go"); len(files) == 0 {
			t.Errorf("room %s is empty", room)
			continue
		}
		if files, _ := filepath.Glob(room + "/doc.go"); len(files) == 0 {
			t.Errorf("room %s has no doc.go", room)
		}
	}
}
