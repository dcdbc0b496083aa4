package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"connectrpc.com/connect"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
	"github.com/weftnet/weft/api/gen/local/v1/localv1connect"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/api/gen/weft/v1/weftv1connect"
	"github.com/weftnet/weft/client"
	"github.com/weftnet/weft/trust"
)

// system answers a few procedures and remembers what it was shown.
type system struct {
	weftv1connect.UnimplementedSystemServiceHandler
	name     string
	auth     chan string
	restored []byte
	ended    chan error
}

func (s *system) GetVersion(_ context.Context, req *connect.Request[weftv1.GetVersionRequest]) (*connect.Response[weftv1.GetVersionResponse], error) {
	if s.auth != nil {
		s.auth <- req.Header().Get("Authorization")
	}
	return connect.NewResponse(&weftv1.GetVersionResponse{Version: s.name}), nil
}

func (s *system) DeleteAPIToken(context.Context, *connect.Request[weftv1.DeleteAPITokenRequest]) (*connect.Response[weftv1.DeleteAPITokenResponse], error) {
	err := connect.NewError(connect.CodeInvalidArgument, errors.New("several"))
	for _, r := range []*weftv1.ErrorDetail{{Field: "name", Reason: "it is empty", Fix: "give one"}, {Field: "tenant", Reason: "it is too long"}} {
		d, _ := connect.NewErrorDetail(r)
		err.AddDetail(d)
	}
	return nil, err
}

func (s *system) Backup(_ context.Context, _ *connect.Request[weftv1.BackupRequest], stream *connect.ServerStream[weftv1.BackupResponse]) error {
	for _, c := range []string{"one ", "two"} {
		if err := stream.Send(&weftv1.BackupResponse{Chunk: []byte(c)}); err != nil {
			return err
		}
	}
	if s.name == "failing" {
		d, _ := connect.NewErrorDetail(&weftv1.ErrorDetail{Reason: "the store went away", Fix: "try again"})
		err := connect.NewError(connect.CodeUnavailable, errors.New("gone"))
		err.AddDetail(d)
		return err
	}
	return nil
}

func (s *system) Restore(_ context.Context, stream *connect.ClientStream[weftv1.RestoreRequest]) (*connect.Response[weftv1.RestoreResponse], error) {
	for stream.Receive() {
		s.restored = append(s.restored, stream.Msg().GetChunk()...)
	}
	s.ended <- stream.Err()
	if err := stream.Err(); err != nil {
		return nil, err
	}
	return connect.NewResponse(&weftv1.RestoreResponse{Objects: 7}), nil
}

func handler(s *system) http.Handler {
	mux := http.NewServeMux()
	mux.Handle(weftv1connect.NewSystemServiceHandler(s))
	return mux
}

// deployment is a CA, an API token, and servers of it.
type deployment struct {
	ca    *trust.CA
	token string
}

func newDeployment(t *testing.T) *deployment {
	t.Helper()
	ca, err := trust.OpenCA(filepath.Join(t.TempDir(), "ca"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	token, err := trust.NewToken(trust.APIToken, ca.Fingerprint())
	if err != nil {
		t.Fatal(err)
	}
	return &deployment{ca: ca, token: token.String()}
}

// serve starts a TLS server and returns its address.
func (d *deployment) serve(t *testing.T, s *system) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: handler(s), TLSConfig: trust.ServerTLS(d.ca, nil, time.Now), ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.ServeTLS(l, "", "") }()
	t.Cleanup(func() { srv.Close(); <-done })
	return l.Addr().String()
}

func serveSocket(t *testing.T, h http.Handler) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); <-done })
	return path
}

// closedAddr refuses connections.
func closedAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func newClient(t *testing.T, cfg client.Config) *client.Client {
	t.Helper()
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func version(t *testing.T, c *client.Client) (string, error) {
	t.Helper()
	res, err := c.System.GetVersion(t.Context(), connect.NewRequest(&weftv1.GetVersionRequest{}))
	if err != nil {
		return "", err
	}
	return res.Msg.GetVersion(), nil
}

func TestTokenIsShownToThePinnedServer(t *testing.T) {
	d := newDeployment(t)
	s := &system{name: "s1", auth: make(chan string, 1)}
	c := newClient(t, client.Config{Servers: []string{d.serve(t, s)}, Token: d.token})
	if v, err := version(t, c); err != nil || v != "s1" {
		t.Fatalf("%q %v", v, err)
	}
	if got := <-s.auth; got != "Bearer "+d.token {
		t.Errorf("authorization %q", got)
	}
}

// The token must never reach a server of another deployment: the pin is checked before anything is sent.
func TestTokenIsNotShownToAnother(t *testing.T) {
	ours, theirs := newDeployment(t), newDeployment(t)
	s := &system{name: "rogue", auth: make(chan string, 1)}
	addr := theirs.serve(t, s)
	for name, cfg := range map[string]client.Config{
		"pin of the token": {Servers: []string{addr}, Token: ours.token},
		"pin of a CA file": {Servers: []string{addr}, Token: theirs.token, CAFile: caFile(t, ours.ca)},
	} {
		_, err := version(t, newClient(t, cfg))
		var e *client.Error
		if !errors.As(err, &e) || !strings.Contains(e.Reason, addr) || !strings.Contains(e.Fix, "this deployment") {
			t.Errorf("%s: %v", name, err)
		}
	}
	select {
	case got := <-s.auth:
		t.Errorf("the rogue was shown %q", got)
	default:
	}
}

func caFile(t *testing.T, ca *trust.CA) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(path, ca.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestServersAreTriedInTurn(t *testing.T) {
	d := newDeployment(t)
	dead, alive := closedAddr(t), d.serve(t, &system{name: "second"})
	c := newClient(t, client.Config{Servers: []string{dead, alive}, Token: d.token})
	if v, err := version(t, c); err != nil || v != "second" {
		t.Fatalf("%q %v", v, err)
	}
}

func TestNobodyAnswers(t *testing.T) {
	d := newDeployment(t)
	a, b := closedAddr(t), closedAddr(t)
	c := newClient(t, client.Config{Servers: []string{a, b}, Token: d.token, Patience: 300 * time.Millisecond})
	_, err := version(t, c)
	var e *client.Error
	if !errors.As(err, &e) || e.Code != connect.CodeUnavailable {
		t.Fatalf("error %v", err)
	}
	for _, want := range []string{a, b, "connection refused", "300ms"} {
		if !strings.Contains(e.Reason, want) {
			t.Errorf("%q does not say %q", e.Reason, want)
		}
	}
	if !strings.Contains(e.Fix, "--server") {
		t.Errorf("fix %q", e.Fix)
	}
	var un *client.Unreachable
	if !errors.As(err, &un) || len(un.Tried) != 2 {
		t.Errorf("%v", un)
	}
}

func TestServerThatComesBackIsWaitedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close() // the socket of a server that was killed: connection refused
	c := newClient(t, client.Config{Socket: path, Patience: 20 * time.Second})
	answered := make(chan error, 1)
	go func() {
		_, err := c.System.GetVersion(context.Background(), connect.NewRequest(&weftv1.GetVersionRequest{}))
		answered <- err
	}()
	srv := &http.Server{Handler: handler(&system{})}
	if err := os.Remove(path + ".new"); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	l, err = net.Listen("unix", path+".new")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	defer func() { srv.Close(); <-done }()
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
}

func TestSocket(t *testing.T) {
	s := &system{name: "local", auth: make(chan string, 1)}
	c := newClient(t, client.Config{Socket: serveSocket(t, handler(s)), Servers: []string{"unused"}})
	if v, err := version(t, c); err != nil || v != "local" {
		t.Fatalf("%q %v", v, err)
	}
	if got := <-s.auth; got != "" {
		t.Errorf("authorization %q", got)
	}
}

func TestMissingSocketIsSaidAtOnce(t *testing.T) {
	began := time.Now()
	_, err := version(t, newClient(t, client.Config{Socket: "/nonexistent/s.sock", Patience: time.Hour}))
	if err == nil || !strings.Contains(err.Error(), "/nonexistent/s.sock: there is no such socket") {
		t.Fatalf("error %v after %s", err, time.Since(began))
	}
}

func TestConfigRefusals(t *testing.T) {
	d := newDeployment(t)
	join, _ := trust.NewToken(trust.JoinToken, d.ca.Fingerprint())
	for name, c := range map[string]struct {
		cfg  client.Config
		want string
	}{
		"no server":    {client.Config{}, "there is no server"},
		"no token":     {client.Config{Servers: []string{"h"}}, "there is no API token"},
		"bad token":    {client.Config{Servers: []string{"h"}, Token: "x"}, "token: "},
		"join token":   {client.Config{Servers: []string{"h"}, Token: join.String()}, "it is a join token"},
		"no such file": {client.Config{Servers: []string{"h"}, Token: d.token, CAFile: "/nonexistent"}, "ca-file: "},
	} {
		_, err := client.New(c.cfg)
		var e *client.Error
		if !errors.As(err, &e) || e.Fix == "" || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestErrorDetails(t *testing.T) {
	c := newClient(t, client.Config{Socket: serveSocket(t, handler(&system{}))})
	_, err := c.System.DeleteAPIToken(t.Context(), connect.NewRequest(&weftv1.DeleteAPITokenRequest{}))
	var e *client.Error
	if !errors.As(err, &e) {
		t.Fatalf("%T", err)
	}
	if e.Code != connect.CodeInvalidArgument || e.Field != "name" || e.Reason != "it is empty" || e.Fix != "give one" ||
		len(e.Also) != 1 || e.Also[0].Field != "tenant" {
		t.Errorf("%+v", e)
	}
	_, err = c.System.GetStatus(t.Context(), connect.NewRequest(&weftv1.GetStatusRequest{}))
	if !errors.As(err, &e) || e.Code != connect.CodeUnimplemented || e.Reason == "" {
		t.Errorf("an error without details: %v", err)
	}
}

func TestBackupAndRestore(t *testing.T) {
	d := newDeployment(t)
	for name, cfg := range map[string]func(*system) client.Config{
		"TLS":    func(s *system) client.Config { return client.Config{Servers: []string{d.serve(t, s)}, Token: d.token} },
		"socket": func(s *system) client.Config { return client.Config{Socket: serveSocket(t, handler(s))} },
	} {
		t.Run(name, func(t *testing.T) {
			s := &system{ended: make(chan error, 1)}
			c := newClient(t, cfg(s))
			var b bytes.Buffer
			if n, err := c.Backup(t.Context(), &b); err != nil || n != 7 || b.String() != "one two" {
				t.Fatalf("backup: %d %v %q", n, err, b.String())
			}
			big := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
			res, err := c.Restore(t.Context(), bytes.NewReader(big))
			if err != nil || res.GetObjects() != 7 || !bytes.Equal(s.restored, big) || <-s.ended != nil {
				t.Fatalf("restore: %v %v, %d octets", res, err, len(s.restored))
			}
			torn := io.MultiReader(strings.NewReader("half"), iotest.ErrReader(errors.New("disk")))
			if _, err := c.Restore(t.Context(), torn); err == nil || !strings.Contains(err.Error(), "disk") {
				t.Fatalf("torn backup: %v", err)
			}
			if err := <-s.ended; err == nil {
				t.Error("the server took a torn backup for a whole one")
			}
		})
	}
	c := newClient(t, client.Config{Socket: serveSocket(t, handler(&system{name: "failing"}))})
	var e *client.Error
	if _, err := c.Backup(t.Context(), io.Discard); !errors.As(err, &e) || e.Reason != "the store went away" {
		t.Errorf("failed backup: %v", err)
	}
}

type local struct {
	localv1connect.UnimplementedLocalServiceHandler
}

func (local) GetStatus(context.Context, *connect.Request[localv1.GetStatusRequest]) (*connect.Response[localv1.GetStatusResponse], error) {
	return connect.NewResponse(&localv1.GetStatusResponse{Host: "h1"}), nil
}

func (local) Detach(context.Context, *connect.Request[localv1.DetachRequest]) (*connect.Response[localv1.DetachResponse], error) {
	return nil, connect.NewError(connect.CodeDeadlineExceeded, errors.New("port acme/web1: the plan did not come within 5s; see `weft status`, and try again"))
}

func TestLocal(t *testing.T) {
	mux := http.NewServeMux()
	mux.Handle(localv1connect.NewLocalServiceHandler(local{}))
	c := client.Local(serveSocket(t, mux))
	defer c.Close()
	res, err := c.GetStatus(t.Context(), connect.NewRequest(&localv1.GetStatusRequest{}))
	if err != nil || res.Msg.GetHost() != "h1" {
		t.Fatalf("%v %v", res, err)
	}
	_, err = c.Detach(t.Context(), connect.NewRequest(&localv1.DetachRequest{}))
	var e *client.Error
	if !errors.As(err, &e) || e.Reason != "port acme/web1: the plan did not come within 5s" || e.Fix != "see `weft status`, and try again" {
		t.Errorf("the agent's own words: %v", err)
	}
	gone := client.Local("/nonexistent/agent.sock")
	_, err = gone.GetStatus(t.Context(), connect.NewRequest(&localv1.GetStatusRequest{}))
	if err == nil || !strings.Contains(err.Error(), "no agent answered") || !strings.Contains(err.Error(), "weft agent") {
		t.Errorf("no agent: %v", err)
	}
}

// A server that takes requests and is stuck.
type stuck struct {
	weftv1connect.UnimplementedSystemServiceHandler
	over chan struct{}
}

func (s stuck) GetVersion(ctx context.Context, _ *connect.Request[weftv1.GetVersionRequest]) (*connect.Response[weftv1.GetVersionResponse], error) {
	<-s.over
	return nil, ctx.Err()
}

func TestStuckServer(t *testing.T) {
	s := stuck{over: make(chan struct{})}
	mux := http.NewServeMux()
	mux.Handle(weftv1connect.NewSystemServiceHandler(s))
	c := newClient(t, client.Config{Socket: serveSocket(t, mux), Timeout: 200 * time.Millisecond})
	defer close(s.over)
	_, err := version(t, c)
	var e *client.Error
	if !errors.As(err, &e) || e.Code != connect.CodeDeadlineExceeded || e.Field != "server" || !strings.Contains(e.Reason, "gave no answer in 200ms") {
		t.Fatalf("error %v", err)
	}
}

// TestUnreachableKeepsWhatWasSaid: beside a server that says nothing, one that refuses is reported as that, though patience ended in a
// later round before it was asked again. Goes red when the last round's deadline takes the place of its answer.
func TestUnreachableKeepsWhatWasSaid(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	c, err := client.New(client.Config{Servers: []string{silent.Addr().String(), closed.Addr().String()}, Patience: 3400 * time.Millisecond,
		Token: "weft-api.0123456789abcdef." + strings.Repeat("0a", 32) + "." + strings.Repeat("0b", 32)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Tenants.ListTenants(t.Context(), connect.NewRequest(&weftv1.ListTenantsRequest{}))
	if err == nil || !strings.Contains(err.Error(), closed.Addr().String()+": connection refused") || !strings.Contains(err.Error(), silent.Addr().String()+": no answer") {
		t.Errorf("got %v, want no answer of the one and a refused connection of the other", err)
	}
}

// TestBrokenConnection turns red when brokeOff no longer looks for a reset: the user then reads a socket's path and "read: ...".
func TestBrokenConnection(t *testing.T) {
	for _, cause := range []error{
		io.EOF, io.ErrUnexpectedEOF, &net.OpError{Op: "read", Net: "unix", Err: os.NewSyscallError("read", syscall.ECONNRESET)},
	} {
		for _, code := range []connect.Code{connect.CodeUnavailable, connect.CodeUnknown, connect.CodeInternal} {
			e := client.Explain(connect.NewError(code, fmt.Errorf("Post %q: %w", "http://weft/local.v1.LocalService/Detach", cause)))
			if e.Code != connect.CodeUnavailable || e.Reason != "the connection broke off before the answer" || e.Fix == "" {
				t.Errorf("%v with %v: %v %q, fix %q", code, cause, e.Code, e.Reason, e.Fix)
			}
		}
	}
}
