package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
	"github.com/weftnet/weft/client"
)

const (
	// hookLimit is how long a hook may take, all in all: libvirt waits for it, and with it whoever starts the machine.
	hookLimit = 2 * time.Second
	// hookUndo is the part of it that is kept for putting things back.
	hookUndo = 300 * time.Millisecond
	// maxDomain is how many octets of a machine's description are read.
	maxDomain = 4 << 20
)

func hookCommand(a *app) *cobra.Command {
	return group("hook", "what hypervisors call on a host", hookLibvirt(a))
}

// hook is one call of libvirt's.
type hook struct {
	app       *app
	agent     *client.LocalClient
	guest, op string
	tenant    string // of ports whose tenant is not written
	onError   string
	limit     time.Duration
}

func hookLibvirt(a *app) *cobra.Command {
	h := &hook{app: a}
	var script bool
	cmd := &cobra.Command{Use: "libvirt GUEST OPERATION [SUBOPERATION [EXTRA]] < DOMAIN.XML",
		Short: "libvirt's hook: attach a machine's ports when it starts or arrives, detach them when it has stopped",
		Long: "libvirt calls it, by a script that --print-script prints, with the arguments of https://libvirt.org/hooks.html and the machine's description\n" +
			"on standard input. The ports are named in its <metadata>; docs/guides/virtual-machines.md shows how. A machine without any is left alone.\n\n" +
			"  migrate             the ports become incoming here (the target of a live migration), and their TAP devices are made\n" +
			"  prepare, attach     the ports are attached here, and their TAP devices are made\n" +
			"  reconnect           the same, and it never fails: libvirt would kill the machine\n" +
			"  stopped, release    the ports are detached; one that is still incoming is given up\n" +
			"  the others          nothing: a machine that arrives commits its move by its first frame, not here\n\n" +
			"It talks to this host's agent alone, and answers within --limit. When it cannot do its work it says why, and ends with status 1, so that libvirt\n" +
			"does not start the machine; with --on-error open it ends with status 0.",
		Args: func(cmd *cobra.Command, args []string) error {
			if script && len(args) == 0 {
				return nil
			}
			return cobra.RangeArgs(2, 4)(cmd, args)
		}}
	f := cmd.Flags()
	f.BoolVar(&script, "print-script", false, "print the script for /etc/libvirt/hooks/qemu.d/weft, and do nothing else")
	f.StringVar(&h.onError, "on-error", "closed", "what becomes of a start or a migration when it cannot do its work: `closed` (refused) or open")
	f.DurationVar(&h.limit, "limit", hookLimit, "how long it may take, `DURATION`")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if script {
			_, err := io.WriteString(a.deps.Stdout, libvirtScript)
			return err
		}
		if h.onError != "closed" && h.onError != "open" {
			return usagef("--on-error", "choose closed or open", "%q is not one of its values", h.onError)
		}
		if h.limit <= hookUndo {
			return usagef("--limit", "give a time, such as 2s", "%s is not more than %s", h.limit, hookUndo)
		}
		var err error
		if h.tenant, err = a.tenantOrNone(); err != nil {
			return err
		}
		h.guest, h.op = args[0], args[1]
		return h.run(cmd.Context())
	}
	return a.owned(a.onHost(cmd))
}

// run does what the operation asks for. A failure of what may be refused is status 1 or, with on-error open, only said.
func (h *hook) run(ctx context.Context) error {
	work := h.work()
	if work == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, h.limit)
	defer cancel()
	h.agent = h.app.agent()
	defer h.agent.Close()
	err := work(ctx)
	if err == nil {
		return nil
	}
	for _, err := range apart(err) {
		_, lines := explain(err)
		for _, l := range lines {
			h.app.sayError(fmt.Sprintf("guest %s, %s: ", h.guest, h.op), l)
		}
	}
	if h.op == "reconnect" || h.onError == "open" {
		return nil
	}
	return errSaid{exitRefused}
}

// apart are the errors that were joined into one.
func apart(err error) []error {
	if all, ok := err.(interface{ Unwrap() []error }); ok {
		return all.Unwrap()
	}
	return []error{err}
}

// work is what an operation asks for, nil if nothing.
func (h *hook) work() func(context.Context) error {
	switch h.op {
	case "migrate":
		return func(ctx context.Context) error { return h.attach(ctx, true) }
	case "prepare", "attach", "reconnect":
		return func(ctx context.Context) error { return h.attach(ctx, false) }
	case "stopped", "release":
		return h.release
	}
	return nil
}

// ports reads the machine's description, no longer than ctx allows.
func (h *hook) ports(ctx context.Context) ([]guestPort, error) {
	type read struct {
		octets []byte
		err    error
	}
	got := make(chan read, 1) // nobody waits for a reader that is too late
	go func() {
		b, err := io.ReadAll(io.LimitReader(h.app.deps.Stdin, maxDomain+1))
		got <- read{b, err}
	}()
	select {
	case <-ctx.Done():
		return nil, refusef("domain", "have libvirt write it to the hook's standard input", "it did not come to an end in %s", h.limit)
	case r := <-got:
		switch {
		case r.err != nil:
			return nil, refusef("domain", "", "it cannot be read: %s", r.err)
		case len(r.octets) > maxDomain:
			return nil, refusef("domain", "", "it is longer than %s", octets(maxDomain))
		}
		return guestPorts(r.octets, h.tenant)
	}
}

// attach gives each port its TAP device; all of them or none.
func (h *hook) attach(ctx context.Context, take bool) error {
	ports, err := h.ports(ctx)
	if err != nil || len(ports) == 0 {
		return err
	}
	deadline, _ := ctx.Deadline()
	trying, cancel := context.WithDeadline(ctx, deadline.Add(-hookUndo))
	defer cancel()
	before, err := call(trying, h.agent.ListAttachments, &localv1.ListAttachmentsRequest{})
	if err != nil {
		return err
	}
	var made []guestPort
	for _, p := range ports {
		if p.attachment(before.GetAttachments()) == nil {
			made = append(made, p) // also if the answer does not come: it may be done all the same
		}
		if err = h.attachOne(trying, p, take); err != nil {
			break
		}
	}
	if err == nil {
		return nil
	}
	if len(made) > 0 && h.op != "reconnect" {
		if now, lerr := call(ctx, h.agent.ListAttachments, &localv1.ListAttachmentsRequest{}); lerr == nil {
			err = errors.Join(err, h.letGo(ctx, made, now.GetAttachments()))
		}
	}
	return err
}

func (h *hook) attachOne(ctx context.Context, p guestPort, take bool) error {
	res, err := call(ctx, h.agent.Attach, &localv1.AttachRequest{Tenant: p.tenant, Port: p.name, Interface: &localv1.AttachRequest_Tap{Tap: p.dev}, Take: take,
		MakeTap: &localv1.MakeTap{Queues: p.queues}})
	if err != nil {
		return p.explain(err)
	}
	return p.fits(res.GetAttachment())
}

// release lets the machine's ports go. That one is not here any more is what is wanted.
func (h *hook) release(ctx context.Context) error {
	ports, err := h.ports(ctx)
	if err != nil || len(ports) == 0 {
		return err
	}
	now, err := call(ctx, h.agent.ListAttachments, &localv1.ListAttachmentsRequest{})
	if err != nil {
		return err
	}
	return h.letGo(ctx, ports, now.GetAttachments())
}

// letGo detaches those of the ports that are attached. One that is still incoming here is given up: its move is aborted, and it stays where it was.
func (h *hook) letGo(ctx context.Context, ports []guestPort, attached []*localv1.Attachment) error {
	var all []error
	for _, p := range ports {
		at := p.attachment(attached)
		if at == nil || at.GetInterface() != p.dev {
			continue
		}
		var err error
		if at.GetMove() == "incoming" {
			_, err = call(ctx, h.agent.Abort, &localv1.AbortRequest{Tenant: p.tenant, Port: p.name, Reason: "guest " + h.guest + " ended on the target before it ran"})
		}
		if at.GetMove() != "incoming" || isCode(err, connect.CodeFailedPrecondition) { // it was committed meanwhile
			_, err = call(ctx, h.agent.Detach, &localv1.DetachRequest{Tenant: p.tenant, Port: p.name})
		}
		if err != nil && !isCode(err, connect.CodeNotFound) {
			all = append(all, p.explain(err))
		}
	}
	return errors.Join(all...)
}

// attachment of the port among those of the host.
func (p guestPort) attachment(all []*localv1.Attachment) *localv1.Attachment {
	i := slices.IndexFunc(all, func(at *localv1.Attachment) bool { return at.GetTenant() == p.tenant && at.GetPort() == p.name })
	if i < 0 {
		return nil
	}
	return all[i]
}

// explain says which port an error is about, if it does not.
func (p guestPort) explain(err error) error {
	_, lines := explain(err)
	l := lines[0]
	if name := p.tenant + "/" + p.name; !strings.Contains(l.reason, name) {
		l.reason = "port " + name + ": " + l.Error()
		l.field = ""
	}
	l.status = exitRefused
	return &l
}

// fits refuses a machine whose network card could not work with the port.
func (p guestPort) fits(at *localv1.Attachment) error {
	name := p.tenant + "/" + p.name
	if len(at.GetMacs()) > 0 && !slices.ContainsFunc(at.GetMacs(), func(mac string) bool { return sameMAC(mac, p.mac) }) {
		return refusef("port "+name, fmt.Sprintf("write <mac address='%s'/> into the <interface> of %s", at.GetMacs()[0], p.dev),
			"the machine's MAC there, %s, is none of its own (%s)", orDash(p.mac), strings.Join(at.GetMacs(), ", "))
	}
	if at.GetMtu() != 0 && p.mtu > at.GetMtu() {
		return refusef("port "+name, fmt.Sprintf("write <mtu size='%d'/> into the <interface> of %s", at.GetMtu(), p.dev),
			"the machine's MTU there, %d, is more than its network's, %d", p.mtu, at.GetMtu())
	}
	return nil
}
