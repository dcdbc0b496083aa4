package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/weftnet/weft/api/gen/weft/v1/weftv1connect"
	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/store"
	"github.com/weftnet/weft/trust"
)

// guard is the one interceptor: it finds out who calls, lets trust decide, and turns whatever comes back into the API's
// errors. Everything below it is authorised.
type guard struct{ api *api }

type (
	connectionKey struct{}
	identityKey   struct{}
	requestKey    struct{}
)

// connection is what the transport knows of a caller.
type connection struct {
	// local is set on the unix socket, and uid is then who is at the other end.
	local bool
	uid   uint32
	// tls is set on the TLS listener.
	tls *tls.ConnectionState
	// control of the exchange under way, to end it from outside.
	control *http.ResponseController
}

// identityOf is the caller, as guard found it.
func identityOf(ctx context.Context) trust.Identity {
	id, _ := ctx.Value(identityKey{}).(trust.Identity)
	return id
}

func connectionOf(ctx context.Context) connection {
	c, _ := ctx.Value(connectionKey{}).(connection)
	return c
}

// peerLeaf is the certificate that the peer proved to hold, or nil.
func peerLeaf(state *tls.ConnectionState) *x509.Certificate {
	if state == nil || len(state.VerifiedChains) == 0 {
		return nil
	}
	return state.VerifiedChains[0][0]
}

// localCaller notes who opened a connection of the unix socket; it is an http.Server's ConnContext.
func localCaller(ctx context.Context, c net.Conn) context.Context {
	who := connection{local: true, uid: nobody}
	if uc, ok := c.(*net.UnixConn); ok {
		if uid, err := peerUID(uc); err == nil {
			who.uid = uid
		}
	}
	return context.WithValue(ctx, connectionKey{}, who)
}

// nobody is the uid that no process has.
const nobody = ^uint32(0)

// peerUID asks the kernel who opened the socket (unix(7), SO_PEERCRED).
func peerUID(c *net.UnixConn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nobody, err
	}
	var cred *unix.Ucred
	var serr error
	if err := raw.Control(func(fd uintptr) {
		cred, serr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nobody, err
	}
	if serr != nil {
		return nobody, serr
	}
	return cred.Uid, nil
}

// withConnection hands each request what the transport knows.
func (g *guard) withConnection(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := connectionOf(r.Context())
		c.tls, c.control = r.TLS, http.NewResponseController(w)
		if leaf := peerLeaf(c.tls); leaf != nil && !g.api.now().Before(leaf.NotAfter.Add(-trust.Skew)) {
			// The host has had a new certificate for long: let it come back with that one (HTTP/2: GOAWAY).
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), connectionKey{}, c)))
	})
}

// WrapUnary implements connect.Interceptor.
func (g *guard) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		procedure := req.Spec().Procedure
		ctx, err := g.admit(ctx, req.Header(), procedure, req.Any())
		if err != nil {
			return nil, toConnect(err)
		}
		limit := g.api.cfg.Limits.Unary
		switch procedure {
		case weftv1connect.SystemServiceWaitAppliedProcedure:
			limit += g.api.cfg.Limits.Wait
		case weftv1connect.PortServiceMovePortProcedure:
			limit += g.api.cfg.Limits.Prepare
		}
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		res, err := next(ctx, req)
		if err != nil {
			return nil, toConnect(err)
		}
		return res, nil
	}
}

// WrapStreamingClient implements connect.Interceptor; a server has no clients.
func (g *guard) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler implements connect.Interceptor. A stream about one tenant names it in its first message, so that who may is decided when
// the handler receives that.
func (g *guard) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		procedure := conn.Spec().Procedure
		if procedure == weftv1connect.PortServiceWatchMoveProcedure {
			return toConnect(next(ctx, &admitted{conn, func(message any) error {
				_, err := g.admit(ctx, conn.RequestHeader(), procedure, message)
				return toConnect(err)
			}}))
		}
		ctx, err := g.admit(ctx, conn.RequestHeader(), procedure, nil)
		if err != nil {
			return toConnect(err)
		}
		return toConnect(next(ctx, conn))
	}
}

// admitted is a stream whose messages are let in one by one.
type admitted struct {
	connect.StreamingHandlerConn
	admit func(message any) error
}

// Receive implements connect.StreamingHandlerConn.
func (c *admitted) Receive(message any) error {
	if err := c.StreamingHandlerConn.Receive(message); err != nil {
		return err
	}
	return c.admit(message)
}

// admit finds out who calls and asks trust. The context it returns carries the identity, for handlers and the audit.
func (g *guard) admit(ctx context.Context, header http.Header, procedure string, message any) (context.Context, error) {
	if err := g.api.view.ready(); err != nil && !worksUnready(procedure) {
		return ctx, &unreadyError{err}
	}
	if !answersOld(procedure) {
		if err := g.api.fresh(ctx); err != nil {
			return ctx, err
		}
	}
	ctx = context.WithValue(ctx, requestKey{}, header.Get(requestHeader))
	id, err := g.identify(ctx, header)
	if err != nil {
		return ctx, err
	}
	tenant := ""
	if m, ok := message.(proto.Message); ok {
		tenant = trust.TenantOf(procedure, m)
		if tenant == "" && isList(procedure) {
			// Whoever may see one tenant only means that one.
			tenant = id.Tenant
		}
	}
	if err := trust.Authorize(id, procedure, tenant); err != nil {
		return ctx, err
	}
	ctx = context.WithValue(ctx, identityKey{}, id)
	return store.WithActor(ctx, id.String()), nil
}

// worksUnready reports whether a procedure works while there is no world: what is needed to get one.
func worksUnready(procedure string) bool {
	return procedure == weftv1connect.SystemServiceRestoreProcedure || procedure == weftv1connect.SystemServiceGetVersionProcedure
}

// isList reports whether a procedure lists: without a tenant it then shows what the caller may see.
func isList(procedure string) bool {
	return strings.HasPrefix(procedure[strings.LastIndexByte(procedure, '/')+1:], "List")
}

// identify is who calls: root by the unix socket, a bearer by its token, a host by its certificate, or nobody.
func (g *guard) identify(ctx context.Context, header http.Header) (trust.Identity, error) {
	c := connectionOf(ctx)
	if c.local {
		if c.uid != 0 {
			return trust.Identity{}, model.Errorf(model.Denied, "", "run the command as root, or use an API token over TLS",
				"the server's socket is for root, and the caller has uid %d", int32(c.uid))
		}
		return trust.Identity{Kind: trust.Root, Name: "root"}, nil
	}
	if auth := header.Get("Authorization"); auth != "" {
		return g.bearer(auth)
	}
	if uid, ok := trust.PeerHost(c.tls); ok {
		return g.peerHost(ctx, c, uid)
	}
	if id, ok := trust.PeerServer(c.tls); ok {
		return trust.Identity{Kind: trust.Server, Name: id}, nil
	}
	return trust.Identity{}, nil
}

func (g *guard) bearer(auth string) (trust.Identity, error) {
	scheme, text, _ := strings.Cut(auth, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return trust.Identity{}, model.Errorf(model.Unauthenticated, "token", "send `Authorization: Bearer weft-api....`",
			"the Authorization header is not a bearer token")
	}
	token, err := trust.ParseToken(trust.APIToken, text)
	if err != nil {
		return trust.Identity{}, err
	}
	record := g.api.view.tokenByID(token.ID)
	if err := token.CheckAPI(record, g.api.now()); err != nil {
		return trust.Identity{}, err
	}
	return trust.Identity{Kind: trust.Bearer, Name: record.Name, Scope: record.Scope, Tenant: record.Tenant}, nil
}

// peerHost is the host whose certificate was shown, if it was not removed and the certificate is still good: a
// connection may outlive it.
func (g *guard) peerHost(ctx context.Context, c connection, uid model.UID) (trust.Identity, error) {
	if leaf := peerLeaf(c.tls); leaf != nil && g.api.now().After(leaf.NotAfter) {
		return trust.Identity{}, model.Errorf(model.Unauthenticated, "certificate", "connect again with the renewed certificate",
			"the certificate of this connection expired at %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	h := find(ctx, g.api, func(w *model.World) *model.Host { return w.Hosts[uid] })
	if h == nil {
		return trust.Identity{}, errHostRemoved
	}
	return trust.Identity{Kind: trust.Host, Name: h.Name, Host: uid}, nil
}

// errHostRemoved is what the agent of a removed host gets for everything.
var errHostRemoved = model.Errorf(model.Unauthenticated, "certificate",
	"join again with a token from `weft host token create NAME`", "this host was removed from the deployment, and its certificate with it")

// errStopping ends streams and waits when the server stops: another server, or this one later, answers.
var errStopping = connect.NewError(connect.CodeUnavailable, errors.New("the server is stopping"))
