package server

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"time"

	"github.com/weftnet/weft/distribute"
	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/store"
	"github.com/weftnet/weft/trust"
)

const (
	// catchUp bounds how long a handler waits for its own write to come back through the watch. The write stands
	// whether it does or not.
	catchUp = 5 * time.Second
	// lookAgain bounds how long a handler waits for other servers' writes before it says that something does not exist.
	lookAgain = 500 * time.Millisecond
	// tries bounds the attempts of a compare-and-swap that other writers keep winning.
	tries = 32
)

// api answers every service. Its methods stand in one file a noun.
type api struct {
	cfg Config
	// id of this life of the server, among the others.
	id    string
	log   *slog.Logger
	store *store.Store
	ca    *trust.CA
	view  *view
	heard *realisation
	dist  *distribute.Distributor
	// claims are what this server's own requests under way are about to take.
	claims  *claims
	started time.Time
	// fresher finds out what the newest is; hangs (of size 1) tells the loop that the watch does not bring it.
	fresher *fresher
	hangs   chan struct{}
	// stopping ends streams and waits when the server stops, before its requests.
	stopping context.Context
}

func (a *api) now() time.Time { return a.cfg.Clock() }

// requestHeader names a request, so that a repetition of it is known as one (services.proto).
const requestHeader = "Weft-Request"

// metaOf is newMeta for what a request of that name makes: another try of the same request, here or at another server, makes the same
// identity. Nobody can aim at another's: the caller's own is part of it.
func (a *api) metaOf(ctx context.Context) (model.Meta, error) {
	name, _ := ctx.Value(requestKey{}).(string)
	if name == "" {
		return a.newMeta()
	}
	if b, err := hex.DecodeString(name); err != nil || len(b) != 16 {
		return model.Meta{}, model.Errorf(model.Invalid, requestHeader, "send 32 hexadecimal digits, or leave it out", "%q names no request", name)
	}
	sum := sha256.Sum256([]byte(identityOf(ctx).String() + "\n" + name))
	return model.Meta{UID: model.NewUID([16]byte(sum[:16])), Created: a.now().UTC()}, nil
}

// newMeta is the identity of a new object.
func (a *api) newMeta() (model.Meta, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return model.Meta{}, fmt.Errorf("make a uid: %w", err)
	}
	return model.Meta{UID: model.NewUID(b), Created: a.now().UTC()}, nil
}

// readBack waits until the loop has taken in the transaction that the handler wrote, so that whoever asks next sees it.
func (a *api) readBack(ctx context.Context, rev model.Revision) {
	ctx, cancel := context.WithTimeout(ctx, catchUp)
	defer cancel()
	if err := a.view.wait(ctx, rev); err != nil {
		a.log.Warn("a write is slow to come back from the store", "revision", int64(rev), "err", err)
	}
}

// refresh waits until the loop has seen what the store holds now: another server may have written it.
func (a *api) refresh(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookAgain)
	defer cancel()
	_ = a.fresh(ctx)
}

// find reads an object from the world, and looks again behind every write so far if it is not there.
func find[T any](ctx context.Context, a *api, get func(w *model.World) *T) *T {
	var found *T
	a.view.read(func(w *model.World) { found = get(w) })
	if found == nil {
		a.refresh(ctx)
		a.view.read(func(w *model.World) { found = get(w) })
	}
	return found
}

func (a *api) tenant(ctx context.Context, field, name string) (*model.Tenant, error) {
	t := find(ctx, a, func(w *model.World) *model.Tenant { return w.Tenants[name] })
	if t == nil {
		return nil, missing(field, "tenant", name, "weft tenant list")
	}
	return t, nil
}

func (a *api) network(ctx context.Context, field, tenant, name string) (*model.Network, error) {
	n := find(ctx, a, func(w *model.World) *model.Network { return w.NetworkByName(tenant, name) })
	if n == nil {
		if _, err := a.tenant(ctx, "tenant", tenant); err != nil {
			return nil, err
		}
		return nil, missing(field, "network", name, "weft network list --tenant "+tenant)
	}
	return n, nil
}

func (a *api) port(ctx context.Context, field, tenant, name string) (*model.Port, error) {
	p := find(ctx, a, func(w *model.World) *model.Port { return w.PortByName(tenant, name) })
	if p == nil {
		if _, err := a.tenant(ctx, "tenant", tenant); err != nil {
			return nil, err
		}
		return nil, missing(field, "port", name, "weft port list --tenant "+tenant)
	}
	return p, nil
}

func (a *api) host(ctx context.Context, field, name string) (*model.Host, error) {
	h := find(ctx, a, func(w *model.World) *model.Host { return w.HostByName(name) })
	if h == nil {
		return nil, missing(field, "host", name, "weft host list")
	}
	return h, nil
}

func missing(field, kind, name, list string) error {
	if name == "" {
		return model.Errorf(model.Invalid, field, "name a "+kind, "no %s is named", kind)
	}
	return model.Errorf(model.NotFound, field, "see `"+list+"`", "there is no %s %q", kind, name)
}

// basedOn refuses a write that does not say which revision it was based on.
func basedOn(rev int64) (model.Revision, error) {
	if rev <= 0 {
		return 0, model.Errorf(model.Invalid, "revision", "read the object, and send its meta.revision with the change",
			"a write names the revision that it was based on")
	}
	return model.Revision(rev), nil
}
