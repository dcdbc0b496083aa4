package agent

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/weftnet/weft/wire"
)

// A host proves its own kernel lane with the help of its peers, over the OAM network:
//
//	this host                                   peer
//	   | -- ask, native ------------------------> |
//	   | <- one small frame, to the kernel lane - |
//	   | <- a GSO burst, to the kernel lane ----- |
//	   | <- answer, native ---------------------- |
//
// An answer without the others means that something between uplink and vxlan device, nearly always the host's firewall,
// drops tunnel packets that are not stripped by weft's own programs: pings pass and TCP crawls.
const (
	probeMagic   = "weft-oam"
	probeUDPPort = 4789 // inside the OAM network; any would do
	// A burst is segments of segmentOctets; each begins with the probe's head, so that they count whether or not they
	// were put together again.
	burstSegments = 10
	segmentOctets = 1000
	// probeWait is for the answer and what belongs to it; probeTries rules out a lost packet.
	probeWait  = 400 * time.Millisecond
	probeTries = 3
	// mostAsked bounds the peers that are asked in one round; every round takes others.
	mostAsked = 16
	// mostAnswers a second are sent to peers.
	mostAnswers = 200
)

type probeKind byte

const (
	probeAsk probeKind = iota + 1
	probeSmall
	probeBurst
	probeAnswer
	// Of the watch, see silence.go.
	probeHail
	probeEcho
	// probeClaim and probeClaimed: see claim.go.
	probeClaim
	probeClaimed
	// probeGroup: see group_watch.go.
	probeGroup
)

// head is what every probe begins with.
type head struct {
	kind  probeKind
	nonce uint64
}

const headOctets = len(probeMagic) + 1 + 8

func (h head) append(b []byte) []byte {
	b = append(append(b, probeMagic...), byte(h.kind))
	return binary.BigEndian.AppendUint64(b, h.nonce)
}

func parseHead(b []byte) (head, bool) {
	if len(b) < headOctets || string(b[:len(probeMagic)]) != probeMagic {
		return head{}, false
	}
	b = b[len(probeMagic):]
	return head{kind: probeKind(b[0]), nonce: binary.BigEndian.Uint64(b[1:])}, true
}

// probeSocket sends and receives Ethernet frames on the OAM network. Receive blocks until Close.
type probeSocket interface {
	// Send sends a frame; segment is 0, or the octets of payload in each segment of a TCP packet that is to be cut.
	Send(frame []byte, segment int) error
	Receive() ([]byte, error)
	Close() error
}

// peer is another host as the prober knows it.
type peer struct {
	// uid is the VTEP's.
	uid, name string
	addr      netip.Addr
}

// Prober owns the OAM socket. Run asks in rounds, and answers whoever asks.
type Prober struct {
	socket probeSocket
	every  time.Duration
	log    *slog.Logger
	// verdict is told after every round that learned something; "" is all well. It may block.
	verdict func(ctx context.Context, blocked string)
	// suspect names what may be to blame.
	suspect func() string

	hurry chan struct{}
	mu    sync.Mutex
	self  netip.Addr
	peers map[wire.MAC]peer // by native MAC
	asked map[uint64]*asked
	// fresh are peers that were never asked.
	fresh map[wire.MAC]bool

	answers int
	second  int64

	watch *Watch
	// found is told what the watch found, when it changes. It may block.
	found      func(context.Context, finding)
	echoes     int
	echoSecond int64
	// ping asks a host itself; its answer comes to watch.answers.
	ping func(addr netip.Addr, nonce uint64) error
	// pings is the socket by which it does, if it has one.
	pings *pinger

	claims claims

	groups *GroupWatch
	// regroup has the watch told of other groups, if there are. changed is told when somebody is missed, or no longer. They may block.
	regroup, changed func(context.Context)
}

// asked is a question that is under way.
type asked struct {
	peer            peer
	answered, small bool
	burst           int
	done            chan struct{}
	closed          bool
}

func (q *asked) complete() bool {
	return q.answered && q.small && q.burst >= burstSegments*segmentOctets
}

// NewProber makes one that knows no peers.
func NewProber(s probeSocket, every time.Duration, suspect func() string, verdict func(context.Context, string), log *slog.Logger) *Prober {
	return &Prober{
		socket: s, every: every, log: log, verdict: verdict, suspect: suspect, hurry: make(chan struct{}, 1),
		peers: map[wire.MAC]peer{}, asked: map[uint64]*asked{}, fresh: map[wire.MAC]bool{},
		watch: newWatch(), found: func(context.Context, finding) {}, ping: func(netip.Addr, uint64) error { return nil },
		groups: newGroupWatch(), regroup: func(context.Context) {}, changed: func(context.Context) {},
	}
}

// usePings has hosts whose agents are silent asked by ICMP.
func (p *Prober) usePings() {
	p.pings = &pinger{answered: func(from netip.Addr, nonce uint64) { p.watch.answers(from, nonce, time.Now()) }}
	p.ping = func(addr netip.Addr, nonce uint64) error {
		p.mu.Lock()
		self := p.self
		p.mu.Unlock()
		return p.pings.ask(self, addr, nonce)
	}
}

// SetPeers says who there is; a new peer is asked at once. uid is that of the host's own VTEP, self its address.
func (p *Prober) SetPeers(uid string, self netip.Addr, peers map[wire.MAC]peer) {
	p.watch.SetPeers(uid, peers, time.Now())
	p.mu.Lock()
	news := p.self != self
	p.self = self
	for mac, who := range peers {
		if p.peers[mac] != who {
			p.fresh[mac], news = true, true
		}
	}
	for mac := range p.fresh {
		if _, ok := peers[mac]; !ok {
			delete(p.fresh, mac)
		}
	}
	p.peers = maps.Clone(peers)
	p.mu.Unlock()
	if news {
		p.Hurry()
	}
}

// Hurry starts a round now, or after the one under way. It never blocks.
func (p *Prober) Hurry() {
	select {
	case p.hurry <- struct{}{}:
	default:
	}
}

// Run asks and answers until the context ends.
func (p *Prober) Run(ctx context.Context) {
	var reader sync.WaitGroup
	reader.Go(p.read)
	reader.Go(func() { p.watchAll(ctx) })
	reader.Go(func() { p.probeGroups(ctx) })
	if p.pings != nil {
		defer p.pings.close()
	}
	defer reader.Wait()
	defer p.socket.Close()
	ticker := time.NewTicker(p.every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-p.hurry:
		}
		p.round(ctx)
	}
}

// round asks some peers, up to probeTries times, and tells the verdict.
func (p *Prober) round(ctx context.Context) {
	todo := p.choose()
	heard := false
	bad := map[wire.MAC]*asked{} // no answer changes nothing of what is known of a peer
	for range probeTries {
		for _, q := range p.ask(ctx, todo) {
			mac := oamMAC(q.peer.addr, nativeLane)
			switch {
			case q.complete():
				heard = true
				delete(bad, mac)
			case q.answered:
				heard = true
				bad[mac] = q
			}
		}
		if ctx.Err() != nil {
			return
		}
		if len(bad) == 0 {
			break
		}
		todo = map[wire.MAC]peer{}
		for mac, q := range bad {
			todo[mac] = q.peer
		}
	}
	if !heard {
		return // nobody answered: that says nothing of the kernel lane
	}
	p.verdict(ctx, p.words(bad))
}

func (p *Prober) words(bad map[wire.MAC]*asked) string {
	if len(bad) == 0 {
		return ""
	}
	var lost []string
	for _, q := range bad {
		if q.small {
			lost = append(lost, fmt.Sprintf("of a GSO burst from %s (%s) %d of %d octets arrived", q.peer.name, q.peer.addr, q.burst, burstSegments*segmentOctets))
		} else {
			lost = append(lost, fmt.Sprintf("nothing from %s (%s) passes it", q.peer.name, q.peer.addr))
		}
	}
	slices.Sort(lost)
	if len(lost) > 3 {
		lost = append(lost[:3], fmt.Sprintf("and from %d more", len(lost)-3))
	}
	s := "kernel lane blocked: " + strings.Join(lost, ", ")
	if by := p.suspect(); by != "" {
		return s + ": " + by
	}
	return s + "; look for a firewall rule that drops the tunnel's UDP port"
}

// choose takes the peers that were never asked, and others by chance.
func (p *Prober) choose() map[wire.MAC]peer {
	p.mu.Lock()
	defer p.mu.Unlock()
	chosen := map[wire.MAC]peer{}
	for mac := range p.fresh {
		if len(chosen) < mostAsked {
			chosen[mac] = p.peers[mac]
			delete(p.fresh, mac)
		}
	}
	if len(p.fresh) > 0 {
		p.Hurry()
	}
	all := slices.Collect(maps.Keys(p.peers))
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for _, mac := range all {
		if len(chosen) < mostAsked {
			chosen[mac] = p.peers[mac]
		}
	}
	return chosen
}

// ask asks these peers once and waits for what comes.
func (p *Prober) ask(ctx context.Context, peers map[wire.MAC]peer) []*asked {
	var list []*asked
	var nonces []uint64
	for mac, who := range peers {
		q := &asked{peer: who, done: make(chan struct{})}
		nonce := rand.Uint64()
		p.mu.Lock()
		p.asked[nonce] = q
		p.mu.Unlock()
		list, nonces = append(list, q), append(nonces, nonce)
		if err := p.small(mac, head{probeAsk, nonce}); err != nil {
			p.log.Debug("a probe was not sent", "vtep", who.addr, "err", err)
		}
	}
	timer := time.NewTimer(probeWait)
	defer timer.Stop()
wait:
	for _, q := range list {
		select {
		case <-q.done:
		case <-timer.C:
			break wait
		case <-ctx.Done():
			break wait
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, nonce := range nonces {
		delete(p.asked, nonce)
	}
	return list
}

// read takes in what comes until the socket is closed.
func (p *Prober) read() {
	for {
		frame, err := p.socket.Receive()
		if err != nil {
			return
		}
		f, err := wire.ParseFrame(frame)
		if err != nil {
			continue
		}
		h, ok := parseHead(f.Payload)
		if !ok {
			continue
		}
		switch h.kind {
		case probeAsk:
			p.answer(f.Src, h.nonce)
		case probeHail:
			p.echo(f.Src, h.nonce)
		case probeEcho:
			p.watch.hear(f.Src, h.nonce, time.Now())
		case probeClaim, probeClaimed:
			p.hearClaim(h, f.Src, f.Payload[headOctets:])
		case probeGroup:
			p.hearGroup(f.Src, f.Payload[headOctets:], time.Now())
		default:
			p.hear(h, len(f.Payload))
		}
	}
}

func (p *Prober) hear(h head, octets int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.asked[h.nonce]
	if q == nil {
		return
	}
	switch h.kind {
	case probeAnswer:
		q.answered = true
	case probeSmall:
		q.small = true
	case probeBurst:
		q.burst += octets
	}
	if q.complete() && !q.closed {
		q.closed = true
		close(q.done)
	}
}

// answer does what a peer asks for, the answer last.
func (p *Prober) answer(to wire.MAC, nonce uint64) {
	p.mu.Lock()
	_, known := p.peers[to]
	if now := time.Now().Unix(); now != p.second {
		p.second, p.answers = now, 0
	}
	p.answers++
	known = known && p.answers <= mostAnswers
	p.mu.Unlock()
	if !known {
		return
	}
	kernel := to
	kernel[5] |= byte(kernelLane)
	err := p.small(kernel, head{probeSmall, nonce})
	if err == nil {
		err = p.burst(kernel, nonce)
	}
	if err == nil {
		err = p.small(to, head{probeAnswer, nonce})
	}
	if err != nil {
		p.log.Debug("a peer's probe was not answered", "err", err)
	}
}

// The addresses inside probes are link-local and nobody's: only MACs count in the OAM network.
var probeFrom, probeTo = netip.MustParseAddr("169.254.77.1"), netip.MustParseAddr("169.254.77.2")

func (p *Prober) flow(to wire.MAC) wire.Flow {
	p.mu.Lock()
	defer p.mu.Unlock()
	return wire.Flow{SrcMAC: oamMAC(p.self, nativeLane), DstMAC: to, Src: probeFrom, Dst: probeTo, DF: true}
}

func (p *Prober) small(to wire.MAC, h head) error {
	return p.socket.Send(p.flow(to).UDP(probePort(h), probeUDPPort, h.append(nil)), 0)
}

func (p *Prober) burst(to wire.MAC, nonce uint64) error {
	h := head{probeBurst, nonce}
	payload := make([]byte, 0, burstSegments*segmentOctets)
	for i := range burstSegments {
		payload = h.append(payload)
		payload = append(payload, make([]byte, (i+1)*segmentOctets-len(payload))...)
	}
	tcp := wire.TCP{Src: probePort(h), Dst: probeUDPPort, Seq: uint32(nonce), Ack: 1, Flags: wire.ACK, Window: 65535}
	return p.socket.Send(p.flow(to).TCP(tcp, payload), segmentOctets)
}

// probePort spreads probes over the underlay's paths.
func probePort(h head) uint16 { return 49152 + uint16(h.nonce%16384) }

// startProbes makes the OAM interface and the prober.
func (a *Agent) startProbes(ctx context.Context, tasks *sync.WaitGroup) error {
	// Neither end has one of the OAM MACs, so that the host's own stack takes no probe for its own.
	near, err := a.links.MakeOAM(wire.MAC{0x02, 0x6f, 0x77, 0, 0, 2}, wire.MAC{0x02, 0x6f, 0x77, 0, 0, 3}, innerMTU(a.uplink.local))
	if err != nil {
		return fmt.Errorf("make the probes' interface: %w", err)
	}
	far, err := a.links.Link(oamSocket)
	if err != nil {
		return err
	}
	s, err := openProbeSocket(far.Index)
	if err != nil {
		return fmt.Errorf("open the probes' socket: %w", err)
	}
	suspect := func() string { return (&wall{port: a.cfg.UDPPort}).suspect() }
	a.useProbes(s, near.Index, suspect)
	a.prober.usePings()
	tasks.Go(func() { a.prober.Run(ctx) })
	return nil
}

// useProbes makes the prober on a socket, whose other end carries programs.
func (a *Agent) useProbes(s probeSocket, near int, suspect func() string) {
	a.rec.SetOAM(uint32(near))
	a.prober = NewProber(s, a.cfg.ProbeEvery, suspect, func(ctx context.Context, blocked string) {
		// The context ends with the agent.
		_ = a.do(ctx, func() { a.setCondition("degraded", blocked) })
	}, a.log)
	a.prober.found = func(ctx context.Context, f finding) { _ = a.do(ctx, func() { a.foundSilent(f) }) }
	a.prober.claims.believe = a.flipper.believe
	a.prober.regroup = func(ctx context.Context) { _ = a.do(ctx, a.tellGroups) }
	a.prober.changed = func(ctx context.Context) { _ = a.do(ctx, func() { a.reportAt = time.Now() }) }
}

// renewOAM follows a changed address or MTU of the tunnel's end.
func (a *Agent) renewOAM() {
	if a.prober == nil {
		return
	}
	near, err := a.links.MakeOAM(wire.MAC{0x02, 0x6f, 0x77, 0, 0, 2}, wire.MAC{0x02, 0x6f, 0x77, 0, 0, 3}, innerMTU(a.uplink.local))
	if err != nil {
		a.log.Warn("the probes' interface could not be changed", "err", err)
		return
	}
	a.rec.SetOAM(uint32(near.Index))
}

// tellProber says which hosts there are, when the reconciler has written them.
func (a *Agent) tellProber() {
	if a.prober == nil || !a.rec.oam.changed {
		return
	}
	a.rec.oam.changed = false
	peers := map[wire.MAC]peer{}
	for mac, uid := range a.rec.oam.peers {
		v := a.rec.view.vteps[uid]
		if addr, ok := a.rec.target(v); ok && mac == oamMAC(addr, nativeLane) {
			peers[mac] = peer{uid: uid, name: v.name, addr: addr}
		}
	}
	a.prober.SetPeers(a.ownVTEP(), a.rec.oam.self, peers)
}
