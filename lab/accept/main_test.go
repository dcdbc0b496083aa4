package accept_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weftnet/weft/lab"
)

// takeDown are the labs that are up or being built, and what else there is, so that an interrupted run leaves nothing behind.
var takeDown = struct {
	sync.Mutex
	labs map[string]lab.Config
	undo []func() error
	// shared is the lab of all tests that need no lab of their own; built when the first of them asks.
	shared *fixture
}{labs: map[string]lab.Config{}}

// atEnd has something undone once: when the test ends, or when the run is interrupted. The last comes first.
func atEnd(t testing.TB, f func() error) {
	once := sync.OnceValue(f)
	takeDown.Lock()
	takeDown.undo = append(takeDown.undo, once)
	takeDown.Unlock()
	t.Cleanup(func() {
		if err := once(); err != nil {
			t.Error(err)
		}
	})
}

func TestMain(m *testing.M) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		<-signals
		os.Exit(max(1, leave()))
	}()
	status := m.Run()
	os.Exit(max(status, leave()))
}

// leave takes away what is there, every lab, and the temporary directory of the binary.
func leave() (status int) {
	takeDown.Lock()
	defer takeDown.Unlock()
	for _, f := range slices.Backward(takeDown.undo) {
		if err := f(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = 1
		}
	}
	for name, cfg := range takeDown.labs {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		if err := lab.Down(ctx, cfg); err != nil {
			fmt.Fprintf(os.Stderr, "take the lab %s away: %v\n", name, err)
			status = 1
		}
		cancel()
	}
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	return status
}

var built struct {
	once sync.Once
	dir  string
	path string
	err  error
}

// weft is the path of the program under test: WEFT_BIN, or built once.
func weft(t testing.TB) string {
	t.Helper()
	built.once.Do(func() {
		if built.path = os.Getenv("WEFT_BIN"); built.path != "" {
			return
		}
		if built.dir, built.err = os.MkdirTemp("", "weft-accept-"); built.err != nil {
			return
		}
		// A test runs programs as another user: let it reach this one.
		if built.err = os.Chmod(built.dir, 0o755); built.err != nil {
			return
		}
		built.path = filepath.Join(built.dir, "weft")
		cmd := exec.Command("go", "build", "-ldflags", "-s -w", "-o", built.path, "github.com/weftnet/weft/cmd/weft")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as released, and for guests that have no libraries
		out, err := cmd.CombinedOutput()
		if err != nil {
			built.err = fmt.Errorf("build weft: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.path
}
