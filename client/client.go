package client

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"
	"time"

	"connectrpc.com/connect"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/api/gen/weft/v1/weftv1connect"
	"github.com/weftnet/weft/trust"
)

const (
	// DefaultPort is the TCP port of a server's API.
	DefaultPort = "7348"
	// DefaultSocket is the server's own socket, for root on its machine.
	DefaultSocket = "/run/weft/server.sock"
	// DefaultAgentSocket is the agent's socket, for root on its host.
	DefaultAgentSocket = "/run/weft/agent.sock"
	// DefaultPatience is how long a connection is tried, over all servers.
	DefaultPatience = 5 * time.Second

	// DefaultTimeout is how long one answer is waited for, when the caller's context has no deadline.
	DefaultTimeout = 30 * time.Second

	// chunkOctets of a backup in one message.
	chunkOctets = 64 << 10
)

// Config says which servers, and who is asking.
type Config struct {
	// Socket of the server, asked instead of Servers when it is set.
	Socket string
	// Servers, "host" or "host:port", tried in turn when a connection is made, and when one of them has become useless.
	Servers []string
	// Token is an API token. It pins the deployment's CA.
	Token string
	// CAFile holds the deployment's CA certificate; it goes before the token's pin.
	CAFile string
	// Patience is how long a connection is tried, over all servers; 0 is DefaultPatience.
	Patience time.Duration
	// Timeout is how long one answer is waited for when the context of a call has no deadline; 0 is DefaultTimeout.
	// WaitApplied adds its own, and Backup and Restore take as long as they take.
	Timeout time.Duration
	// Clock is time.Now unless set: what certificates are judged by.
	Clock func() time.Time
}

// Client speaks to every service of the public API. It is safe for concurrent use. Errors are *Error.
type Client struct {
	Tenants    weftv1connect.TenantServiceClient
	Networks   weftv1connect.NetworkServiceClient
	Ports      weftv1connect.PortServiceClient
	Hosts      weftv1connect.HostServiceClient
	VTEPs      weftv1connect.VTEPServiceClient
	VNIPools   weftv1connect.VNIPoolServiceClient
	GroupPools weftv1connect.GroupPoolServiceClient
	System     weftv1connect.SystemServiceClient

	transport *http.Transport
	dialer    *dialer
}

// New makes a client. It connects when it is first used, so only what is wrong in cfg is an error here.
func New(cfg Config) (*Client, error) {
	d, err := newDialer(cfg)
	if err != nil {
		return nil, err
	}
	transport := d.transport()
	h := &http.Client{Transport: tripper{transport, d}}
	opts := []connect.ClientOption{connect.WithInterceptors(&explainer{token: cfg.Token, dialer: d, timeout: cmp.Or(cfg.Timeout, DefaultTimeout)})}
	base := d.base()
	return &Client{
		Tenants:    weftv1connect.NewTenantServiceClient(h, base, opts...),
		Networks:   weftv1connect.NewNetworkServiceClient(h, base, opts...),
		Ports:      weftv1connect.NewPortServiceClient(h, base, opts...),
		Hosts:      weftv1connect.NewHostServiceClient(h, base, opts...),
		VTEPs:      weftv1connect.NewVTEPServiceClient(h, base, opts...),
		VNIPools:   weftv1connect.NewVNIPoolServiceClient(h, base, opts...),
		GroupPools: weftv1connect.NewGroupPoolServiceClient(h, base, opts...),
		System:     weftv1connect.NewSystemServiceClient(h, base, opts...),
		transport:  transport, dialer: d,
	}, nil
}

// Close drops idle connections.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

func newDialer(cfg Config) (*dialer, error) {
	if cfg.Patience == 0 {
		cfg.Patience = DefaultPatience
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	d := &dialer{patience: cfg.Patience, clock: cfg.Clock, what: "server"}
	if cfg.Socket != "" {
		d.socket = cfg.Socket
		return d, nil
	}
	if len(cfg.Servers) == 0 {
		return nil, &Error{Code: connect.CodeInvalidArgument, Field: "server", Reason: "there is no server to ask",
			Fix: "give --server HOST:PORT and a token, or --socket PATH on the server's machine"}
	}
	for _, s := range cfg.Servers {
		d.servers = append(d.servers, WithPort(s))
	}
	pin, err := pinOf(cfg)
	if err != nil {
		return nil, err
	}
	d.pin = pin
	return d, nil
}

func pinOf(cfg Config) (trust.Pin, error) {
	if cfg.CAFile != "" {
		pin, err := trust.PinFile(cfg.CAFile)
		if err != nil {
			return trust.Pin{}, &Error{Code: connect.CodeInvalidArgument, Field: "ca-file", Reason: err.Error(),
				Fix: "copy ca/ca.crt from the server's directory", err: err}
		}
		return pin, nil
	}
	if cfg.Token == "" {
		return trust.Pin{}, &Error{Code: connect.CodeUnauthenticated, Field: "token", Reason: "there is no API token",
			Fix: "make one on the server's machine with `weft token create NAME --scope admin`, and give it in WEFT_TOKEN or by `weft context set --token-file FILE`"}
	}
	token, err := trust.ParseToken(trust.APIToken, cfg.Token)
	if err != nil {
		return trust.Pin{}, Explain(connect.NewError(connect.CodeUnauthenticated, err))
	}
	return trust.PinFingerprint(token.CA), nil
}

// explainer shows the token, bounds each call, asks another server where that can do no harm, and turns every error into an *Error.
type explainer struct {
	token   string
	dialer  *dialer
	timeout time.Duration
}

func (e *explainer) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		e.show(req.Header())
		again := repeatable(req)
		limit := e.timeout
		if wait, ok := req.Any().(*weftv1.WaitAppliedRequest); ok {
			limit += wait.GetTimeout().AsDuration()
		}
		if _, bounded := ctx.Deadline(); !bounded {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, limit)
			defer cancel()
		}
		maybe := false // an earlier try may have done it, whatever a later one says
		for try := 1; ; try++ {
			generation, began := e.dialer.now(), time.Now()
			res, err := next(ctx, req)
			if err == nil {
				return res, nil
			}
			explained := e.explain(err, time.Since(began))
			maybe = maybe || explained.MaybeDone
			if explained.MaybeDone = maybe; !useless(err, explained) || !e.dialer.leave(generation) || ctx.Err() != nil || try >= len(e.dialer.servers) || explained.MaybeDone && !again {
				return nil, explained
			}
		}
	}
}

// useless reports an error after which another server is better asked: this one went away, says nothing, or has no store. Of servers that cannot
// be reached at all the dialer has tried every one.
func useless(err error, explained *Error) bool {
	var unreachable *Unreachable
	return !errors.As(err, &unreachable) && (explained.Code == connect.CodeUnavailable ||
		explained.Code == connect.CodeDeadlineExceeded && !connect.IsWireError(err)) // what it says of a deadline is about its own work
}

// requestHeader names a create, so that one that is repeated makes nothing twice.
const requestHeader = "Weft-Request"

// repeatable reports a request that may be sent again although it may have been done: one that reads, or a create, which is given a name of
// its own.
func repeatable(req connect.AnyRequest) bool {
	procedure := path.Base(req.Spec().Procedure)
	if strings.HasPrefix(procedure, "Create") {
		var id [16]byte
		_, _ = rand.Read(id[:]) // never fails
		req.Header().Set(requestHeader, hex.EncodeToString(id[:]))
		return true
	}
	return strings.HasPrefix(procedure, "Get") || strings.HasPrefix(procedure, "List") || procedure == "WaitApplied"
}

// explain says what an error of a call means that took so long.
func (e *explainer) explain(err error, took time.Duration) *Error {
	explained := Explain(err)
	var unreachable *Unreachable
	// What the other side says of a deadline is about its own work, and stays.
	if explained.Code == connect.CodeDeadlineExceeded && !connect.IsWireError(err) && !errors.As(err, &unreachable) {
		explained.Field, explained.Reason = e.dialer.what, fmt.Sprintf("the %s took the request and gave no answer in %s", e.dialer.what, tenths(took))
		explained.Fix, explained.MaybeDone = "look whether it was done before asking again", true
	}
	return explained
}

func (e *explainer) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		conn := next(ctx, spec)
		e.show(conn.RequestHeader())
		return conn
	}
}

func (e *explainer) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

func (e *explainer) show(h http.Header) {
	if e.token != "" {
		h.Set("Authorization", "Bearer "+e.token)
	}
}

// Backup writes the whole store to w and returns its size in octets. What an error leaves in w is no backup.
func (c *Client) Backup(ctx context.Context, w io.Writer) (int64, error) {
	stream, err := c.System.Backup(ctx, connect.NewRequest(&weftv1.BackupRequest{}))
	if err != nil {
		return 0, Explain(err)
	}
	defer stream.Close()
	var n int64
	for stream.Receive() {
		chunk := stream.Msg().GetChunk()
		if _, err := w.Write(chunk); err != nil {
			return n, fmt.Errorf("write the backup: %w", err)
		}
		n += int64(len(chunk))
	}
	if err := stream.Err(); err != nil {
		return n, Explain(err)
	}
	return n, nil
}

// Restore replaces everything in the store by a backup that is read to its end.
func (c *Client) Restore(ctx context.Context, backup io.Reader) (*weftv1.RestoreResponse, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // a backup that cannot be read to its end must not look like one that ended
	stream := c.System.Restore(ctx)
	buf := make([]byte, chunkOctets)
	for {
		n, err := backup.Read(buf)
		if n > 0 {
			if serr := stream.Send(&weftv1.RestoreRequest{Chunk: buf[:n]}); serr != nil {
				break // the answer says why
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read the backup: %w", err)
		}
	}
	res, err := stream.CloseAndReceive()
	if err != nil {
		return nil, Explain(err)
	}
	return res.Msg, nil
}
