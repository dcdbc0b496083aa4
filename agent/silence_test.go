package agent

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weftnet/weft/internal/testenv"
	"github.com/weftnet/weft/wire"
)

// fleet is hosts that watch each other, in a time of their own.
type fleet struct {
	t     *testing.T
	now   time.Time
	hosts []*watcher
	byMAC map[wire.MAC]*watcher
}

// watcher is one of them.
type watcher struct {
	uid   string
	mac   wire.MAC
	addr  netip.Addr
	watch *Watch
	// phase of its ticks.
	phase time.Duration
	// in and out say whether frames reach it, and whether its own leave it; old is a version that does not know hails; still is an
	// agent that stands still, whose host answers.
	in, out, old, still bool
	found               finding
	// since is when it found that; hails are how many it sent, hailed how many came.
	since         time.Time
	hails, hailed int
	// asked is how often it asked hosts themselves.
	asked int
}

const fleetStep = 10 * time.Millisecond

func newFleet(t *testing.T, n int) *fleet {
	f := &fleet{t: t, now: time.Unix(1_000_000, 0), byMAC: map[wire.MAC]*watcher{}}
	random := rand.New(rand.NewPCG(1, 2))
	peers := map[wire.MAC]peer{}
	for i := range n {
		addr := netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)})
		h := &watcher{uid: fmt.Sprintf("v%04d", i), mac: oamMAC(addr, nativeLane), addr: addr, watch: newWatch(), in: true, out: true,
			phase: time.Duration(random.IntN(int(hailEvery/fleetStep))) * fleetStep}
		f.hosts = append(f.hosts, h)
		f.byMAC[h.mac], peers[h.mac] = h, peer{uid: h.uid, name: h.uid, addr: addr}
	}
	for _, h := range f.hosts {
		own := peers[h.mac]
		delete(peers, h.mac)
		h.watch.SetPeers(h.uid, peers, f.now)
		peers[h.mac] = own
	}
	return f
}

// run lets time pass.
func (f *fleet) run(d time.Duration) {
	for end := f.now.Add(d); f.now.Before(end); f.now = f.now.Add(fleetStep) {
		for _, h := range f.hosts {
			if !h.still && f.now.Add(h.phase).UnixNano()%int64(hailEvery) == 0 {
				f.tick(h)
			}
		}
	}
}

func (f *fleet) tick(h *watcher) {
	found, hail, nonce := h.watch.tick(f.now)
	if !found.same(h.found) {
		h.found, h.since = found, f.now
	}
	h.hails += len(hail)
	for _, addr := range found.doubtful {
		to := f.hosts[slices.IndexFunc(f.hosts, func(o *watcher) bool { return o.addr == addr })]
		if h.asked++; h.out && h.in && to.in && to.out {
			h.watch.answers(addr, nonce, f.now)
		}
	}
	for _, mac := range hail {
		to := f.byMAC[mac]
		if !h.out || !to.in {
			continue
		}
		if to.hailed++; to.old || to.still || !to.out || !h.in {
			continue
		}
		h.watch.hear(to.mac, nonce, f.now)
	}
}

// want wants each host to say that those are silent which the list names, "1:2,3 4:" for two hosts; the others nobody.
func (f *fleet) want(when, list string) {
	f.t.Helper()
	want := map[string]string{}
	for word := range strings.FieldsSeq(list) {
		who, whom, _ := strings.Cut(word, ":")
		want[who] = whom
	}
	for i, h := range f.hosts {
		var said []string
		for _, s := range h.found.silent {
			said = append(said, fmt.Sprint(slices.IndexFunc(f.hosts, func(h *watcher) bool { return h.uid == s.uid })))
		}
		if got := strings.Join(said, ","); got != want[fmt.Sprint(i)] {
			f.t.Errorf("%s: host %d says that %q are silent, not %q", when, i, got, want[fmt.Sprint(i)])
		}
	}
}

// deaf wants these hosts, and no others, to hear nobody.
func (f *fleet) deaf(when string, want ...int) {
	f.t.Helper()
	var got []int
	for i, h := range f.hosts {
		if h.found.deaf {
			got = append(got, i)
		}
	}
	if !slices.Equal(got, want) {
		f.t.Errorf("%s: %v hear nobody, not %v", when, got, want)
	}
}

// within wants all that is said now to have been said within a second.
func (f *fleet) within(when string, began time.Time) {
	f.t.Helper()
	last := slices.MaxFunc(f.hosts, func(a, b *watcher) int { return cmp.Compare(a.since.UnixNano(), b.since.UnixNano()) })
	if took := last.since.Sub(began); took > time.Second {
		f.t.Errorf("%s: noticed after %s", when, took)
	}
}

// TestSilence turns red when a host that is cut off is not noticed within a second by those that watch it, when it accuses others, and
// when one that is back stays accused: silentAfter of two seconds; no w.deaf; t.silent that hear does not take back.
func TestSilence(t *testing.T) {
	f := newFleet(t, 10)
	f.run(2 * time.Second)
	f.want("all is well", "")
	for _, way := range []string{"both ways", "inwards", "outwards"} {
		h := f.hosts[6]
		h.in, h.out = way == "outwards", way == "inwards"
		began := f.now
		f.run(5 * time.Second)
		f.want("cut "+way, "2:6 3:6 4:6 5:6")
		f.deaf("cut "+way, 6)
		f.within("cut "+way, began)
		h.in, h.out = true, true
		f.run(2 * hailEvery)
		f.want("back", "")
		f.deaf("back")
		f.run(5 * time.Second)
		f.want("back for a while", "")
	}
}

// TestSilenceOfNeighbours turns red when a host whose watched hosts are all dead says nothing: no witnesses.
func TestSilenceOfNeighbours(t *testing.T) {
	f := newFleet(t, 10)
	f.run(2 * time.Second)
	began := f.now
	for _, i := range []int{4, 5, 6, 7} {
		f.hosts[i].in, f.hosts[i].out = false, false
	}
	f.run(5 * time.Second)
	f.want("four in a row are dead", "0:4 1:4,5 2:4,5,6 3:4,5,6,7")
	f.deaf("four in a row are dead", 4, 5, 6, 7)
	f.within("four in a row are dead", began)
}

// TestSilenceOfTwo turns red when one of two hosts accuses the other: it cannot know whose uplink it is. And when a host that has nobody left
// to hear complains of it.
func TestSilenceOfTwo(t *testing.T) {
	f := newFleet(t, 2)
	f.run(2 * time.Second)
	f.hosts[1].in, f.hosts[1].out = false, false
	f.run(5 * time.Second)
	f.want("the other is dead", "")
	f.deaf("the other is dead", 0, 1)
	f.hosts[0].watch.SetPeers("v0000", nil, f.now)
	f.run(time.Second)
	f.deaf("the other is removed", 1)
}

// TestSilenceIsNotOurs turns red when a process that stood still takes the time in which it asked nobody for silence, or when a host that never
// answered is reported: no w.since; no t.heard.
func TestSilenceIsNotOurs(t *testing.T) {
	f := newFleet(t, 10)
	f.hosts[9].old = true
	f.run(2 * time.Second)
	f.want("one is of an old version", "")
	f.hosts[0].still = true
	f.run(5 * time.Second)
	f.want("one stands still", "6:0 7:0 8:0 9:0")
	f.hosts[0].still = false
	f.run(hailEvery)
	f.want("it wakes", "6:0 7:0 8:0 9:0")
	f.deaf("it wakes")
	f.run(3 * time.Second)
	f.want("it goes on", "")
	f.deaf("it goes on")
}

// pairOfWatched is a watch of two VTEPs, a and b, which have answered the hail of that time: a at once, b so much later.
func pairOfWatched(at time.Time, later time.Duration) (w *Watch, a, b wire.MAC) {
	w = newWatch()
	peers := map[wire.MAC]peer{}
	for i, mac := range []*wire.MAC{&a, &b} {
		addr := netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})
		*mac = oamMAC(addr, nativeLane)
		peers[*mac] = peer{uid: fmt.Sprint(i), name: fmt.Sprint(i), addr: addr}
	}
	w.SetPeers("self", peers, at)
	_, _, nonce := w.tick(at)
	w.hear(a, nonce, at.Add(time.Millisecond))
	w.hear(b, nonce, at.Add(later))
	return w, a, b
}

// TestCutBetweenTwoEchoes turns red when a host that is cut off after some echoes of a hail accuses, for a moment, who answered first.
func TestCutBetweenTwoEchoes(t *testing.T) {
	for _, later := range []time.Duration{150 * time.Millisecond, 190 * time.Millisecond, 2 * hailEvery} { // the last: b alone answers the next hail, late
		at := time.Unix(1_000_000, 0)
		w, _, b := pairOfWatched(at, min(later, hailEvery))
		deaf, again := false, later > hailEvery
		for end := at.Add(3 * time.Second); at.Before(end); {
			at = at.Add(hailEvery)
			found, _, nonce := w.tick(at)
			if deaf = found.deaf; len(found.silent) > 0 {
				t.Errorf("b %s later: a host that hears nobody says that %v are silent", later, found.silent)
			}
			if again {
				w.hear(b, nonce, at.Add(later-hailEvery))
				again = false
			}
		}
		if !deaf {
			t.Error("it does not say that it hears nobody")
		}
	}
}

// TestAnswersOutliveAStandstill turns red when a process that stood still says, on waking, that a host does not answer which it did not ask meanwhile,
// and when it never says so.
func TestAnswersOutliveAStandstill(t *testing.T) {
	at := time.Unix(1_000_000, 0)
	w, a, b := pairOfWatched(at, 150*time.Millisecond)
	goOn := func(d time.Duration, answers bool) (found finding) {
		for end := at.Add(d); at.Before(end); {
			at = at.Add(hailEvery)
			var nonce uint64
			found, _, nonce = w.tick(at)
			w.hear(b, nonce, at)
			if answers {
				w.answers(w.watched[a].addr, nonce, at)
			}
		}
		return found
	}
	silent := func(when string, found finding, there bool) {
		t.Helper()
		if len(found.silent) != 1 || found.silent[0].there != there {
			t.Errorf("%s: silent are %+v, want one whose host answers: %t", when, found.silent, there)
		}
	}
	silent("the agent is away", goOn(2*time.Second, true), true)
	at = at.Add(5 * time.Second)
	silent("the watcher wakes", goOn(hailEvery, false), true)
	silent("and the host does not answer any more", goOn(2*time.Second, false), false)
}

// TestSilentAgent turns red when a host whose agent alone stands still is called silent without a word that it answers, be it for a moment; when one
// that is cut off is said to answer; when an old or foreign answer counts; and when hosts are asked that are not in doubt.
func TestSilentAgent(t *testing.T) {
	f := newFleet(t, 10)
	f.run(2 * time.Second)
	h, watch := f.hosts[6], f.hosts[5]
	there := func(when string, want bool) {
		t.Helper()
		f.want(when, "2:6 3:6 4:6 5:6")
		for _, o := range f.hosts[2:6] {
			if s := o.found.silent; len(s) == 1 && s[0].there != want {
				t.Errorf("%s: %s says that the host answers: %t", when, o.uid, s[0].there)
			}
		}
	}
	for _, o := range f.hosts {
		if o.asked != 0 {
			t.Fatalf("%s asked %d times, and nobody was in doubt", o.uid, o.asked)
		}
	}
	h.still = true
	began := f.now
	for range int(2 * time.Second / fleetStep) {
		f.run(fleetStep)
		if s := watch.found.silent; len(s) == 1 && !s[0].there {
			t.Fatalf("%s after the agent stood still, its host is said to be silent too", f.now.Sub(began))
		}
	}
	there("its agent stands still", true)
	f.within("its agent stands still", began)

	began = f.now
	h.in, h.out = false, false
	f.run(2 * time.Second)
	there("and then it is cut off", false)
	f.within("and then it is cut off", began)
	watch.watch.answers(h.addr, watch.watch.nonce-100, f.now)
	watch.watch.answers(f.hosts[1].addr, watch.watch.nonce, f.now)
	f.run(hailEvery)
	there("and something else answers", false)

	h.in, h.out, h.still = true, true, false
	f.run(2 * time.Second)
	f.want("it is back", "")
}

// TestPing: a kernel answers, at once, with the number it was asked with, in both IP versions, and the socket follows a changed address. It turns red
// when the filter lets nothing pass, or when an answer is not recognised.
func TestPing(t *testing.T) {
	testenv.Require(t, testenv.Root)
	type answer struct {
		from  netip.Addr
		nonce uint64
	}
	got := make(chan answer, 100)
	p := &pinger{answered: func(from netip.Addr, nonce uint64) { got <- answer{from, nonce} }}
	defer p.close()
	for i, text := range []string{"127.0.0.1", "127.0.0.2", "::1", "127.0.0.1"} {
		addr, nonce := netip.MustParseAddr(text), rand.Uint64()
		if err := p.ask(addr, addr, nonce); err != nil {
			t.Fatal(err)
		}
		select {
		case a := <-got:
			if a != (answer{addr, nonce}) {
				t.Errorf("%d: asked %s with %x: %+v", i, addr, nonce, a)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s does not answer", addr)
		}
	}
}

// TestSilenceCost turns red when the cost of watching depends on how many hosts there are, as with no limit to the watched.
func TestSilenceCost(t *testing.T) {
	for _, n := range []int{10, 1000} {
		f := newFleet(t, n)
		f.run(2 * time.Second)
		for _, h := range f.hosts {
			h.hails, h.hailed = 0, 0
		}
		f.hosts[3].in, f.hosts[3].out = false, false
		f.run(time.Second)
		const most = int(time.Second/hailEvery) * mostWatched
		for i, h := range f.hosts {
			if i != 3 && (h.hails != most || h.hailed > most) {
				t.Errorf("of %d, host %d hails %d times a second and is hailed %d times, not %d", n, i, h.hails, h.hailed, most)
			}
		}
		if h := f.hosts[3]; h.hails > 2*most {
			t.Errorf("of %d, the one that hears nobody hails %d times a second", n, h.hails)
		}
	}
}
