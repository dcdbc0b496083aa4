package datapath

import (
	"context"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/bpf"
	"github.com/weftnet/weft/datapath/oracle"
	"github.com/weftnet/weft/internal/testenv"
	"github.com/weftnet/weft/wire"
)

// watched holds w and watches for its first frame.
func (w *workload) watched() {
	w.host.t.Helper()
	p := w.port()
	p.Held, p.Watched = true, true
	must(w.host.t, w.host.dp.UpdatePort(p))
}

// isWatched reads it back.
func (w *workload) isWatched() bool {
	w.host.t.Helper()
	ports, err := w.host.dp.Ports()
	must(w.host.t, err)
	i := slices.IndexFunc(ports, func(p Port) bool { return p.ID == w.id })
	return i >= 0 && ports[i].Watched
}

// told waits for one first frame.
func told(t testing.TB, frames <-chan PortID) PortID {
	t.Helper()
	select {
	case id, ok := <-frames:
		if !ok {
			t.Fatal("the channel is closed")
		}
		return id
	case <-time.After(patience):
		t.Fatalf("not within %s: a first frame is told", patience)
	}
	return 0
}

// firstHost is one host with silent ports in network 7.
func firstHost(t *testing.T, n int) (h *testHost, ports []*workload) {
	t.Helper()
	testenv.Require(t, "root", "bpf")
	nsA, nsB := namespace(t, "a"), namespace(t, "b")
	underlay(t, nsA, nsB)
	h = newHost(t, nsA, "a", Local{Addr4: duelOwn4, UDPPort: 4789, UplinkMTU: 1600})
	h.putNetwork(Network{VNI: 7, MTU: 1500})
	for i := range n {
		w := h.workload(7, byte(i+1), nil)
		must(t, w.ns.SetSysctl("net/ipv6/conf/eth0/disable_ipv6", "1"))
		ports = append(ports, w)
	}
	return h, ports
}

// TestFirstFrame: the first frame of a held, watched port is told, once, in both lanes; a frame from another's MAC is not, nor one of a port that is
// open or not watched; what is told is dropped as port_held like all others. Put again, it is told again. Red when tell_first leaves the flag, or
// looks at no MAC.
func TestFirstFrame(t *testing.T) {
	h, ports := firstHost(t, 3)
	w, last := ports[0], ports[2]
	frames, err := h.dp.FirstFrames(t.Context())
	must(t, err)
	if _, err := h.dp.FirstFrames(t.Context()); err == nil {
		t.Error("two listeners at once")
	}
	second := wire.MAC{2, 0, 0, 0, 0, 0x77}
	for _, program := range []string{"from_port", "xdp_from_port"} {
		shoot := func(w *workload, src wire.MAC) {
			t.Helper()
			before := h.drops(DropPortHeld)
			data := frame(t, macRemote, src, ip1, ip2, 40)
			if program == "from_port" {
				h.run(program, w.ifindex, data, nil)
			} else {
				d := duel{t: t, a: h}
				must(t, h.ns.Run(func() error {
					_, _, err := d.shootXDP(shot{hook: "from_port", ifindex: w.ifindex, Packet: oracle.Packet{Data: data}})
					return err
				}))
			}
			if got := h.drops(DropPortHeld) - before; got != 1 {
				t.Errorf("%s: dropped %d times as %s", program, got, DropPortHeld)
			}
		}
		held := w.port()
		held.Held = true
		must(t, h.dp.UpdatePort(held))
		shoot(w, w.mac) // is not watched
		w.watched()
		shoot(w, macRemote) // another's
		if !w.isWatched() {
			t.Errorf("%s: another's MAC ended the watch", program)
		}
		shoot(w, w.mac)
		if w.isWatched() {
			t.Errorf("%s: the port is watched after its first frame", program)
		}
		shoot(w, w.mac)
		if id := told(t, frames); id != w.id {
			t.Errorf("%s: told of port %d, want %d", program, id, w.id)
		}
		p := w.port()
		p.Held, p.Watched, p.MACs = true, true, append(p.MACs, second)
		must(t, h.dp.UpdatePort(p))
		shoot(w, second)
		if id := told(t, frames); id != w.id {
			t.Errorf("%s: told of port %d, want %d", program, id, w.id)
		}
		last.watched()
		shoot(last, last.mac) // nothing else was told in between
		if id := told(t, frames); id != last.id {
			t.Errorf("%s: told of port %d, want %d", program, id, last.id)
		}
	}
	h.balanced()
}

// TestFirstFrameUnread: what nobody reads waits, up to a limit; a port that finds no room stays watched and is counted, and is told later. Red when
// tell_first does not put the flag back.
func TestFirstFrameUnread(t *testing.T) {
	h, ports := firstHost(t, 2)
	w, open := ports[0], ports[1]
	data := frame(t, macRemote, w.mac, ip1, ip2, 40)
	open.watched()
	h.run("from_port", open.ifindex, frame(t, macRemote, open.mac, ip1, ip2, 40), nil)
	must(t, h.dp.UpdatePort(open.port())) // by the time it is read
	n := 0
	for ; n < 100_000 && h.book("from_port").Untold == 0; n++ {
		w.watched()
		h.run("from_port", w.ifindex, data, nil)
	}
	if !w.isWatched() {
		t.Fatalf("after %d frames: the port that was not told of is not watched", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	frames, err := h.dp.FirstFrames(ctx)
	must(t, err)
	for range n - 1 {
		if id := told(t, frames); id != w.id {
			t.Fatalf("told of port %d, want %d", id, w.id)
		}
	}
	h.run("from_port", w.ifindex, data, nil)
	if id := told(t, frames); id != w.id || w.isWatched() {
		t.Errorf("told of port %d, want %d; watched %t", id, w.id, w.isWatched())
	}
	cancel()
	for range frames {
		t.Error("told once more")
	}
	_, err = h.dp.FirstFrames(t.Context()) // the first has left
	must(t, err)
	if n := h.book("from_port").Untold; n != 1 {
		t.Errorf("%d are counted as untold", n)
	}
}

// TestOpenPort: a held port and its MACs' entries become an open port's in one call, and back; nothing else of the port changes. Red when setHeld
// writes an entry of its own making.
func TestOpenPort(t *testing.T) {
	h, ports := firstHost(t, 1)
	w := ports[0]
	must(t, h.dp.PutVTEPs([]VTEP{{ID: 1, Addr: duelAddrs[0], UDPPort: 4789}}))
	away := []FDBEntry{{FDBKey: FDBKey{7, w.mac}, VTEP: 1, Flags: FDBForward}}
	here := []FDBEntry{{FDBKey: FDBKey{7, w.mac}, Ifindex: w.ifindex, Flags: FDBPeer}}
	p := w.port()
	p.Unguarded, p.Watched = true, true
	must(t, h.dp.UpdatePort(p))
	check := func(what string, held bool, entries []FDBEntry) {
		t.Helper()
		fdb, err := h.dp.FDB()
		must(t, err)
		list, err := h.dp.Ports()
		must(t, err)
		if !slices.Equal(fdb, entries) || len(list) != 1 || list[0].Held != held || list[0].Watched || !list[0].Unguarded || list[0].UID != p.UID || !slices.Equal(list[0].MACs, p.MACs) {
			t.Errorf("%s: %+v %+v", what, list, fdb)
		}
		var e bpf.TCPort
		must(t, h.dp.maps["ports"].Lookup(uint32(w.id), &e))
		if e.Mtu != 1500 {
			t.Errorf("%s: the port's network has an MTU of %d", what, e.Mtu)
		}
	}
	must(t, h.dp.HoldPort(w.id, away))
	check("held", true, away)
	must(t, h.dp.OpenPort(w.id, here))
	check("open", false, here)
	if err := h.dp.OpenPort(99, here); err == nil {
		t.Error("a port that is not there was opened")
	}
}

// TestFirstFrameTime says how long it takes from a held port's first frame, sent by its workload, to the id in the channel, and on to the open port
// with its FDB entry. It judges nothing: other work may have the CPUs.
func TestFirstFrameTime(t *testing.T) {
	h, ports := firstHost(t, 1)
	w := ports[0]
	frames, err := h.dp.FirstFrames(t.Context())
	must(t, err)
	data := frame(t, macRemote, w.mac, ip1, ip2, 40)
	here := []FDBEntry{{FDBKey: FDBKey{7, w.mac}, Ifindex: w.ifindex, Flags: FDBPeer}}
	guest := newTap(t, w.ns, "eth0")
	var tell, open []time.Duration
	for range 500 {
		w.watched()
		begin := time.Now()
		must(t, unix.Sendto(guest.fd, data, 0, &unix.SockaddrLinklayer{Ifindex: guest.index, Halen: 6}))
		told(t, frames)
		came := time.Now()
		must(t, h.dp.OpenPort(w.id, here))
		tell, open = append(tell, came.Sub(begin)), append(open, time.Since(came))
	}
	slices.Sort(tell)
	slices.Sort(open)
	n := len(tell)
	t.Logf("from the socket to the channel: median %s, 99th of 100 %s; OpenPort with one entry: median %s, 99th of 100 %s", tell[n/2], tell[n*99/100], open[n/2],
		open[n*99/100])
}
