package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	clientv3 "go.etcd.io/etcd/client/v3"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/client"
	"github.com/weftnet/weft/store"
)

// cluster is three members, some servers, and what is needed to speak to them.
type cluster struct {
	t       *testing.T
	prefix  string
	dir     string
	members []*process
	servers []*process
	rand    *rand.Rand

	etcd  *clientv3.Client
	store *store.Store
	token string
}

// process is one that is killed and started again.
type process struct {
	name string
	make func() *exec.Cmd
	cmd  *exec.Cmd
	log  string
}

// startCluster makes an empty deployment of that many servers.
func startCluster(t *testing.T, servers int, seed uint64) *cluster {
	t.Helper()
	c := &cluster{t: t, prefix: os.Getenv(inHub), rand: rand.New(rand.NewPCG(seed, 1))}
	c.dir = shortDir(t)
	var initial, endpoints []string
	for i := range 3 {
		initial = append(initial, fmt.Sprintf("e%d=http://%s:2380", i, nodes[fmt.Sprintf("e%d", i)]))
		endpoints = append(endpoints, fmt.Sprintf("http://%s:2379", nodes[fmt.Sprintf("e%d", i)]))
	}
	self, err := os.Executable()
	must(t, err)
	c.smallDisk()
	for i := range 3 {
		name := fmt.Sprintf("e%d", i)
		text, err := json.Marshal(memberConfig{Name: name, Dir: filepath.Join(c.dir, name, "data"), Address: nodes[name], Cluster: strings.Join(initial, ",")})
		must(t, err)
		c.members = append(c.members, c.process(name, []string{asMember + "=" + string(text)}, self))
	}
	for _, m := range c.members {
		c.start(m)
	}
	c.etcd, err = clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 5 * time.Second})
	must(t, err)
	t.Cleanup(func() { c.etcd.Close() })
	weft := weftBinary(t)
	for i := range servers {
		name := fmt.Sprintf("s%d", i)
		d := filepath.Join(c.dir, name)
		must(t, os.MkdirAll(filepath.Join(d, "ca"), 0o700))
		c.servers = append(c.servers, c.process(name, nil, weft, "server", "--listen", nodes[name]+":7348", "--dir", d, "--socket", filepath.Join(d, "s"),
			"--etcd-endpoints", strings.Join(endpoints, ",")))
		if i > 0 {
			ca, err := os.ReadFile(filepath.Join(c.dir, "s0", "ca", "ca.pem"))
			must(t, err)
			must(t, os.WriteFile(filepath.Join(d, "ca", "ca.pem"), ca, 0o600))
		}
		c.start(c.servers[i])
		c.answers(c.servers[i])
	}
	c.store, err = store.Open(t.Context(), store.Config{Endpoints: endpoints, CompactEvery: -1})
	must(t, err)
	t.Cleanup(func() { c.store.Close() })
	root := c.root(c.servers[0])
	made, err := root.System.CreateAPIToken(t.Context(), connect.NewRequest(&weftv1.CreateAPITokenRequest{Name: "test", Scope: weftv1.TokenScope_TOKEN_SCOPE_ADMIN}))
	must(t, err)
	c.token = made.Msg.GetSecret()
	return c
}

// smallDisk puts the last member's data on a file system that is soon full.
func (c *cluster) smallDisk() {
	d := filepath.Join(c.dir, "e2")
	must(c.t, os.MkdirAll(d, 0o700))
	must(c.t, syscall.Mount("tmpfs", d, "tmpfs", 0, "size=400m"))
	c.t.Cleanup(func() { _ = syscall.Unmount(d, syscall.MNT_DETACH) })
}

func (c *cluster) process(name string, env []string, path string, args ...string) *process {
	p := &process{name: name, log: filepath.Join(c.dir, name+".log")}
	p.make = func() *exec.Cmd {
		cmd := exec.Command("ip", append([]string{"netns", "exec", c.prefix + "-" + name, path}, args...)...) // ip becomes the program
		cmd.Env = append(os.Environ(), env...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		return cmd
	}
	c.t.Cleanup(func() {
		p.kill()
		if c.t.Failed() {
			b, _ := os.ReadFile(p.log)
			c.t.Logf("%s:\n%s", name, tail(b, 3000))
		}
	})
	return p
}

func (c *cluster) start(p *process) {
	c.t.Helper()
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(c.t, err)
	defer log.Close()
	p.cmd = p.make()
	p.cmd.Stdout, p.cmd.Stderr = log, log
	must(c.t, p.cmd.Start())
}

// kill ends a process at once, if it has not ended by itself.
func (p *process) kill() {
	if p.cmd != nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		p.cmd = nil
	}
}

func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// restart kills and starts.
func (c *cluster) restart(p *process) {
	p.kill()
	c.start(p)
}

// root speaks to a server over its socket.
func (c *cluster) root(p *process) *client.Client {
	cl, err := client.New(client.Config{Socket: filepath.Join(c.dir, p.name, "s")})
	must(c.t, err)
	c.t.Cleanup(cl.Close)
	return cl
}

// at speaks to servers with the test's token, as users do.
func (c *cluster) at(servers ...*process) *client.Client {
	var list []string
	for _, s := range servers {
		list = append(list, nodes[s.name])
	}
	cl, err := client.New(client.Config{Servers: list, Token: c.token, Patience: 500 * time.Millisecond, Timeout: 8 * time.Second})
	must(c.t, err)
	c.t.Cleanup(cl.Close)
	return cl
}

// answers waits until a server answers from the store.
func (c *cluster) answers(p *process) {
	c.t.Helper()
	root := c.root(p)
	defer root.Close()
	c.eventually(p.name+" answers", func() error {
		_, err := root.Tenants.ListTenants(c.t.Context(), connect.NewRequest(&weftv1.ListTenantsRequest{}))
		return err
	})
}

// healthy waits until every member takes writes.
func (c *cluster) healthy() {
	c.t.Helper()
	for _, m := range c.members {
		cli, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + nodes[m.name] + ":2379"}, DialTimeout: time.Second})
		must(c.t, err)
		c.eventually(m.name+" takes writes", func() error {
			ctx, cancel := context.WithTimeout(c.t.Context(), 2*time.Second)
			defer cancel()
			_, err := cli.Put(ctx, "/healthy", m.name)
			return err
		})
		cli.Close()
	}
}

// patience for a named condition.
const patience = 60 * time.Second

func (c *cluster) eventually(what string, cond func() error) {
	c.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		err := cond()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("not so after %s: %s: %v", patience, what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// weftBinary is $WEFT_BIN, or built here.
func weftBinary(t *testing.T) string {
	t.Helper()
	if bin := os.Getenv("WEFT_BIN"); bin != "" {
		return bin
	}
	bin := filepath.Join(t.TempDir(), "weft")
	if out, err := exec.Command("go", "build", "-o", bin, "../../cmd/weft").CombinedOutput(); err != nil {
		t.Fatal(errors.Join(err, errors.New(string(out))))
	}
	return bin
}

func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "wff-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func tail(b []byte, n int) []byte { return b[max(0, len(b)-n):] }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
