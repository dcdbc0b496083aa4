package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/structpb"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/client"
)

const (
	// maxParallel moves at once.
	maxParallel = 256
	// darkPatience is how long is waited, after the last move, for what the ports' dark times were.
	darkPatience = 15 * time.Second
	// wordPatience is how long is waited for the word of a workload that drain's own commit may have overtaken.
	wordPatience = 2 * time.Second
)

func hostDrain(a *app) *cobra.Command {
	d := &drain{app: a}
	var to []string
	cmd := &cobra.Command{Use: "drain NAME [--to HOST,...] [--with COMMAND]", Short: "empty a host: give it no more ports, and move those that it has",
		Args: names("NAME"), ValidArgsFunction: a.complete(a.hostNames),
		Long: "From the first moment on no port is bound or moved to the host. Ports without an attached workload are moved at once. Where there is a\n" +
			"workload, somebody has to move it: --with COMMAND is run by sh for each such port when its move is prepared, and the move is committed when\n" +
			"COMMAND ends well, if the workload has not committed it by itself before; if COMMAND fails, the move is aborted. Without --with these ports\n" +
			"are listed and stay. COMMAND finds in its environment WEFT_TENANT, WEFT_PORT, WEFT_PORT_UID, WEFT_NETWORK, WEFT_FROM, WEFT_TO, WEFT_EPOCH and\n" +
			"WEFT_INTERFACE. For machines with several ports give --parallel 1: the first one takes the others along.\n\n" +
			"Each port goes to the host of --to that has the fewest, or else to any that is ready and in service and whose MTU fits. Running it again goes\n" +
			"on where it ended; interrupted, it aborts what is not committed. Exit status 4: ports are left. `weft host return` ends it.",
		Example: "  weft host drain h1 --dry-run\n  weft host drain h1 --to h2,h3 --with 'virsh migrate --live --persistent $WEFT_PORT qemu+ssh://$WEFT_TO/system'"}
	f := cmd.Flags()
	f.StringSliceVar(&to, "to", nil, "only to these hosts, `NAMES`")
	f.StringVar(&d.command, "with", "", "what moves an attached workload, `COMMAND`")
	f.IntVar(&d.parallel, "parallel", 8, "`NUMBER` of ports that are moved at the same time")
	f.BoolVar(&d.dry, "dry-run", false, "only say what would be done")
	_ = cmd.RegisterFlagCompletionFunc("to", a.completeFlag(a.hostNames))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if d.parallel < 1 || d.parallel > maxParallel {
			return usagef("--parallel", "choose one in that range", "%d is outside 1..%d", d.parallel, maxParallel)
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		d.c, d.from = c, args[0]
		return d.run(cmd.Context(), to)
	}
	return a.formatted(cmd)
}

// drain empties one host.
type drain struct {
	app      *app
	c        *client.Client
	from     string
	command  string
	parallel int
	dry      bool

	targets []*target
	all     []*departure
	said    sync.Mutex // lines on standard error, and what follows
	ended   int
}

// target is a host that may be given ports.
type target struct {
	name  string
	room  uint32 // octets of an inner packet
	ports uint32
}

// departure is what became of one port.
type departure struct {
	port   *weftv1.Port
	to     string
	result string // moved, left or, in a dry run, "to be moved"
	took   time.Duration
	epoch  int64
	dark   string
	reason string
	ran    bool // COMMAND ran for it, and ended well
}

const (
	isMoved  = "moved"
	isLeft   = "left"
	wouldBe  = "to be moved"
	vxlanIP4 = 50 // octets around an inner IP packet: outer IPv4 20, UDP 8, VXLAN 8, inner Ethernet 14 (RFC 7348, section 5)
	vxlanIP6 = 70
)

func (d *drain) run(ctx context.Context, to []string) error {
	res, err := call(ctx, d.c.Hosts.ListHosts, &weftv1.ListHostsRequest{})
	if err != nil {
		return err
	}
	if err := d.choose(res.GetHosts(), to); err != nil {
		return err
	}
	ports, err := d.begin(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	d.moveAll(ctx, ports)
	d.darkTimes(ctx)
	if err := d.report(time.Since(began)); err != nil {
		return err
	}
	if slices.ContainsFunc(d.all, func(x *departure) bool { return x.result == isLeft }) {
		return errSaid{exitLeft}
	}
	return nil
}

// choose finds the hosts that ports may go to.
func (d *drain) choose(hosts []*weftv1.Host, to []string) error {
	byName := map[string]*weftv1.Host{}
	for _, h := range hosts {
		byName[h.GetName()] = h
	}
	if byName[d.from] == nil {
		return refusef("name", "look with `weft host list`", "there is no host %s", d.from)
	}
	for _, name := range to {
		h := byName[name]
		s := h.GetStatus()
		switch {
		case h == nil:
			return refusef("--to", "look with `weft host list`", "there is no host %s", name)
		case name == d.from:
			return usagef("--to", "name other hosts", "%s is the host that is to be emptied", name)
		case s.GetDuty() != weftv1.HostDuty_HOST_DUTY_ACTIVE:
			return refusef("--to", "take it back with `weft host return "+name+"`, or name another", "host %s is %s", name, enum("HOST_DUTY_", s.GetDuty()))
		case s.GetState() != weftv1.HostState_HOST_STATE_READY && s.GetState() != weftv1.HostState_HOST_STATE_DEGRADED:
			return refusef("--to", "see `weft host show "+name+"`, or name another", "host %s is %s", name, enum("HOST_STATE_", s.GetState()))
		}
	}
	for _, h := range hosts {
		s := h.GetStatus()
		if len(to) > 0 && !slices.Contains(to, h.GetName()) || h.GetName() == d.from ||
			len(to) == 0 && (s.GetDuty() != weftv1.HostDuty_HOST_DUTY_ACTIVE || s.GetState() != weftv1.HostState_HOST_STATE_READY) {
			continue
		}
		d.targets = append(d.targets, &target{name: h.GetName(), room: innerRoom(s), ports: s.GetPorts()})
	}
	return nil
}

// innerRoom is what a host's uplink carries of an inner IP packet, 0 if it has none.
func innerRoom(s *weftv1.HostStatus) uint32 {
	around := uint32(vxlanIP6)
	for _, address := range s.GetVtepAddresses() {
		if ip, err := netip.ParseAddr(address); err == nil && ip.Is4() {
			around = vxlanIP4
		}
	}
	if s.GetUplinkMtu() < around {
		return 0
	}
	return s.GetUplinkMtu() - around
}

// begin tells the server, and answers with the host's ports.
func (d *drain) begin(ctx context.Context) ([]*weftv1.Port, error) {
	if !d.dry {
		res, err := call(ctx, d.c.Hosts.DrainHost, &weftv1.DrainHostRequest{Name: d.from})
		return res.GetPorts(), err
	}
	res, err := call(ctx, d.c.Ports.ListPorts, &weftv1.ListPortsRequest{Host: d.from})
	return res.GetPorts(), err
}

// moveAll moves the ports, some at a time. Those that it does not come to are left.
func (d *drain) moveAll(ctx context.Context, ports []*weftv1.Port) {
	ports = slices.DeleteFunc(ports, func(p *weftv1.Port) bool { // what has gone already, and is only forwarded to
		b := p.GetStatus().GetBinding()
		return b.GetActive() != d.from && b.GetIncoming() != d.from
	})
	slots := make(chan struct{}, d.parallel)
	var wg sync.WaitGroup
	for _, p := range ports {
		x := &departure{port: p, result: wouldBe}
		d.all = append(d.all, x)
		if err := d.place(x); err != nil || d.dry {
			x.left(err)
			d.tell(x, len(ports))
			continue
		}
		slots <- struct{}{}
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer func() { <-slots }()
			began := time.Now()
			x.left(d.one(ctx, x))
			x.took = time.Since(began)
			d.tell(x, len(ports))
		}()
	}
	wg.Wait()
}

// left notes why a port stays, if it does.
func (x *departure) left(err error) {
	if err != nil {
		_, why := explain(err)
		x.result, x.reason = isLeft, why[0].Error()
	}
}

func (d *drain) tell(x *departure, of int) {
	if d.dry {
		return
	}
	d.said.Lock()
	defer d.said.Unlock()
	d.ended++
	n := d.ended
	if x.result == isLeft {
		fmt.Fprintf(d.app.deps.Stderr, "[%d/%d] port %s is left: %s\n", n, of, portName(x.port), x.reason)
		return
	}
	fmt.Fprintf(d.app.deps.Stderr, "[%d/%d] port %s is moved to %s in %s\n", n, of, portName(x.port), x.to, x.took.Round(time.Millisecond))
}

func portName(p *weftv1.Port) string { return p.GetTenant() + "/" + p.GetName() }

// one moves a port. An error is why it stays.
func (d *drain) one(ctx context.Context, x *departure) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p := x.port
	mv := &mover{app: d.app, c: d.c, tenant: p.GetTenant(), name: p.GetName(), quiet: true}
	if p.GetStatus().GetBinding().GetIncoming() == "" {
		now, err := mv.prepare(ctx, x.to, p.GetStatus().GetBinding().GetEpoch())
		if err != nil {
			return err
		}
		p = now
	}
	x.epoch = moveEpoch(p)
	if err := d.move(ctx, mv, x); err != nil {
		return d.takeBack(mv, x, err)
	}
	x.result = isMoved
	return nil
}

// place chooses where a port goes: where it is going already, or the host with the fewest ports of those that fit.
func (d *drain) place(x *departure) (err error) {
	if err := d.movable(x.port); err != nil {
		return err
	}
	if x.to = x.port.GetStatus().GetBinding().GetIncoming(); x.to == "" {
		x.to, err = d.target(x.port)
	}
	return err
}

// movable says why a port cannot be moved.
func (d *drain) movable(p *weftv1.Port) error {
	s := p.GetStatus()
	switch {
	case s.GetBinding().GetIncoming() == d.from:
		return refusef("", "", "it is on its way from %s to here; abort that with `weft port move %s --tenant %s --abort`", s.GetBinding().GetActive(), p.GetName(), p.GetTenant())
	case attachedThere(s) && s.GetBinding().GetIncoming() != "":
		return refusef("", "", "somebody is moving it to %s; let that end, or abort it with `weft port move %s --tenant %s --abort`", s.GetBinding().GetIncoming(),
			p.GetName(), p.GetTenant())
	case attachedThere(s) && d.command == "":
		return refusef("", "", "its workload is attached there; give --with COMMAND, or move it by hand")
	case s.GetState() == weftv1.PortState_PORT_STATE_PENDING && s.GetInterface() == "" && d.command == "":
		return refusef("", "", "%s has not reported whether a workload is attached; if that host is dead, `weft host fail %s`", d.from, d.from)
	}
	return nil
}

// attachedThere reports a port that has an interface on its host.
func attachedThere(s *weftv1.PortStatus) bool {
	return s.GetInterface() != "" || s.GetState() == weftv1.PortState_PORT_STATE_HELD || s.GetState() == weftv1.PortState_PORT_STATE_ACTIVE
}

// target takes the host with the fewest ports of those that fit.
func (d *drain) target(p *weftv1.Port) (string, error) {
	if len(d.targets) == 0 {
		return "", refusef("", "", "there is no other host that is ready and in service")
	}
	fits := slices.DeleteFunc(slices.Clone(d.targets), func(t *target) bool { return t.room < p.GetStatus().GetMtu() })
	if len(fits) == 0 {
		return "", refusef("", "", "its network has an MTU of %d, and no other host's uplink carries that", p.GetStatus().GetMtu())
	}
	best := slices.MinFunc(fits, func(x, y *target) int { return cmp.Or(cmp.Compare(x.ports, y.ports), cmp.Compare(x.name, y.name)) })
	best.ports++
	return best.name, nil
}

// move takes a begun move to its commit: by the workload, or when its command has ended well.
func (d *drain) move(ctx context.Context, mv *mover, x *departure) error {
	m, err := mv.prepared(ctx, x.epoch)
	if err != nil {
		return err
	}
	attached := attachedThere(x.port.GetStatus()) || x.port.GetStatus().GetState() == weftv1.PortState_PORT_STATE_PENDING
	if attached && !committed(m) {
		out := prefixed{mu: &d.said, out: d.app.deps.Stderr, prefix: portName(x.port) + ": "}
		if last, err := shell(ctx, d.command, d.variables(x), out); err != nil {
			if last != "" {
				last = ": " + last
			}
			return refusef("", "", "COMMAND failed, %s%s", err, last)
		}
		x.ran = true
	}
	return mv.commit(ctx, x.epoch)
}

// variables of COMMAND's environment.
func (d *drain) variables(x *departure) []string {
	return []string{"WEFT_TENANT=" + x.port.GetTenant(), "WEFT_PORT=" + x.port.GetName(), "WEFT_PORT_UID=" + x.port.GetMeta().GetUid(),
		"WEFT_NETWORK=" + x.port.GetSpec().GetNetwork(), "WEFT_FROM=" + d.from, "WEFT_TO=" + x.to, fmt.Sprintf("WEFT_EPOCH=%d", x.epoch),
		"WEFT_INTERFACE=" + x.port.GetStatus().GetInterface()}
}

// takeBack ends what cannot be finished. A workload that committed its move is where it is, whatever its command said.
func (d *drain) takeBack(mv *mover, x *departure, why error) error {
	ctx, cancel := context.WithTimeout(context.Background(), goodbye) // the caller's may be what ended
	defer cancel()
	_, err := call(ctx, d.c.Ports.AbortMove, &weftv1.AbortMoveRequest{Tenant: x.port.GetTenant(), Name: x.port.GetName(), Epoch: x.epoch})
	now, gerr := mv.port(ctx)
	m := now.GetStatus().GetMove()
	_, lines := explain(why)
	switch {
	case gerr == nil && m.GetEpoch() == x.epoch && committed(m):
		x.result, x.reason = isMoved, lines[0].Error()
		return nil
	case err != nil && (gerr != nil || m.GetEpoch() == x.epoch && !client.MoveEnded(m)):
		_, more := explain(err)
		return refusef("", "", "%s; and its move could not be aborted: %s", lines[0].Error(), more[0].Error())
	}
	return why
}

// darkTimes asks what the moves' dark times were, as the sources tell them after the commit.
func (d *drain) darkTimes(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, darkPatience)
	defer cancel()
	slots := make(chan struct{}, d.parallel)
	var wg sync.WaitGroup
	for _, x := range d.all {
		if x.result != isMoved {
			continue
		}
		slots <- struct{}{}
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer func() { <-slots }()
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			var impatient *time.Timer
			// Nothing hangs on it: what does not come is not shown.
			_ = d.c.FollowMove(ctx, x.port.GetTenant(), x.port.GetName(), func(m *weftv1.Move) bool {
				if m.GetEpoch() != x.epoch {
					return false
				}
				x.dark = darkText(m)
				if m.GetCommitCause() != weftv1.CommitCause_COMMIT_CAUSE_COMMAND {
					if impatient != nil {
						impatient.Stop() // the word is here, and its dark time follows
					}
					return x.dark == ""
				}
				// A commit by command has no dark time, as its target's agent was told by the server; unless COMMAND was the first to tell that agent.
				if impatient == nil {
					impatient = time.AfterFunc(wordPatience, cancel)
				}
				return x.ran
			})
		}()
	}
	wg.Wait()
}

func (d *drain) report(took time.Duration) error {
	count := map[string]int{}
	for _, x := range d.all {
		count[x.result]++
	}
	out, err := structpb.NewStruct(d.fields())
	if err != nil {
		return fmt.Errorf("put the report together: %w", err)
	}
	return d.app.print(out, func() error {
		if len(d.all) == 0 {
			return d.app.say("host %s has no ports", d.from)
		}
		t := newTable("TENANT", "PORT", "TO", "RESULT", "TIME", "DARK", "REASON")
		for _, x := range d.all {
			result := cell{text: x.result}
			took := x.took.Round(time.Millisecond).String()
			if x.result != isMoved {
				took = ""
			}
			if x.result == isLeft {
				result.colour = yellow
			}
			t.add(x.port.GetTenant(), x.port.GetName(), x.to, result, took, x.dark, x.reason)
		}
		if d.dry {
			return errors.Join(d.app.table(t), d.app.say("host %s: %s would be moved, %d left", d.from, counted(count[wouldBe], "port"), count[isLeft]))
		}
		return errors.Join(d.app.table(t), d.app.say("host %s: %s moved in %s, %d left", d.from, counted(count[isMoved], "port"),
			took.Round(time.Millisecond), count[isLeft]))
	})
}

// fields of the report for programs; times are in seconds.
func (d *drain) fields() map[string]any {
	ports := []any{}
	for _, x := range d.all {
		p := map[string]any{"tenant": x.port.GetTenant(), "port": x.port.GetName(), "from": d.from, "to": x.to, "result": strings.ReplaceAll(x.result, " ", "-")}
		if x.result == isMoved {
			p["seconds"] = x.took.Seconds()
		}
		if dark, err := time.ParseDuration(x.dark); err == nil {
			p["darkSeconds"] = dark.Seconds()
		}
		if x.reason != "" {
			p["reason"] = x.reason
		}
		ports = append(ports, p)
	}
	return map[string]any{"host": d.from, "ports": ports}
}
