package agent

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/wire"
)

// A dead VTEP is noticed by a few other hosts, not by all. The hosts of the plan form a ring, in the order of their VTEPs' uids, and each
// watches the next ones after itself, over the OAM network:
//
//	watcher                              watched
//	   | -- hail, native, every 200 ms ---> |
//	   | <- echo, native ------------------ |
//
// An agent that is away is not a host that is away: the datapath forwards without it. So before a VTEP is called silent, the host itself is asked,
// by ICMP echo (ping.go), which its kernel answers, and the report says whether it did.
//
// So a host sends and answers the same few frames a second in a fleet of a thousand as in one of five. Who hears none of those that it
// watches asks the ones before it in the ring too: only a host that hears somebody says of others that they are silent. One that hears nobody
// has its own uplink to suspect.
const (
	// mostWatched is how many hosts each host watches, and so by how many each is watched.
	mostWatched = 4
	hailEvery   = 200 * time.Millisecond
	// silentAfter is the time without an echo after which a VTEP is reported: three hails in a row, and the way of the last.
	silentAfter = 700 * time.Millisecond
	// witnessAfter is the time without any echo after which others are asked, and without one of a host after which that host itself is; they have
	// the rest of silentAfter to answer.
	witnessAfter = 350 * time.Millisecond
	// mostEchoes a second are sent: five to each that watches, and to each that looks for a witness, come to 40.
	mostEchoes = 200
)

// watched is a VTEP that is watched.
type watched struct {
	uid, name string
	addr      netip.Addr
	// heard: it has answered since it is watched. One that never did may run a version that does not, and is not reported.
	heard bool
	// at is its last echo, to the hail of that nonce.
	at     time.Time
	nonce  uint64
	silent bool
	// answered is when the host itself last did, asked or not; there: it did so lately.
	answered time.Time
	there    bool
}

// Watch finds out which VTEPs are silent. It sends nothing itself: tick says whom to hail.
type Watch struct {
	mu sync.Mutex
	// watched are the next hosts in the ring, witnesses those before.
	watched, witnesses map[wire.MAC]*watched
	// nonce counts ticks, from a number that nobody else can know.
	nonce uint64
	// echo is the last one from anybody, echoed the last hail that anybody answered; since is when silence began to mean something: who was not asked
	// has not been silent.
	echo, since, ticked time.Time
	echoed              uint64
	deaf                bool
}

func newWatch() *Watch {
	n := rand.Uint64()
	return &Watch{nonce: n, echoed: n}
}

// SetPeers says who else there is; self is the uid of the host's own VTEP.
func (w *Watch) SetPeers(self string, peers map[wire.MAC]peer, now time.Time) {
	ring := make([]wire.MAC, 0, len(peers))
	for mac := range peers {
		if mac[5]&1 == byte(nativeLane) {
			ring = append(ring, mac)
		}
	}
	slices.SortFunc(ring, func(a, b wire.MAC) int { return cmp.Compare(peers[a].uid, peers[b].uid) })
	next, _ := slices.BinarySearchFunc(ring, self, func(mac wire.MAC, uid string) int { return cmp.Compare(peers[mac].uid, uid) })
	ring = slices.Concat(ring[next:], ring[:next])
	w.mu.Lock()
	defer w.mu.Unlock()
	known := w.watched
	pick := func(list []wire.MAC) map[wire.MAC]*watched {
		chosen := map[wire.MAC]*watched{}
		for _, mac := range list {
			t := known[mac]
			if t == nil || t.uid != peers[mac].uid {
				t = &watched{uid: peers[mac].uid, at: now}
			}
			t.name, t.addr = peers[mac].name, peers[mac].addr
			chosen[mac] = t
		}
		return chosen
	}
	n := min(mostWatched, len(ring))
	w.watched = pick(ring[:n])
	w.witnesses = pick(ring[max(n, len(ring)-mostWatched):])
}

// hear takes an echo in.
func (w *Watch) hear(from wire.MAC, nonce uint64, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.watched[from]
	if late := w.nonce - nonce; late > uint64(silentAfter/hailEvery) || t == nil && w.witnesses[from] == nil {
		return
	}
	if w.deaf {
		w.deaf, w.since = false, now // the others begin anew
	}
	w.echo = now
	if int64(nonce-w.echoed) > 0 {
		w.echoed = nonce
	}
	if t != nil {
		t.heard, t.at, t.nonce, t.silent = true, now, nonce, false
	}
}

// answers takes in that a host itself answered.
func (w *Watch) answers(from netip.Addr, nonce uint64, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.nonce-nonce > uint64(silentAfter/hailEvery) {
		return
	}
	for _, t := range w.watched {
		if t.addr == from {
			t.answered = now
		}
	}
}

// finding is what a tick found out.
type finding struct {
	// silent are watched VTEPs that answered and do not any more, in order: when they last did.
	silent []watched
	// deaf: nobody answers, watched or not, though somebody did. asked are how many.
	deaf  bool
	asked int
	// doubtful are the addresses of hosts that are to be asked themselves.
	doubtful []netip.Addr
}

// tick is to be called every hailEvery. It says what is known, and whom to hail now with which number.
func (w *Watch) tick(now time.Time) (found finding, hail []wire.MAC, nonce uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now.Sub(w.ticked) > 2*hailEvery {
		w.since = now // this process stood still, and asked nobody
	}
	w.ticked = now
	quiet := func(last time.Time, limit time.Duration) bool {
		return now.Sub(last) >= limit && now.Sub(w.since) >= limit
	}
	w.deaf = len(w.watched) > 0 && (w.deaf || !w.echo.IsZero() && quiet(w.echo, silentAfter))
	for _, t := range w.watched {
		if t.heard && quiet(t.at, witnessAfter) {
			found.doubtful = append(found.doubtful, t.addr)
		}
		// Somebody must have answered since, and not just one hail more: the last echoes come a little apart, and a host that is cut off between them
		// would accuse who answered first.
		t.silent = !w.deaf && (t.silent || t.heard && quiet(t.at, silentAfter) && int64(w.echoed-t.nonce) >= 2)
		// That of a process which stood still stays until the host had the time to answer again.
		if t.there = now.Sub(t.answered) < silentAfter || t.there && now.Sub(w.since) < silentAfter; t.silent {
			found.silent = append(found.silent, *t)
		}
	}
	slices.SortFunc(found.silent, func(a, b watched) int { return cmp.Compare(a.uid, b.uid) })
	hail = slices.Collect(maps.Keys(w.watched))
	if quiet(w.echo, witnessAfter) {
		hail = slices.AppendSeq(hail, maps.Keys(w.witnesses))
	}
	found.deaf, found.asked = w.deaf, len(hail)
	w.nonce++
	return found, hail, w.nonce
}

// watchAll hails until the context ends, and tells what it finds when that changes.
func (p *Prober) watchAll(ctx context.Context) {
	tick := time.NewTicker(hailEvery)
	defer tick.Stop()
	var told finding
	for {
		found, hail, nonce := p.watch.tick(time.Now())
		for _, mac := range hail {
			if err := p.small(mac, head{probeHail, nonce}); err != nil {
				p.log.Debug("a VTEP was not hailed", "err", err)
			}
		}
		for _, addr := range found.doubtful {
			if err := p.ping(addr, nonce); err != nil {
				p.log.Debug("a host was not asked", "host", addr, "err", err)
			}
		}
		if !found.same(told) {
			told = found
			p.found(ctx, found)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (f finding) same(o finding) bool {
	return f.deaf == o.deaf && slices.EqualFunc(f.silent, o.silent, func(a, b watched) bool {
		return a.uid == b.uid && a.at.Equal(b.at) && a.there == b.there
	})
}

// echo answers a hail, of hosts that are known, and of so many a second.
func (p *Prober) echo(to wire.MAC, nonce uint64) {
	p.mu.Lock()
	_, known := p.peers[to]
	if now := time.Now().Unix(); now != p.echoSecond {
		p.echoSecond, p.echoes = now, 0
	}
	p.echoes++
	known = known && p.echoes <= mostEchoes
	p.mu.Unlock()
	if !known {
		return
	}
	if err := p.small(to, head{probeEcho, nonce}); err != nil {
		p.log.Debug("a hail was not answered", "err", err)
	}
}

// foundSilent takes what the watch found into the loop's state, and says it at once.
func (a *Agent) foundSilent(f finding) {
	was := a.silent
	a.silent = f.silent
	for _, t := range f.silent {
		if !slices.ContainsFunc(was, func(o watched) bool { return o.uid == t.uid }) {
			a.log.Warn("a VTEP is silent", "vtep", t.name, "since", t.at, "its_host_answers", t.there)
		}
	}
	for _, t := range was {
		if !slices.ContainsFunc(f.silent, func(o watched) bool { return o.uid == t.uid }) && !f.deaf {
			a.log.Info("a VTEP is not silent any more", "vtep", t.name)
		}
	}
	deaf := ""
	if f.deaf {
		deaf = fmt.Sprintf("none of %d hosts answers over the tunnel: look whether uplink %s leads anywhere", f.asked, a.uplink.name)
	}
	a.setCondition("deaf", deaf)
	a.reportAt = time.Now()
}

// silentList is what of it a report says.
func (a *Agent) silentList(now time.Time) (list []*planv1.SilentVtep) {
	for _, t := range a.silent {
		list = append(list, &planv1.SilentVtep{Vtep: t.uid, SilentNanoseconds: now.Sub(t.at).Nanoseconds(), HostAnswers: t.there})
	}
	return list
}
