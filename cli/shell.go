package cli

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// shellPatience is how long a command may take to end after it was asked to.
const shellPatience = 5 * time.Second

// shell runs a user's command, with variables beside this program's own, and gives what it says to out. An interrupted one is asked to end
// with everything that it started. The last line that it said is for who asks why it failed.
func shell(ctx context.Context, command string, variables []string, out io.Writer) (last string, err error) {
	said := &lines{out: out}
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Env = append(os.Environ(), variables...)
	cmd.Stdout, cmd.Stderr = said, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = shellPatience
	err = cmd.Run()
	said.flush()
	return said.last, err
}

// lines passes whole lines on, but for empty ones, and remembers the last.
type lines struct {
	out  io.Writer
	rest []byte
	last string
}

func (l *lines) Write(b []byte) (int, error) {
	l.rest = append(l.rest, b...)
	for {
		line, rest, whole := bytes.Cut(l.rest, []byte("\n"))
		if !whole {
			return len(b), nil
		}
		l.rest = rest
		if err := l.line(string(line)); err != nil {
			return len(b), err
		}
	}
}

func (l *lines) line(s string) error {
	t := strings.TrimSpace(s)
	if t == "" {
		return nil
	}
	l.last = t
	_, err := io.WriteString(l.out, s+"\n")
	return err
}

func (l *lines) flush() {
	if len(l.rest) > 0 {
		_ = l.line(string(l.rest))
		l.rest = nil
	}
}

// prefixed puts a prefix before each line that is written to it, one Write a line, and lets no two writers of one lock mix.
type prefixed struct {
	mu     *sync.Mutex
	out    io.Writer
	prefix string
}

func (p prefixed) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := io.WriteString(p.out, p.prefix+string(b)); err != nil {
		return 0, err
	}
	return len(b), nil
}
