package datapath

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/weftnet/weft/datapath/bpf"
)

// A killed agent leaves what it had written up to then; the next one must be able to tell, and to finish.
func TestKillInTheMiddleOfAttaching(t *testing.T) {
	for name, undo := range map[string]func(h *testHost, w *workload) error{
		"before the program was attached": func(h *testHost, w *workload) error {
			return h.dp.detach(linkName("from_port", w.ifindex))
		},
		"before the interface was entered": func(h *testHost, w *workload) error {
			return joinDelete(h.dp.detach(linkName("from_port", w.ifindex)), h.dp.portIDs.Delete([]uint32{w.ifindex}))
		},
		"by hand: the link was detached, its pin is there": func(h *testHost, w *workload) error {
			l, err := link.LoadPinnedLink(h.dp.linkPath(linkName("from_port", w.ifindex)), nil)
			if err != nil {
				return err
			}
			defer l.Close()
			return l.Detach()
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := alone(t)
			h.putNetwork(Network{VNI: 5, MTU: 1500})
			w := h.workload(5, 1, nil)
			must(t, undo(h, w))
			must(t, h.dp.Close())
			h.open()
			list, err := h.dp.Ports()
			must(t, err)
			if slices.ContainsFunc(list, func(p Port) bool { return p.Ifindex == w.ifindex }) {
				t.Error("a port is listed whose interface has no program: nobody would attach it again")
			}
			must(t, h.dp.AttachPort(w.port()))
			if !h.dp.attached(linkName("from_port", w.ifindex), w.ifindex) {
				t.Error("attached again, the interface has no program")
			}
			list, err = h.dp.Ports()
			same(t, "ports", uidsOf(list), []string{w.port().UID}, err)
		})
	}
}

func uidsOf(list []Port) (uids []string) {
	for _, p := range list {
		uids = append(uids, p.UID)
	}
	return uids
}

// An entry whose interface is gone goes with its pin.
func TestPortsForgetsWhatIsGone(t *testing.T) {
	h := alone(t)
	h.putNetwork(Network{VNI: 5, MTU: 1500})
	w := h.workload(5, 1, nil)
	must(t, h.ns.DeleteLink("weftp1"))
	list, err := h.dp.Ports()
	must(t, err)
	if len(list) != 0 {
		t.Errorf("ports %v, the interface is gone", list)
	}
	if _, err := os.Stat(h.dp.linkPath(linkName("from_port", w.ifindex))); err == nil {
		t.Error("the pin of a link to nothing is left")
	}
	e, _, err := h.dp.ports.Get(uint32(w.id))
	must(t, err)
	if e != (bpf.TCPort{}) {
		t.Errorf("entry %+v is left", e)
	}
}

// An uplink that was deleted and made again gets its programs by Publish, and nothing is left of the old one. Red when describeUplinks
// does not ask for the guard.
func TestUplinkMadeAgain(t *testing.T) {
	h := alone(t)
	l, err := h.ns.LinkByName("up0")
	must(t, err)
	must(t, h.ns.DeleteLink("up0"))
	if err := h.dp.Publish(); err == nil {
		t.Error("published without an uplink")
	}
	must(t, h.ns.AddTAP("up0"))
	again, err := h.ns.LinkByName("up0")
	must(t, err)
	must(t, h.dp.CheckXDP())
	if have, _, err := h.dp.locals.Get(0); err != nil || have.Uplinks[0].Ifindex != 0 {
		t.Errorf("packets may leave by an interface without a guard: %+v (%v)", have.Uplinks, err)
	}
	must(t, h.dp.Publish())
	if have, _, err := h.dp.locals.Get(0); err != nil || have.Uplinks[0].Ifindex != uint32(again.Index) {
		t.Errorf("no packet may leave by the new interface: %+v (%v)", have.Uplinks, err)
	}
	for _, program := range []string{"from_uplink", "to_uplink"} {
		if !h.dp.attached(linkName(program, uint32(again.Index)), uint32(again.Index)) {
			t.Errorf("%s is not on the new interface", program)
		}
		if _, err := os.Stat(h.dp.linkPath(linkName(program, uint32(l.Index)))); err == nil && l.Index != again.Index {
			t.Errorf("the pin of %s on the old interface is left", program)
		}
	}
}

// A network that cannot be changed keeps its flood list.
func TestNetworkThatCannotBeWrittenKeepsItsList(t *testing.T) {
	h := alone(t)
	n := Network{VNI: 5, MTU: 1500, Remotes: []VTEPID{1, 2}}
	must(t, h.dp.PutNetwork(n))
	must(t, h.dp.maps["networks"].Freeze()) // no update from user space succeeds from here on
	n.MTU = 1400
	if err := h.dp.PutNetwork(n); err == nil {
		t.Fatal("a frozen map was written")
	}
	h.dp.mu.Lock()
	retired := len(h.dp.retired)
	h.dp.mu.Unlock()
	must(t, h.dp.Close()) // the sweeper is done with what it was given
	h.open()
	have, err := h.dp.Networks()
	must(t, err)
	if retired > 0 || len(have) != 1 || !slices.Equal(have[0].Remotes, n.Remotes) {
		t.Errorf("networks %+v, %d lists retired; the list of a live network is lost", have, retired)
	}
}

// The kernel lane's device is shut while nothing guards it: another UDP port makes another device, and in a new layout the guard comes with
// Publish. Red when openVXLAN does not ask for the guard, or Publish does not call it.
func TestKernelLaneIsShutUntilGuarded(t *testing.T) {
	h := alone(t)
	up := func() bool {
		l, err := h.ns.LinkByName(VXLANDevice)
		must(t, err)
		return l.Up
	}
	if !up() {
		t.Error("the device is down after Open")
	}
	must(t, h.dp.Close())
	h.cfg.Limits.FDB++
	h.cfg.Local.UDPPort = 4790
	h.open()
	if up() {
		t.Error("the device is up without from_vxlan")
	}
	must(t, h.dp.Publish())
	if !up() || !h.dp.attached(linkName("from_vxlan", 0), h.dp.local.VxlanIfindex) {
		t.Error("the device is down, or without from_vxlan, after Publish")
	}
	h.cfg.Local.UDPPort = 4791
	must(t, h.dp.SetLocal(h.cfg.Local))
	if !up() || !h.dp.attached(linkName("from_vxlan", 0), h.dp.local.VxlanIfindex) {
		t.Error("the device is down, or without from_vxlan, on another UDP port")
	}
}

// TestAttachThatFailsLeavesNothing: a port whose program cannot be exchanged has no entry, and no program either, in neither lane. Red when AttachPort
// leaves the links for Publish to find.
func TestAttachThatFailsLeavesNothing(t *testing.T) {
	a, b := xdpHosts(t, false)
	join(t, 7, a, b)
	w := a.workload(7, 1, b)
	p := w.fast()
	must(t, a.dp.progs["from_port"].Close()) // every exchange fails
	if err := a.dp.AttachPort(p); err == nil {
		t.Fatal("attached a program that is closed")
	}
	for _, program := range []string{"from_port", "xdp_from_port"} {
		if a.dp.attached(linkName(program, w.ifindex), w.ifindex) {
			t.Errorf("%s is still attached", program)
		}
	}
	if list, err := a.dp.Ports(); err != nil || len(list) > 0 {
		t.Errorf("ports %+v %v", list, err)
	}
}

// TestRemoveShutsFirst: at no moment is the kernel lane's device up without its guard. Red when Remove detaches before it takes the device down.
func TestRemoveShutsFirst(t *testing.T) {
	h := alone(t)
	index := h.dp.local.VxlanIfindex
	must(t, h.dp.Close())
	done := make(chan error)
	go func() { done <- h.ns.Run(func() error { return Remove(h.cfg.PinRoot) }) }()
	looks := 0
	for ended := false; !ended; looks++ {
		select {
		case err := <-done:
			must(t, err)
			ended = true
		default:
		}
		guarded := h.dp.attached(linkName("from_vxlan", 0), index)
		if l, err := h.ns.LinkByName(VXLANDevice); err == nil && l.Up && !guarded {
			t.Fatalf("look %d: the device is up without from_vxlan", looks)
		}
	}
	t.Logf("looked %d times", looks)
	h.open()
}

// TestDetachedPortCountsNoMore: the counters of a port stand still when DetachPort returns, while frames for it go on coming, also where its interface went
// before. Red when DetachPort leaves the entry.
func TestDetachedPortCountsNoMore(t *testing.T) {
	a, b := twoHosts(t, false)
	join(t, 7, a, b)
	sender := a.workload(7, 1, b)
	data := frame(t, macRemote, sender.mac, ip1, ip2, 40)
	var done atomic.Bool
	var all sync.WaitGroup
	defer func() { done.Store(true); all.Wait() }() // also when the test fails: the programs are closed after it
	all.Go(func() {
		must(t, a.ns.Run(func() (err error) {
			for err == nil && !done.Load() {
				_, err = a.dp.progs["from_port"].Run(&ebpf.RunOptions{Data: data, Context: skbFrom(sender.ifindex), Repeat: 1000})
			}
			return err
		}))
	})
	for round := range 6 {
		w := a.workload(7, byte(10+round), nil)
		must(t, a.dp.PutFDB([]FDBEntry{{FDBKey: FDBKey{7, macRemote}, Ifindex: w.ifindex}}))
		counted := func() PortCounters {
			c, err := a.dp.PortCounters(w.id)
			must(t, err)
			return c
		}
		await(t, "frames are counted", func() bool { return counted().IngressPackets > 0 })
		if round%2 == 1 {
			must(t, a.ns.DeleteLink(fmt.Sprintf("weftp%d", w.id)))
		}
		must(t, a.dp.DetachPort(w.ifindex))
		last, before := counted(), a.book("from_port").In
		await(t, "more frames", func() bool { return a.book("from_port").In > before+2000 })
		if now := counted(); now != last {
			t.Errorf("round %d: counted %+v, and then %+v", round, last, now)
		}
	}
}
