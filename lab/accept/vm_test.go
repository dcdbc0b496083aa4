package accept_test

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/internal/testenv"
	"github.com/weftnet/weft/lab"
	"github.com/weftnet/weft/lab/guest"
	"github.com/weftnet/weft/lab/probe"
	"github.com/weftnet/weft/lab/qemu"
)

var migrationLog = flag.String("migrationlog", "", "file that TestVMMigrates writes what it did and saw to")

const (
	vmRate      = 500 // datagrams a second between the machine that moves and the workload, each way
	vmOtherRate = 100 // and between two machines
	vmFrame     = 14 + 20 + 8 + 24
	vmAnnounce  = 60 // octets of a RARP frame in QEMU's announcement of a machine
	// vmExcess is what the streams may be dark beyond QEMU's own downtime, in nine migrations of ten.
	vmExcess        = 20 * time.Millisecond
	sessionInterval = 10 * time.Millisecond
)

// vmBench is a virtual machine that moves between h1 and h2, and who it talks to on h3: a workload, and another machine.
type vmBench struct {
	*fixture
	peer *workload
	echo *probe.Echo
	// in and out are the workload's streams to and from the machine that moves, and session its TCP connection to it.
	in        *probe.SequenceSender
	out       *probe.SequenceReceiver
	session   *probe.Session
	connected bool
	// reordered and twice are datagrams that came so, ended the TCP connections that did.
	reordered, twice uint64
	ended            int
	// inStopped: in has been stopped.
	inStopped bool
	// round of streams: each has names and L4 ports of its own.
	round int
	at    string
	// migrations so far.
	migrations uint64
	// dropped before the machine was there.
	before vmDrops
	// addr are the machines' addresses.
	addr map[string]netip.Addr
}

const (
	mover  = "vm1"
	stayer = "vm2"
)

func newVMBench(t *testing.T) *vmBench {
	t.Helper()
	testenv.RequireTool(t, qemu.Program)
	testenv.RequireTool(t, "busybox")
	if _, err := qemu.FindKernel(qemu.DefaultKernel); err != nil {
		testenv.Missing(t, testenv.Peers, err.Error())
	}
	b := &vmBench{fixture: ownLab(t, lab.Config{Name: "vm"}), at: "h1", addr: map[string]netip.Addr{}}
	b.tenant(t, "vm")
	b.network(t, "vm", "blue", &weftv1.NetworkSpec{Subnets: []string{"10.1.0.0/24"}, Mtu: 1400})
	b.peer = b.workload(t, lab.WorkloadSpec{Name: "vm-peer", Host: "h3", Tenant: "vm", Network: "blue"})
	if err := b.peer.ns.SetSysctl("net/ipv6/conf/all/disable_ipv6", "1"); err != nil { // it looks for routers, in frames that nobody numbers
		t.Fatal(err)
	}
	b.before = b.drops(t)
	b.boot(t, mover, b.at)
	b.boot(t, stayer, "h3")
	for _, a := range b.addr {
		reaches(t, b.peer.ns, a)
	}
	return b
}

// boot starts a machine and takes it away when the test ends.
func (b *vmBench) boot(t *testing.T, name, host string) {
	t.Helper()
	vm, err := b.StartVM(context.Background(), lab.VMSpec{Name: name, Host: host, Tenant: "vm", Network: "blue"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s, err := b.State(); t.Failed() && err == nil {
			vm, _ := s.VM(name)
			console, _ := os.ReadFile(vm.Machine.Console())
			t.Logf("the console of %s, on %s:\n%s", name, vm.Host, console)
		}
		if err := b.StopVM(context.Background(), name); err != nil {
			t.Error(err)
		}
	})
	b.addr[name] = first(vm.Machine.Addresses, netip.Addr.Is4)
	if got := b.ask(t, name, guest.Request{Do: guest.Tell}); got.MTU != 1400 {
		t.Errorf("%s has an MTU of %d: the network's is 1400", name, got.MTU)
	}
}

func (b *vmBench) ask(t *testing.T, name string, r guest.Request) guest.Report {
	t.Helper()
	got, err := b.AskVM(limited(t), name, r)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// connect starts TCP connections between the machine that moves and both others.
func (b *vmBench) connect(t *testing.T) {
	t.Helper()
	for _, name := range []string{mover, stayer} {
		b.ask(t, name, guest.Request{Do: guest.Echo, Port: echoPort})
	}
	var err error
	if b.echo, err = probe.StartEcho(context.Background(), b.peer.ns, echoPort); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.echo.Close)
	b.connected = true
	if b.session, err = probe.StartSession(limited(t), b.peer.ns, b.addr[mover], echoPort, sessionInterval); err != nil {
		t.Fatal(err)
	}
	for name, addr := range map[string]netip.Addr{"TCP to the workload": b.peer.v4(), "TCP to the other machine": b.addr[stayer]} {
		b.ask(t, mover, guest.Request{Do: guest.Session, Name: name, Address: netip.AddrPortFrom(addr, echoPort), Interval: sessionInterval})
	}
}

// toPeer and toOther are the names of the present round's streams between the machine that moves and the workload, and the other machine.
func (b *vmBench) toPeer() string  { return fmt.Sprintf("peer-%d", b.round) }
func (b *vmBench) toOther() string { return fmt.Sprintf("other-%d", b.round) }

// number starts a round of numbered datagrams between the machine that moves and both others, both ways.
func (b *vmBench) number(t *testing.T) {
	t.Helper()
	b.round++
	port, tag := sequencePort+2*b.round, probe.NewSequenceTag()
	to := func(a netip.Addr, port int) netip.AddrPort { return netip.AddrPortFrom(a, uint16(port)) }
	for _, name := range []string{mover, stayer} {
		b.ask(t, name, guest.Request{Do: guest.Receive, Name: b.toOther(), Port: port + 1, Tag: tag})
	}
	b.ask(t, mover, guest.Request{Do: guest.Receive, Name: b.toPeer(), Port: port, Tag: tag})
	var err error
	if b.out, err = probe.StartSequenceReceiver(context.Background(), b.peer.ns, false, port, tag); err != nil {
		t.Fatal(err)
	}
	out := b.out
	t.Cleanup(func() { out.Stop() })
	if b.in, err = probe.StartSequenceSender(context.Background(), b.peer.ns, to(b.addr[mover], port), vmRate, tag); err != nil {
		t.Fatal(err)
	}
	b.inStopped = false
	b.ask(t, mover, guest.Request{Do: guest.Send, Name: b.toPeer(), Address: to(b.peer.v4(), port), Rate: vmRate, Tag: tag})
	b.ask(t, mover, guest.Request{Do: guest.Send, Name: b.toOther(), Address: to(b.addr[stayer], port+1), Rate: vmOtherRate, Tag: tag})
	b.ask(t, stayer, guest.Request{Do: guest.Send, Name: b.toOther(), Address: to(b.addr[mover], port+1), Rate: vmOtherRate, Tag: tag})
}

// hush ends a round's sending; what was received stays to be asked for.
func (b *vmBench) hush(t *testing.T) {
	t.Helper()
	b.stopIn()
	for name, streams := range map[string][]string{mover: {b.toPeer(), b.toOther()}, stayer: {b.toOther()}} {
		for _, s := range streams {
			b.ask(t, name, guest.Request{Do: guest.Stop, Name: s})
		}
	}
}

func (b *vmBench) stopIn() {
	if b.in != nil && !b.inStopped {
		b.in.Stop()
		b.inStopped = true
	}
}

// vmTraffic is what all ends have counted.
type vmTraffic struct {
	mover, stayer guest.Report
	out           probe.SequenceResult
	session       probe.SessionResult
}

func (b *vmBench) count(t *testing.T) vmTraffic {
	t.Helper()
	return vmTraffic{mover: b.ask(t, mover, guest.Request{Do: guest.Tell}), stayer: b.ask(t, stayer, guest.Request{Do: guest.Tell}), out: b.out.Result(), session: b.session.Result()}
}

// goesOn waits until every stream and every connection has made progress.
func (b *vmBench) goesOn(t *testing.T, where string) (now vmTraffic) {
	t.Helper()
	was := b.count(t)
	eventually(t, "every stream and connection goes on "+where, func() (bool, string) {
		now = b.count(t)
		ok := now.out.Received > was.out.Received+100
		for _, name := range []string{b.toPeer(), b.toOther()} {
			ok = ok && now.mover.Receivers[name].Received > was.mover.Receivers[name].Received+50
		}
		if b.connected {
			ok = ok && now.session.Exchanges > was.session.Exchanges+5
			for name := range was.mover.Sessions {
				ok = ok && now.mover.Sessions[name].Exchanges > was.mover.Sessions[name].Exchanges+5
			}
		}
		return ok && now.stayer.Receivers[b.toOther()].Received > was.stayer.Receivers[b.toOther()].Received+50, fmt.Sprintf("%+v", now)
	})
	return now
}

// vmSample is what one migration did.
type vmSample struct {
	lab.VMMigration
	// in, out and other are the streams from the workload, to it, and to the other machine; sessions are the connections' longest waits for an answer.
	in, out, other probe.SequenceResult
}

// excess is how long a stream to the machine was dark beyond QEMU's downtime: between the sendings of the last datagram that came before the
// pause and the first behind it, by the workload's clock.
func (s vmSample) excess() time.Duration { return s.in.LongestSilence - s.Downtime }

// outwards is how long streams from the machine were dark. Their sender stands still while the machine does, and its clock with it: this is all
// beyond the downtime.
func (s vmSample) outwards() time.Duration {
	return max(s.out.LongestSilence, s.other.LongestSilence)
}

func (s vmSample) String() string {
	return fmt.Sprintf("%s; to the machine dark for %.1f ms (%d datagrams), %.1f ms more than QEMU's downtime; from it to the workload %.1f ms (%d), to the other machine %.1f ms (%d)",
		s.VMMigration, ms(s.in.LongestSilence), s.in.LongestRun, ms(s.excess()), ms(s.out.LongestSilence), s.out.LongestRun, ms(s.other.LongestSilence), s.other.LongestRun)
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// by turns: the first frame commits a move, then an event.
func by(i int) lab.CommitBy { return []lab.CommitBy{lab.ByFirstFrame, lab.ByEvent}[i%2] }

// migrate moves the machine once, there or back, and waits until all goes on there.
func (b *vmBench) migrate(t *testing.T, commit lab.CommitBy) vmSample {
	t.Helper()
	to := map[string]string{"h1": "h2", "h2": "h1"}[b.at]
	b.forget(t)
	m, err := b.MigrateVM(context.Background(), mover, to, commit)
	if err != nil {
		t.Fatal(err)
	}
	b.at = to
	b.migrations++
	now := b.goesOn(t, "on "+to)
	return vmSample{VMMigration: m, in: now.mover.Receivers[b.toPeer()], out: now.out, other: now.stayer.Receivers[b.toOther()]}
}

func (b *vmBench) forget(t *testing.T) {
	t.Helper()
	b.out.Forget()
	for _, name := range []string{mover, stayer} {
		b.ask(t, name, guest.Request{Do: guest.Forget})
	}
}

// vmDrops are frames that weft dropped: those of ports that were held on h1 and h2, where only one port moves, and all.
type vmDrops struct{ held, all uint64 }

func (b *vmBench) drops(t *testing.T) (d vmDrops) {
	t.Helper()
	res, err := b.api(t).System.ListDrops(limited(t), connect.NewRequest(&weftv1.ListDropsRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range res.Msg.GetDrops() {
		if r.GetSource() != "" { // counted already, without it
			continue
		}
		d.all += r.GetPackets()
		if r.GetReason() == "port_held" && r.GetHost() != "h3" {
			d.held += r.GetPackets()
		}
	}
	return d
}

// vmBooks are what guest, workload and weft counted about the machine that moves.
type vmBooks struct {
	guest netdev.Stats
	port  *weftv1.PortCounters
	drops vmDrops
	// sentTo the machine, and came to it: numbered datagrams of the present round.
	sentTo, came uint64
}

func (b *vmBench) readBooks(t *testing.T) (k vmBooks) {
	t.Helper()
	res, err := b.api(t).Ports.GetPort(limited(t), connect.NewRequest(&weftv1.GetPortRequest{Tenant: "vm", Name: mover}))
	if err != nil {
		t.Fatal(err)
	}
	now := b.count(t)
	k = vmBooks{guest: now.mover.Interface, port: res.Msg.GetStatus().GetCounters(), drops: b.drops(t)}
	k.drops.held -= b.before.held
	k.sentTo = b.in.Result().Sent + now.stayer.Senders[b.toOther()].Sent
	k.came = now.mover.Receivers[b.toPeer()].Received + now.mover.Receivers[b.toOther()].Received
	return k
}

// lacking are frames that the port's counters lack: what the guest sent and QEMU announced, less what weft counted.
func (k vmBooks) lacking(migrations uint64) uint64 {
	return k.guest.TxPackets + qemu.AnnounceRounds*migrations - k.port.GetEgressPackets()
}

// quietBooks waits until nothing is on the way and every host has reported since: what weft counted from the machine, and what it dropped while
// the port was held, are the frames that the guest sent and QEMU's announcements of it. A host's older report may lack the last datagrams both ways,
// and what was dropped on their way to the machine while it was held hides it.
func (b *vmBench) quietBooks(t *testing.T) (k vmBooks) {
	t.Helper()
	var quiet time.Time
	eventually(t, "what the port sent and what was dropped is what the guest sent and QEMU announced", func() (bool, string) {
		reported := !quiet.IsZero() && b.reportedSince(t, quiet.Add(time.Second)) // a report may be under way
		was := k
		if k = b.readBooks(t); k.guest != was.guest {
			quiet, reported = time.Now(), false
		}
		return reported && k.lacking(b.migrations) <= k.drops.held,
			fmt.Sprintf("quiet since %s, all hosts reported after that: %t; %d frames sent and %d dropped of %d + %d x %d", quiet, reported, k.port.GetEgressPackets(), k.drops.held, k.guest.TxPackets, qemu.AnnounceRounds, b.migrations)
	})
	return k
}

// reportedSince: the server has heard every host after a time.
func (b *vmBench) reportedSince(t *testing.T, at time.Time) bool {
	t.Helper()
	res, err := b.api(t).Hosts.ListHosts(limited(t), connect.NewRequest(&weftv1.ListHostsRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	return !slices.ContainsFunc(res.Msg.GetHosts(), func(h *weftv1.Host) bool { return h.GetStatus().GetLastSeen().AsTime().Before(at) })
}

// ledger migrates with nothing but numbered datagrams, and checks the port's counters to the octet. What they lack of what the guest and QEMU sent
// are datagrams and announcements that were dropped while the port was held, nothing else. What they have beside what the guest received
// are datagrams that went into a TAP device whose machine stood still, nothing else, and each of those was missed by its number.
func (b *vmBench) ledger(t *testing.T, migrations int) string {
	t.Helper()
	b.hush(t)
	was := b.quietBooks(t)
	b.number(t)
	b.goesOn(t, "with nothing else")
	earlier := b.migrations
	for i := range migrations {
		t.Log(b.migrate(t, by(i)))
	}
	b.hush(t)
	b.once(t)
	now := b.quietBooks(t)
	announced := uint64(migrations * qemu.AnnounceRounds)

	// From the machine: the lacking frames are datagrams and announcements; how many of each, their octets tell.
	sent, counted := now.guest.TxOctets-was.guest.TxOctets+announced*vmAnnounce, now.port.GetEgressOctets()-was.port.GetEgressOctets()
	frames, octets := now.lacking(b.migrations)-was.lacking(earlier), sent-counted
	announcements, odd := (frames*vmFrame-octets)/(vmFrame-vmAnnounce), (frames*vmFrame-octets)%(vmFrame-vmAnnounce)
	if frames > now.drops.held-was.drops.held || octets > frames*vmFrame || odd != 0 || announcements > min(frames, announced) {
		t.Errorf("from the machine: weft counted %d octets, guest and QEMU %d; that is not for %d frames that were held", counted, sent, frames)
	}
	// To the machine: what it did not get of what weft counted are datagrams, and announcements of it that the target flooded to the source before that
	// had held its copy.
	got, delivered := now.guest.RxOctets-was.guest.RxOctets, now.port.GetIngressOctets()-was.port.GetIngressOctets()
	still := now.port.GetIngressPackets() - was.port.GetIngressPackets() - (now.guest.RxPackets - was.guest.RxPackets)
	back, rest := (still*vmFrame-(delivered-got))/(vmFrame-vmAnnounce), (still*vmFrame-(delivered-got))%(vmFrame-vmAnnounce)
	if delivered-got > still*vmFrame || rest != 0 || back > min(still, announced) {
		t.Errorf("to the machine: weft counted %d octets, the guest %d; that is not for %d frames to a machine that stood still", delivered, got, still)
	}
	dropped := now.drops.all - was.drops.all
	if lost := now.sentTo - now.came; lost < still-back || lost > still+dropped {
		t.Errorf("%d datagrams to the machine did not come; %d frames went to a machine that stood still, and %d frames were dropped", lost, still, dropped)
	}
	return fmt.Sprintf("%d migrations with datagrams alone: from the machine %d octets counted by weft and %d by guest and QEMU, the difference is %d frames that were held (%d of them announcements); "+
		"to it %d octets counted by weft and %d by the guest, the difference is %d frames to a machine that stood still (%d of them its own announcements)", migrations, counted, sent, frames, announcements, delivered, got, still, back)
}

// TestVMMigrates is "a phone number that follows its owner", with a real machine: it goes back and forth between two hosts while numbered datagrams
// run both ways between it and a workload, and it and another machine, and TCP connections from and to it. Nothing comes twice, no
// connection ends, and the port's counters say to the octet what guest and workload counted. Twenty migrations with -soak, which also judges
// how long the streams were dark.
//
// Red when the server's counts leave out settled.Sum: what the port counted on hosts that it has left is gone.
func TestVMMigrates(t *testing.T) {
	b := newVMBench(t)
	b.connect(t)
	b.number(t)
	b.goesOn(t, "before")
	migrations, ledger := 2, 1
	if *soak {
		migrations, ledger = 20, 4
	}
	var samples []vmSample
	for i := range migrations {
		samples = append(samples, b.migrate(t, by(i)))
		t.Log(samples[i])
	}
	b.once(t)
	b.endSessions(t)
	books := b.ledger(t, ledger)
	t.Log(books)
	if *soak {
		judgeMigrations(t, samples)
	}
	if *migrationLog != "" {
		b.writeMigrations(t, samples, books)
	}
}

// endSessions ends the TCP connections, none of which may have ended by itself.
func (b *vmBench) endSessions(t *testing.T) {
	t.Helper()
	b.connected = false
	if r := b.session.Stop(); r.Err != nil {
		b.ended++
		t.Errorf("the workload's TCP connection to the machine ended: %v", r.Err)
	}
	for name := range b.ask(t, mover, guest.Request{Do: guest.Tell}).Sessions {
		if r := b.ask(t, mover, guest.Request{Do: guest.Stop, Name: name}).Sessions[name]; r.Error != "" || r.Exchanges == 0 {
			b.ended++
			t.Errorf("the machine's %s: %+v", name, r)
		}
	}
}

// once wants that nothing has come twice in this round.
func (b *vmBench) once(t *testing.T) {
	t.Helper()
	now := b.count(t)
	for name, r := range map[string]probe.SequenceResult{"the workload": now.out, "the machine from the workload": now.mover.Receivers[b.toPeer()],
		"the machine from the other": now.mover.Receivers[b.toOther()], "the other machine": now.stayer.Receivers[b.toOther()]} {
		b.reordered += r.Reordered
		b.twice += r.Duplicated
		if r.Duplicated > 0 {
			t.Errorf("%d datagrams came twice to %s: %+v", r.Duplicated, name, r)
		}
	}
}

// judgeMigrations wants nine of ten migrations to be dark for no longer than is allowed beyond QEMU's own downtime.
func judgeMigrations(t *testing.T, samples []vmSample) {
	t.Helper()
	for name, of := range map[string]func(vmSample) time.Duration{"to": vmSample.excess, "from": vmSample.outwards} {
		if p90 := percentile(samples, of, 90); p90 > vmExcess {
			t.Errorf("streams %s the machine were dark for %s beyond QEMU's downtime at p90, and not at most %s", name, p90, vmExcess)
		}
	}
}

// percentile by nearest rank.
func percentile(samples []vmSample, of func(vmSample) time.Duration, p int) time.Duration {
	var all []time.Duration
	for _, s := range samples {
		all = append(all, of(s))
	}
	slices.Sort(all)
	return all[(len(all)*p+99)/100-1]
}

// writeMigrations records a run for those who were not there.
func (b *vmBench) writeMigrations(t *testing.T, samples []vmSample, books string) {
	t.Helper()
	var text strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&text, format+"\n", args...) }
	line("TestVMMigrates, %s", time.Now().UTC().Format(time.RFC3339))
	line("commit:  %s", *what)
	line("machine: %d CPUs, Linux %s, QEMU with software emulation", runtime.NumCPU(), kernelRelease())
	line("load:    %s; this ran with %s", loadAverage(), scheduling(t))
	line("traffic: %d datagrams/s between the machine and a workload and %d/s between it and another machine, each way; 3 TCP connections", vmRate, vmOtherRate)
	line("")
	for _, s := range samples {
		line("%s", s)
	}
	line("")
	for _, of := range []struct {
		name string
		f    func(vmSample) time.Duration
	}{{"QEMU's downtime", func(s vmSample) time.Duration { return s.Downtime }}, {"to the machine, beyond QEMU's downtime", vmSample.excess},
		{"to the machine, beyond its stop and resumption", func(s vmSample) time.Duration { return s.in.LongestSilence - s.Resumed.Sub(s.Stopped) }},
		{"from the machine, beyond its pause", vmSample.outwards},
		{"from the commit until the source forwarded", func(s vmSample) time.Duration { return s.Move.GetDarkTime().AsDuration() }}} {
		line("%-48s p50 %.1f ms, p90 %.1f ms, longest %.1f ms", of.name+":", ms(percentile(samples, of.f, 50)), ms(percentile(samples, of.f, 90)), ms(percentile(samples, of.f, 100)))
	}
	line("datagrams that came twice: %d; in another order: %d; TCP connections ended: %d of 3", b.twice, b.reordered, b.ended)
	line("books: %s", books)
	line("result: %s", map[bool]string{false: "passed", true: "FAILED"}[t.Failed()])
	if err := os.WriteFile(*migrationLog, []byte(text.String()), 0o644); err != nil {
		t.Error(err)
	}
}

// scheduling is the policy of this process and all that it starts: a busy machine that takes the CPU away from guests, hypervisors and agents
// measures itself.
func scheduling(t *testing.T) string {
	t.Helper()
	a, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if a.Policy == unix.SCHED_NORMAL {
		return "no priority"
	}
	return fmt.Sprintf("real-time priority %d (chrt)", a.Priority)
}
