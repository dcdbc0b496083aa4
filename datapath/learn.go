package datapath

import (
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/bpf"
	"github.com/weftnet/weft/wire"
)

// Learning says how a network learns source MACs from its frames; the zero value is not at all.
type Learning struct {
	// Ageing is how long a MAC is good for after its last frame; 0: the network does not learn.
	Ageing time.Duration
	// VTEPLimit and PortLimit are how many MACs are learned behind one VTEP and behind one port. Neither is ever more than a quarter of the table.
	VTEPLimit, PortLimit int
}

// MaxAgeing is the longest that can be told apart from the past: see TICK_BITS in layout.h.
const MaxAgeing = 7 * 24 * time.Hour

// sweepEvery is how often MACs that are too old are taken out of the table. They count no more as soon as they are.
const sweepEvery = 30 * time.Second

// tickBits is TICK_BITS of layout.h; a test compares them.
const tickBits = 20

// placePort is PLACE_PORT of layout.h, and alone PLACE_NONE: of an address whose VTEP has no number yet.
const placePort = 1 << 31

// Teacher is an entry of the accept table with the VTEP that the source MACs of its packets are learned at; 0: nothing is learned from them.
type Teacher struct {
	Accept
	VTEP VTEPID
}

// LearnedMAC is an entry of the table that frames fill. It is at a VTEP or at a port.
type LearnedMAC struct {
	FDBKey
	VTEP VTEPID
	Port PortID
	// Age is since its last frame, to about a second; Left is how long it is still good for.
	Age, Left time.Duration
	Moves     int
	// Frozen: it moved too often, and stays where it is for a while.
	Frozen bool
}

// Learner is what was learned at one place of a network.
type Learner struct {
	VNI  wire.VNI
	VTEP VTEPID
	Port PortID
	// MACs are the entries at that place.
	MACs int
	// Refused are frames that taught nothing as the place was at the network's limit, Full as the table was full, and Frozen as their MAC
	// was frozen at this place.
	Refused, Full, Frozen uint64
	// Moves are MACs that came here from another place; Freezes are those that then stood still.
	Moves, Freezes uint64
}

func unplace(p uint32) (VTEPID, PortID) {
	if p&placePort != 0 {
		return 0, PortID(p &^ placePort)
	}
	return VTEPID(p), 0
}

// now is the kernel path's clock.
func now() uint32 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &ts) != nil {
		return 0 // it cannot fail
	}
	return uint32(ts.Nano() >> tickBits)
}

func ticks(d time.Duration) uint32 {
	if d <= 0 {
		return 0
	}
	return uint32((d + 1<<tickBits - 1) >> tickBits)
}

func duration(ticks int32) time.Duration { return time.Duration(ticks) << tickBits }

func (l Learning) validate(vni wire.VNI) error {
	switch {
	case l == Learning{}:
		return nil
	case l.Ageing <= 0 || l.Ageing > MaxAgeing:
		return fmt.Errorf("network with VNI %d: learned MACs are to age after %s; at most %s", vni, l.Ageing, MaxAgeing)
	case l.VTEPLimit < 0 || l.PortLimit < 0:
		return fmt.Errorf("network with VNI %d: %d MACs a VTEP, %d a port", vni, l.VTEPLimit, l.PortLimit)
	}
	return nil
}

// fit is the limits as they hold here: no place fills the table.
func (d *Datapath) fit(limit int) uint32 { return uint32(min(limit, d.cfg.Limits.Learned/4)) }

// teach gives an entry of the networks table what it has to know of learning.
func (d *Datapath) teach(e *bpf.TCNetwork, n Network) {
	if n.Open {
		e.Flags |= bpf.TCNetworkFlagsNETWORK_SOURCES
	}
	if n.Learning.Ageing == 0 {
		return
	}
	e.Ageing, e.VtepLimit, e.PortLimit = ticks(n.Learning.Ageing), d.fit(n.Learning.VTEPLimit), d.fit(n.Learning.PortLimit)
}

func learningOf(e bpf.TCNetwork) Learning {
	ageing := duration(int32(e.Ageing))
	if ageing > time.Second {
		ageing = ageing.Truncate(time.Second) // ticks rounded it up
	}
	return Learning{Ageing: ageing, VTEPLimit: int(e.VtepLimit), PortLimit: int(e.PortLimit)}
}

// Learned reads the table, in no order; entries that are too old are left out.
func (d *Datapath) Learned() (list []LearnedMAC, err error) {
	at := now()
	err = d.learned.All(func(k bpf.TCFdbKey, v bpf.TCLearnedMac) {
		m := LearnedMAC{FDBKey: FDBKey{VNI: wire.VNI(k.Vni), MAC: k.Mac}, Age: duration(int32(at - v.Seen)), Left: duration(int32(v.Until - at)),
			Moves: int(v.Moves), Frozen: isFrozen(v, at)}
		m.VTEP, m.Port = unplace(v.Place)
		if m.Age = max(0, m.Age); v.Place != 0 && !isStale(v, at) {
			list = append(list, m)
		}
	})
	return list, err
}

// isFrozen and isStale are those of learn.h.
func isFrozen(v bpf.TCLearnedMac, at uint32) bool {
	return v.Flags&frozenFlag != 0 && at-v.Window < ticks(freezeTime)
}

func isStale(v bpf.TCLearnedMac, at uint32) bool { return int32(at-v.Until) >= 0 && !isFrozen(v, at) }

const (
	frozenFlag = 1
	freezeTime = 180 * time.Second
)

// Learners reads who has taught, in no order.
func (d *Datapath) Learners() (list []Learner, err error) {
	err = d.learners.All(func(k bpf.TCLearnerKey, v bpf.TCLearner) {
		l := Learner{VNI: wire.VNI(k.Vni), MACs: int(v.Macs), Refused: v.Refused, Full: v.Full, Frozen: v.Frozen, Moves: v.Moves, Freezes: v.Freezes}
		l.VTEP, l.Port = unplace(k.Place)
		list = append(list, l)
	})
	return list, err
}

// Forget takes learned MACs out, frozen ones too; absent ones are fine. It says how many there were.
func (d *Datapath) Forget(keys []FDBKey) (int, error) {
	list := make([]bpf.TCForgetArgs, len(keys))
	for i, k := range keys {
		list[i] = bpf.TCForgetArgs{Key: fdbKey(k), Why: bpf.TCForgetWhyFORGET_ANY}
	}
	return d.unlearn(list)
}

// unlearn runs the program forget, which alone takes entries out: a map's own deletion would not know whether a frame has just moved it.
func (d *Datapath) unlearn(list []bpf.TCForgetArgs) (gone int, err error) {
	p := d.progs["forget"]
	for i := range list {
		ret, err := p.Run(&ebpf.RunOptions{Context: &list[i]})
		if err != nil {
			return gone, fmt.Errorf("forget a learned MAC: %w", err)
		}
		gone += int(ret)
	}
	return gone, nil
}

// forgetPlaces takes out all that was learned at places that are not there any more, and their learners. Nothing new is learned there: the caller
// has seen to that for frames to come, and frames under way are waited for.
func (d *Datapath) forgetPlaces(gone func(bpf.TCLearnerKey) bool) error {
	places := map[bpf.TCLearnerKey]bool{}
	err := d.learners.All(func(k bpf.TCLearnerKey, _ bpf.TCLearner) {
		if gone(k) {
			places[k] = true
		}
	})
	if err != nil || len(places) == 0 {
		return err
	}
	d.sweeper.grace()
	var list []bpf.TCForgetArgs
	err = d.learned.All(func(k bpf.TCFdbKey, v bpf.TCLearnedMac) {
		if places[bpf.TCLearnerKey{Vni: k.Vni, Place: v.Place}] {
			list = append(list, bpf.TCForgetArgs{Key: k, Place: v.Place, Why: bpf.TCForgetWhyFORGET_PLACE})
		}
	})
	if err != nil {
		return err
	}
	if _, err := d.unlearn(list); err != nil {
		return err
	}
	keys := make([]bpf.TCLearnerKey, 0, len(places))
	for k := range places {
		keys = append(keys, k)
	}
	return d.learners.Delete(keys)
}

// forgetNetwork and forgetPort are forgetPlaces for what ends there. d.mu is held.
func (d *Datapath) forgetNetwork(vni wire.VNI) error {
	return d.forgetPlaces(func(k bpf.TCLearnerKey) bool { return k.Vni == uint32(vni) })
}

func (d *Datapath) forgetPort(id uint32) error {
	return d.forgetPlaces(func(k bpf.TCLearnerKey) bool { return k.Place == placePort|id })
}

// sweepLearned takes out what is too old.
func (d *Datapath) sweepLearned() (int, error) {
	at := now()
	var list []bpf.TCForgetArgs
	err := d.learned.All(func(k bpf.TCFdbKey, v bpf.TCLearnedMac) {
		if isStale(v, at) {
			list = append(list, bpf.TCForgetArgs{Key: k, Why: bpf.TCForgetWhyFORGET_STALE, Now: at})
		}
	})
	if err != nil {
		return 0, err
	}
	return d.unlearn(list)
}

// PutTeachers writes entries of the accept table, as PutAccepts does.
func (d *Datapath) PutTeachers(list []Teacher) error {
	keys, values := make([]bpf.TCAcceptKey, len(list)), make([]uint32, len(list))
	for i, t := range list {
		if !t.Addr.IsValid() {
			return fmt.Errorf("accept for VNI %d has no address", t.VNI)
		}
		keys[i], values[i] = acceptKey(t.Accept), uint32(t.VTEP)
	}
	return d.accepts.Put(keys, values)
}

// Teachers reads the accept table, in no order.
func (d *Datapath) Teachers() (list []Teacher, err error) {
	err = d.accepts.All(func(k bpf.TCAcceptKey, v uint32) {
		list = append(list, Teacher{Accept{VNI: wire.VNI(k.Vni), Addr: netipOf(k.Source)}, VTEPID(v)})
	})
	return list, err
}

// Source is a prefix from which a network accepts VTEPs that the accept table does not have.
type Source struct {
	VNI    wire.VNI
	Prefix netip.Prefix
}

// mapped4 is how many bits of an address stand before an IPv4 one.
const mapped4 = 96

func sourceKey(s Source) bpf.TCSourceKey {
	length := s.Prefix.Bits()
	if s.Prefix.Addr().Is4() {
		length += mapped4
	}
	return bpf.TCSourceKey{Prefix: uint32(32 + length), Vni: bits.ReverseBytes32(uint32(s.VNI)), Source: addrOf(s.Prefix.Masked().Addr())}
}

func sourceOf(k bpf.TCSourceKey) Source {
	addr, length := netipOf(k.Source), int(k.Prefix)-32
	if addr.Is4() {
		length -= mapped4
	}
	return Source{VNI: wire.VNI(bits.ReverseBytes32(k.Vni)), Prefix: netip.PrefixFrom(addr, length)}
}

// PutSources writes entries. A network that has any says so (Network.Open). Where some do not fit, the others are written all the same.
func (d *Datapath) PutSources(list []Source) error {
	var errs []error
	for _, s := range list {
		if !s.Prefix.IsValid() {
			return fmt.Errorf("source of VNI %d has no prefix", s.VNI)
		}
		errs = append(errs, d.prefixes.PutOne(sourceKey(s), 1))
	}
	return errors.Join(errs...)
}

// DeleteSources removes entries; absent ones are fine.
func (d *Datapath) DeleteSources(list []Source) error {
	for _, s := range list {
		k := sourceKey(s)
		if err := d.maps["sources"].Delete(&k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("delete source %s of VNI %d: %w", s.Prefix, s.VNI, err)
		}
	}
	return nil
}

// Sources reads the table, in no order.
func (d *Datapath) Sources() (list []Source, err error) {
	var k bpf.TCSourceKey
	var v uint32
	it := d.maps["sources"].Iterate()
	for it.Next(&k, &v) {
		list = append(list, sourceOf(k))
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("dump sources: %w", err)
	}
	return list, nil
}
