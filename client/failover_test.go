package client_test

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/api/gen/weft/v1/weftv1connect"
	"github.com/weftnet/weft/client"
	"github.com/weftnet/weft/trust"
)

// deed is what a server of a test did, by procedure and request name.
type deed struct{ server, what, request string }

// useless is a server that fails in one way; "" is one that works.
type useless struct {
	weftv1connect.UnimplementedSystemServiceHandler
	name, how string
	mu        *sync.Mutex
	deeds     *[]deed
}

func (u *useless) do(what string, h http.Header) error {
	u.mu.Lock()
	*u.deeds = append(*u.deeds, deed{u.name, what, h.Get("Weft-Request")})
	u.mu.Unlock()
	err := connect.NewError(connect.CodeUnavailable, errors.New("the store does not answer"))
	switch u.how {
	case "nothing done":
		return err
	case "maybe done":
		d, derr := connect.NewErrorDetail(&weftv1.ErrorDetail{Reason: "the store does not answer", MaybeDone: true})
		if derr != nil {
			panic(derr)
		}
		err.AddDetail(d)
		return err
	case "breaks off":
		panic(http.ErrAbortHandler)
	}
	return nil
}

func (u *useless) GetVersion(_ context.Context, r *connect.Request[weftv1.GetVersionRequest]) (*connect.Response[weftv1.GetVersionResponse], error) {
	if err := u.do("read", r.Header()); err != nil {
		return nil, err
	}
	return connect.NewResponse(&weftv1.GetVersionResponse{Version: u.name}), nil
}

func (u *useless) DeleteAPIToken(_ context.Context, r *connect.Request[weftv1.DeleteAPITokenRequest]) (*connect.Response[weftv1.DeleteAPITokenResponse], error) {
	if err := u.do("delete", r.Header()); err != nil {
		return nil, err
	}
	return connect.NewResponse(&weftv1.DeleteAPITokenResponse{}), nil
}

func (u *useless) CreateAPIToken(_ context.Context, r *connect.Request[weftv1.CreateAPITokenRequest]) (*connect.Response[weftv1.CreateAPITokenResponse], error) {
	if err := u.do("create", r.Header()); err != nil {
		return nil, err
	}
	return connect.NewResponse(&weftv1.CreateAPITokenResponse{Secret: u.name}), nil
}

// pair is a client of a server that fails and one that works, and what they did.
func pair(t *testing.T, how string) (*client.Client, func() []deed) {
	t.Helper()
	d := newDeployment(t)
	var mu sync.Mutex
	var deeds []deed
	var addresses []string
	for _, u := range []*useless{{name: "a", how: how}, {name: "b"}} {
		u.mu, u.deeds = &mu, &deeds
		addresses = append(addresses, d.serveHandler(t, u))
	}
	return newClient(t, client.Config{Servers: addresses, Token: d.token}), func() []deed {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(deeds)
	}
}

func (d *deployment) serveHandler(t *testing.T, u *useless) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(weftv1connect.NewSystemServiceHandler(u))
	return d.serveMux(t, mux)
}

func (d *deployment) serveMux(t *testing.T, mux *http.ServeMux) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: mux, TLSConfig: trust.ServerTLS(d.ca, nil, time.Now), ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.ServeTLS(l, "", "") }()
	t.Cleanup(func() { srv.Close(); <-done })
	return l.Addr().String()
}

// TestOtherServerIsAsked goes red when a request is repeated that may have been done and is no read and no create, when one is not repeated
// though nothing was done, and when the useless server is asked once more.
func TestOtherServerIsAsked(t *testing.T) {
	for how, deleted := range map[string]bool{"nothing done": true, "maybe done": false, "breaks off": false} {
		t.Run(how, func(t *testing.T) {
			c, deeds := pair(t, how)
			_, err := c.System.DeleteAPIToken(t.Context(), connect.NewRequest(&weftv1.DeleteAPITokenRequest{}))
			want := []deed{{"a", "delete", ""}}
			var e *client.Error
			if deleted {
				want = append(want, deed{"b", "delete", ""})
			} else if !errors.As(err, &e) || !e.MaybeDone || e.Code != connect.CodeUnavailable {
				t.Errorf("the user is not told that it may be done: %v", err)
			}
			if (err == nil) != deleted {
				t.Errorf("delete: %v", err)
			}
			if v, err := version(t, c); err != nil || v != "b" {
				t.Errorf("after that: %q, %v", v, err)
			}
			if want = append(want, deed{"b", "read", ""}); !slices.Equal(deeds(), want) {
				t.Errorf("done: %v, want %v", deeds(), want)
			}
		})
	}
}

// TestReadsAndCreatesAreRepeated goes red when a create is repeated under another name: it would be made twice.
func TestReadsAndCreatesAreRepeated(t *testing.T) {
	for _, how := range []string{"nothing done", "maybe done", "breaks off"} {
		reader, _ := pair(t, how)
		if v, err := version(t, reader); err != nil || v != "b" {
			t.Errorf("%s: read: %q, %v", how, v, err)
		}
		c, deeds := pair(t, how)
		res, err := c.System.CreateAPIToken(t.Context(), connect.NewRequest(&weftv1.CreateAPITokenRequest{}))
		if err != nil || res.Msg.GetSecret() != "b" {
			t.Errorf("%s: create: %v", how, err)
		}
		done := deeds()
		if len(done) != 2 || done[0].request != done[1].request || len(done[0].request) != 32 {
			t.Errorf("%s: %v, want one create of one name at both", how, done)
		}
	}
}

// TestOnlyUselessServers ends. Goes red when a request goes round for ever.
func TestOnlyUselessServers(t *testing.T) {
	d := newDeployment(t)
	var mu sync.Mutex
	var deeds []deed
	a, b := &useless{name: "a", how: "nothing done", mu: &mu, deeds: &deeds}, &useless{name: "b", how: "nothing done", mu: &mu, deeds: &deeds}
	c := newClient(t, client.Config{Servers: []string{d.serveHandler(t, a), d.serveHandler(t, b)}, Token: d.token})
	_, err := version(t, c)
	if err == nil || !strings.Contains(err.Error(), "the store does not answer") || len(deeds) != 2 {
		t.Errorf("%v after %v", err, deeds)
	}
}

// TestEarlierTryMayHaveDoneIt: what a later server says of its own try is not the whole. Goes red when the last try's error alone decides.
func TestEarlierTryMayHaveDoneIt(t *testing.T) {
	d := newDeployment(t)
	var mu sync.Mutex
	var deeds []deed
	a, b := &useless{name: "a", how: "breaks off", mu: &mu, deeds: &deeds}, &useless{name: "b", how: "nothing done", mu: &mu, deeds: &deeds}
	c := newClient(t, client.Config{Servers: []string{d.serveHandler(t, a), d.serveHandler(t, b)}, Token: d.token})
	_, err := c.System.CreateAPIToken(t.Context(), connect.NewRequest(&weftv1.CreateAPITokenRequest{}))
	var e *client.Error
	if !errors.As(err, &e) || !e.MaybeDone || len(deeds) != 2 {
		t.Errorf("%v after %v", err, deeds)
	}
}

// TestSilentServerDoesNotUseUpPatience: one that takes connections and says nothing, as one that is cut off does, costs less than the patience
// with all. Goes red when servers are tried one after the other only.
func TestSilentServerDoesNotUseUpPatience(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	d := newDeployment(t)
	second := d.serve(t, &system{name: "second"})
	for try := 1; ; try++ { // the patience is less than the silent one alone would take, and a machine may stand still for that long
		c := newClient(t, client.Config{Servers: []string{silent.Addr().String(), second}, Token: d.token, Patience: 2500 * time.Millisecond})
		v, err := version(t, c)
		if err == nil && v == "second" {
			return
		}
		if try == 3 {
			t.Fatalf("%q %v", v, err)
		}
	}
}

// TestEveryProcedureIsReadOrWrite goes red when a new procedure's name does not say whether it may be repeated: decide it, and write it here if
// it may not.
func TestEveryProcedureIsReadOrWrite(t *testing.T) {
	services := weftv1.File_weft_v1_services_proto.Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			name := string(methods.Get(j).Name())
			verb := strings.IndexFunc(name[1:], func(r rune) bool { return r >= 'A' && r <= 'Z' })
			if !slices.Contains([]string{"Get", "List", "Create", "Wait", "Watch", // repeated
				"Update", "Delete", "Add", "Remove", "Bind", "Unbind", "Move", "Prepare", "Commit", "Abort", "Drain", "Fail", "Return", "Backup", "Restore"},
				name[:verb+1]) && name != "Backup" && name != "Restore" {
				t.Errorf("%s: may it be repeated?", name)
			}
		}
	}
}
