package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
	"github.com/weftnet/weft/datapath/netdev"
)

func refuse(code connect.Code, format string, args ...any) error {
	return connect.NewError(code, fmt.Errorf(format, args...))
}

// attach gives a port an interface: settle what is asked, see that the port is bound here, make the interface, write
// it down, reconcile. What was done is undone when a later step fails.
func (a *Agent) attach(ctx context.Context, req *localv1.AttachRequest) (*localv1.Attachment, error) {
	at, err := a.asked(req)
	if err != nil {
		return nil, err
	}
	defer a.attaching.lock(at.Tenant + "/" + at.Port)()

	if req.Take {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, takeTimeout)
		defer cancel()
	}
	uid, undo, err := a.ensureHere(ctx, at, req.Take)
	if err != nil {
		return nil, err
	}
	at.UID = uid
	if at.Kind == kindVeth {
		at.Interface = netdev.PortInterface(uid)
	}
	res, err := a.attachHere(ctx, at)
	if err != nil {
		if uerr := undo(ctx); uerr != nil {
			err = fmt.Errorf("%w (and the port stays bound to this host: %w)", err, uerr)
		}
	}
	return res, err
}

// takeTimeout bounds what a hypervisor's hook waits for.
const takeTimeout = 2 * time.Second

// portLocks keep two requests about one port apart, and let those about others through: one may wait long for a server.
type portLocks struct {
	mu   sync.Mutex
	held map[string]*portLock
}

type portLock struct {
	sync.Mutex
	users int
}

// lock waits its turn and returns what ends it.
func (l *portLocks) lock(port string) (unlock func()) {
	l.mu.Lock()
	if l.held == nil {
		l.held = map[string]*portLock{}
	}
	p := l.held[port]
	if p == nil {
		p = &portLock{}
		l.held[port] = p
	}
	p.users++
	l.mu.Unlock()
	p.Lock()
	return func() {
		p.Unlock()
		l.mu.Lock()
		defer l.mu.Unlock()
		if p.users--; p.users == 0 {
			delete(l.held, port)
		}
	}
}

// asked checks the request itself, before anything is bound or made.
func (a *Agent) asked(req *localv1.AttachRequest) (attachment, error) {
	at := attachment{Tenant: req.Tenant, Port: req.Port}
	at.CommitOn = map[localv1.CommitOn]commitOn{localv1.CommitOn_COMMIT_ON_FIRST_FRAME: onFirstFrame, localv1.CommitOn_COMMIT_ON_COMMAND: onCommand}[req.CommitOn]
	switch {
	case at.Tenant == "":
		return at, refuse(connect.CodeInvalidArgument, "tenant: it is empty; say --tenant or set WEFT_TENANT")
	case at.Port == "":
		return at, refuse(connect.CodeInvalidArgument, "port: it is empty; name the port to attach")
	}
	switch i := req.Interface.(type) {
	case *localv1.AttachRequest_Netns:
		at.Kind, at.Netns, at.Ifname = kindVeth, i.Netns.GetNetns(), i.Netns.GetIfname()
		if at.Ifname == "" {
			at.Ifname = "eth0"
		}
		if at.Netns == "" {
			return at, refuse(connect.CodeInvalidArgument, "netns: it is empty; give a name under %s or a path", netdev.NamespaceDir)
		}
		if !ifnameOK(at.Ifname) {
			return at, refuse(connect.CodeInvalidArgument, "ifname: %q is not an interface name; Linux takes up to 15 characters without / : and space", at.Ifname)
		}
		at.Netns = netdev.NamespacePath(at.Netns)
		ns, err := netdev.OpenPath(at.Netns)
		if errors.Is(err, fs.ErrNotExist) {
			return at, refuse(connect.CodeNotFound, "netns: there is no network namespace %s; `ip netns list` shows the named ones", at.Netns)
		}
		if err != nil {
			return at, refuse(connect.CodeInvalidArgument, "netns: %v", err)
		}
		ns.Close()
		return at, nil
	case *localv1.AttachRequest_Tap:
		at.Kind, at.Interface = kindTAP, i.Tap
		var err error
		if at.Made, err = tapToMake(req.MakeTap); err != nil {
			return at, err
		}
	case *localv1.AttachRequest_Device:
		at.Kind, at.Interface = kindDevice, i.Device
	default:
		return at, refuse(connect.CodeInvalidArgument, "interface: none is given; say --netns, --tap or --device")
	}
	return at, a.usable(at)
}

func ifnameOK(s string) bool {
	return len(s) <= 15 && s != "." && s != ".." && !strings.ContainsAny(s, "/: \t\n")
}

// usable says why an existing interface cannot be a port's.
func (a *Agent) usable(at attachment) error {
	field := string(at.Kind)
	l, err := a.links.Link(at.Interface)
	switch {
	case isNotFound(err) && at.Made != nil && (at.Interface == "" || !ifnameOK(at.Interface)):
		return refuse(connect.CodeInvalidArgument, "tap: %q is not an interface name; Linux takes up to 15 characters without / : and space", at.Interface)
	case isNotFound(err) && at.Made != nil && !strings.HasPrefix(at.Interface, netdev.NamePrefix):
		return nil
	case isNotFound(err) && at.Made != nil:
		l.Name = at.Interface
	case isNotFound(err):
		return refuse(connect.CodeNotFound, "%s: there is no interface %s on this host; make it first (`ip tuntap add %s mode tap`)", field, at.Interface, at.Interface)
	case err != nil:
		return refuse(connect.CodeInternal, "%s: %v", field, err)
	}
	switch {
	case l.Name == "lo" || a.uplink.has(l.Name):
		return refuse(connect.CodeFailedPrecondition, "%s: %s carries the host's own traffic; choose an interface of a workload", field, l.Name)
	case strings.HasPrefix(l.Name, netdev.NamePrefix):
		return refuse(connect.CodeFailedPrecondition, "%s: names that begin with %q are weft's own; choose an interface of a workload", field, netdev.NamePrefix)
	case at.Kind == kindTAP && l.Kind != "tuntap":
		return refuse(connect.CodeInvalidArgument, "tap: %s is a %s, not a TAP device; say --device", l.Name, l.Kind)
	}
	return nil
}

// ensureHere sees that the port is bound to this host, or (take) at least on its way here, and that the plan says so. undo gives back what
// this call got.
func (a *Agent) ensureHere(ctx context.Context, at attachment, take bool) (uid string, undo func(context.Context) error, err error) {
	var elsewhere bool
	find := func() {
		for id, p := range a.rec.view.ports {
			if p.tenant == at.Tenant && p.name == at.Port {
				uid, elsewhere = id, !p.place.on(a.rec.self) || p.place.goes(a.rec.self)
				if !elsewhere {
					return
				}
			}
		}
	}
	if err := a.do(ctx, find); err != nil {
		return "", nil, err
	}
	if uid != "" && !elsewhere {
		return uid, func(context.Context) error { return nil }, nil
	}
	epoch, how := int64(0), "bound to"
	if uid, epoch, undo, err = a.bind(ctx, at); take && connect.CodeOf(err) == connect.CodeFailedPrecondition && err != nil {
		how = "prepared on"
		uid, epoch, undo, err = a.prepare(ctx, at)
	}
	var away *unreachable
	switch {
	case errors.As(err, &away) && take:
		return "", nil, refuse(connect.CodeUnavailable, "port %s/%s is not known to be on this host, and %w; a move cannot begin without a server: try again when one is back", at.Tenant, at.Port, away)
	case errors.As(err, &away) && elsewhere:
		return "", nil, refuse(connect.CodeUnavailable, "port %s/%s is not bound to this host, and %w; a port that is bound here can be attached without a server", at.Tenant, at.Port, away)
	case errors.As(err, &away):
		return "", nil, refuse(connect.CodeUnavailable, "port %s/%s is not known to be bound to this host, and %w; ports that are bound here already can be attached without a server", at.Tenant, at.Port, away)
	case err != nil:
		return "", nil, passOn(err)
	}
	began := time.Now()
	if err := a.wait(ctx, func() bool {
		p := a.rec.view.ports[uid]
		return p != nil && p.place.epoch >= epoch && a.rec.view.nets[p.network] != nil
	}); err != nil {
		err = refuse(connect.CodeDeadlineExceeded, "port %s/%s was %s this host, but the plan did not bring it within %s; see `weft status`, and try again",
			at.Tenant, at.Port, how, time.Since(began).Round(time.Millisecond))
		if uerr := undo(ctx); uerr != nil {
			err = fmt.Errorf("%w (and it stays %s it: %w)", err, how, uerr)
		}
		return "", nil, err
	}
	return uid, undo, nil
}

// bind has a server bind the port to this host.
func (a *Agent) bind(ctx context.Context, at attachment) (uid string, epoch int64, undo func(context.Context) error, err error) {
	res, err := a.server.Bind(ctx, at.Tenant, at.Port)
	if err != nil {
		return "", 0, nil, err
	}
	return res.PortUid, res.Epoch, func(ctx context.Context) error {
		// The caller's context may be what failed.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
		defer cancel()
		_, err := a.server.Unbind(ctx, res.PortUid, at.Tenant, at.Port)
		return err
	}, nil
}

// prepare has a server make the port incoming here.
func (a *Agent) prepare(ctx context.Context, at attachment) (uid string, epoch int64, undo func(context.Context) error, err error) {
	res, err := a.server.Prepare(ctx, at.Tenant, at.Port)
	if err != nil {
		return "", 0, nil, err
	}
	return res.PortUid, res.Epoch, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
		defer cancel()
		_, err := a.server.Abort(ctx, res.PortUid, res.Epoch, "it could not be attached there")
		return err
	}, nil
}

// passOn gives the caller what the server said, with its code and details.
func passOn(err error) error {
	if ce := new(connect.Error); errors.As(err, &ce) {
		out := connect.NewError(ce.Code(), errors.New(ce.Message()))
		for _, d := range ce.Details() {
			out.AddDetail(d)
		}
		return out
	}
	return err
}

// wait blocks until the plan fulfils a condition, BindTimeout at most.
func (a *Agent) wait(ctx context.Context, ready func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.BindTimeout)
	defer cancel()
	w := &waiter{ready: ready, done: make(chan struct{})}
	err := a.do(ctx, func() {
		if ready() {
			close(w.done)
		} else {
			a.waiting[w] = true
		}
	})
	if err != nil {
		return err
	}
	select {
	case <-w.done:
		return nil
	case <-a.stopped:
		return errEnded
	case <-ctx.Done():
		// Without the loop there is nothing to take out.
		_ = a.do(context.WithoutCancel(ctx), func() { delete(a.waiting, w) })
		return ctx.Err()
	}
}

// attachHere does the host's part. It leaves nothing behind when it fails.
func (a *Agent) attachHere(ctx context.Context, at attachment) (*localv1.Attachment, error) {
	var spec veth
	var old attachment
	var again bool
	var err error
	derr := a.do(ctx, func() {
		old, again = a.atts.byUID[at.UID]
		spec, err = a.fits(at, old, again)
	})
	if err := errors.Join(derr, err); err != nil {
		return nil, err
	}
	// The plan that explains it is written down before the attachment is: a restart between the two must not take it for a leftover.
	if err := a.waitOnDisk(ctx); err != nil {
		return nil, err
	}
	if at.Made != nil {
		if at, err = a.makeTAP(at, old, again); err != nil {
			return nil, err
		}
	}
	if at.Kind == kindVeth {
		// Outside the loop: namespaces of others may be slow.
		if _, err := a.links.MakeVeth(spec); err != nil {
			return nil, vethRefusal(at, err)
		}
	}
	var res *localv1.Attachment
	derr = a.do(ctx, func() {
		if err = a.record(at); err == nil {
			res = a.attachmentProto(a.atts.byUID[at.UID])
		}
	})
	if err = errors.Join(derr, err); err == nil {
		return res, nil
	}
	if !again {
		_ = a.do(context.WithoutCancel(ctx), func() {
			if rerr := a.forget(at); rerr != nil {
				err = fmt.Errorf("%w (and it could not be undone: %w)", err, rerr)
			}
		})
	}
	return nil, err
}

// waitOnDisk returns when the plan as it is now is written down.
func (a *Agent) waitOnDisk(ctx context.Context) error {
	done := make(chan struct{})
	if err := a.do(ctx, func() {
		if a.onDisk() {
			close(done)
		} else {
			a.whenOnDisk(func() { close(done) })
		}
	}); err != nil {
		return err
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-a.stopped:
		return errEnded
	}
}

// fits checks an attachment against the plan and the others, and says what its veth is to be.
func (a *Agent) fits(at, old attachment, again bool) (veth, error) {
	if l := a.rec.locals[at.UID]; again && l != nil && l.ifindex != 0 && (old.Kind != at.Kind || old.Interface != at.Interface || old.Netns != at.Netns && old.Netns != "" || old.Ifname != at.Ifname && old.Ifname != "") {
		return veth{}, refuse(connect.CodeAlreadyExists, "port %s/%s is attached here already, as %s; `weft port detach %s` first", at.Tenant, at.Port, describe(old), at.Port)
	}
	if other, taken := a.atts.byIf[at.Interface]; taken && other != at.UID {
		o := a.atts.byUID[other]
		return veth{}, refuse(connect.CodeAlreadyExists, "%s: interface %s is attached as port %s/%s already; choose another, or detach that port", at.Kind, at.Interface, o.Tenant, o.Port)
	}
	spec, n := a.spec(at)
	if n == nil {
		return veth{}, refuse(connect.CodeFailedPrecondition, "port %s/%s left this host while it was being attached; try again", at.Tenant, at.Port)
	}
	if room := innerMTU(a.uplink.local); n.mtu > room {
		return veth{}, refuse(connect.CodeFailedPrecondition,
			"network %s has an MTU of %d octets, and uplink %s with %d carries %d of an inner packet; raise the uplink's MTU to %d, or set the network's with `weft network set --mtu`",
			n.display, n.mtu, a.uplink.name, a.uplink.local.UplinkMTU, room, a.uplink.local.UplinkMTU+n.mtu-room)
	}
	return spec, nil
}

// spec is what an attachment's veth is to be; there is no network when the plan does not have the port.
func (a *Agent) spec(at attachment) (veth, *network) {
	p := a.rec.view.ports[at.UID]
	if p == nil || len(p.macs) == 0 {
		return veth{}, nil
	}
	n := a.rec.view.nets[p.network]
	if n == nil {
		return veth{}, nil
	}
	return veth{uid: at.UID, near: at.Interface, netns: at.Netns, far: at.Ifname, mac: p.macs[0], ips: p.ips, mtu: n.mtu}, n
}

func describe(at attachment) string {
	if at.Kind == kindVeth {
		return fmt.Sprintf("%s in %s", at.Ifname, at.Netns)
	}
	return fmt.Sprintf("%s %s", at.Kind, at.Interface)
}

func vethRefusal(at attachment, err error) error {
	switch {
	case errors.Is(err, fs.ErrExist):
		return refuse(connect.CodeAlreadyExists, "ifname: there is an interface %s in %s already; name another with --ifname, or remove it", at.Ifname, filepath.Base(at.Netns))
	case errors.Is(err, os.ErrNotExist):
		return refuse(connect.CodeNotFound, "netns: network namespace %s is gone", at.Netns)
	}
	return refuse(connect.CodeFailedPrecondition, "interface: %v", err)
}

// record writes an attachment down and opens the port. In the loop.
func (a *Agent) record(at attachment) error {
	if other, taken := a.atts.byIf[at.Interface]; taken && other != at.UID {
		return refuse(connect.CodeAlreadyExists, "%s: interface %s was attached as another port meanwhile", at.Kind, at.Interface)
	}
	old := a.atts.byUID[at.UID]
	at.Fitted = old.Fitted
	if at.Made == nil && old.Interface == at.Interface {
		at.Made = old.Made
	}
	if err := a.atts.put(at); err != nil {
		return refuse(connect.CodeInternal, "the attachment cannot be written: %v", err)
	}
	now, err := a.resolve(at)
	if err != nil {
		return refuse(connect.CodeInternal, "interface %s: %v", at.Interface, err)
	}
	if now.ifindex == 0 {
		return refuse(connect.CodeNotFound, "interface %s went away", at.Interface)
	}
	a.veths[at.UID], _ = a.spec(at)
	a.rec.SetAttached(at.UID, &now)
	a.reconcile()
	later(&a.reportAt, 0)
	p := a.rec.view.ports[at.UID]
	if p == nil {
		return refuse(connect.CodeFailedPrecondition, "port %s/%s left this host while it was being attached", at.Tenant, at.Port)
	}
	if err := a.rec.missing(at.UID, a.rec.view.nets[p.network].vni); err != nil {
		a.acknowledge()
		return refuse(connect.CodeResourceExhausted, "port %s/%s: %v", at.Tenant, at.Port, err)
	}
	a.log.Info("the port is attached", "port", at.Tenant+"/"+at.Port, "interface", at.Interface)
	return nil
}

// forget is record's opposite: the interface of our own making goes too. In the loop.
func (a *Agent) forget(at attachment) error {
	if err := a.atts.remove(at.UID); err != nil {
		return err
	}
	delete(a.veths, at.UID)
	delete(a.raised, at.UID)
	delete(a.mtus, at.UID)
	err := a.unmake(at) // before its program goes: without one it must not be up
	a.rec.SetAttached(at.UID, nil)
	a.unfit = append(a.unfit, at)
	a.reconcile()
	later(&a.reportAt, 0)
	return err
}
