package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/weftnet/weft/datapath/bpf"
	"github.com/weftnet/weft/datapath/netdev"
)

// Which way GRO aggregates take to a port: from_uplink strips them itself, or leaves them to the kernel lane. The agent chooses by the
// kind of port (docs/decisions/0006-aggregates-by-kind-of-port.md); here both ways are measured on one lab, whose tables are changed
// between the samples. A forwarding workload sends what it receives on to a namespace of its own:
//
//	workload a -> host 1 -> host 2 -> workload b, forwarding -> behind

const (
	nativeName = "weft, aggregates stripped natively"
	byLaneName = "weft, aggregates by the kernel lane"

	aggregateWhole  = "aggregates to a veth, offloads on"
	aggregateWire   = "aggregates to a veth, underlay as a wire"
	forwardingWhole = "aggregates to a veth that forwards, offloads on"
	forwardingWire  = "aggregates to a veth that forwards, underlay as a wire"
)

// lane is weft that delivers aggregates one way. Several share a weftContender.
type lane struct {
	*weftContender
	name     string
	byKernel bool
	// to is the receiver, when it is not workload b.
	to *Workload
}

// Name implements Contender.
func (l lane) Name() string { return l.name }

// Workloads implements Contender.
func (l lane) Workloads() (a, b Workload) {
	a, b = l.weftContender.Workloads()
	if l.to != nil {
		b = *l.to
	}
	return a, b
}

// SetWire implements Contender: it is what is called before each sample.
func (l lane) SetWire(on bool) error {
	state, err := l.lab.State()
	if err != nil {
		return err
	}
	for _, h := range state.Hosts {
		if err := l.choose(h.PinRoot); err != nil {
			return err
		}
	}
	return l.weftContender.SetWire(on)
}

// choose writes the way into the entries of both workloads, where they are local.
func (l lane) choose(pinRoot string) error {
	m, err := openPinned(pinRoot, "fdb")
	if err != nil {
		return err
	}
	defer m.Close()
	for _, w := range l.workloads {
		key := bpf.TCFdbKey{Vni: benchVNI, Mac: w.MAC}
		var e bpf.TCFdbEntry
		if err := m.Lookup(key, &e); err != nil {
			return fmt.Errorf("look up %s: %w", w.MAC, err)
		}
		if e.Ifindex == 0 {
			continue
		}
		e.Flags &^= bpf.TCFdbFlagsFDB_AGGREGATES_BY_KERNEL
		if l.byKernel {
			e.Flags |= bpf.TCFdbFlagsFDB_AGGREGATES_BY_KERNEL
		}
		if err := m.Update(key, e, ebpf.UpdateExist); err != nil {
			return err
		}
	}
	return nil
}

// lanes are both ways of one contender.
func lanes(c *weftContender, to *Workload) []Contender {
	return []Contender{lane{c, nativeName, false, to}, lane{c, byLaneName, true, to}}
}

// aggregates measures both ways to a veth, whose workload keeps what it receives or sends it on.
func (f *field) aggregates(ctx context.Context) (_ []Series, err error) {
	built, err := newWeft(ctx, weftConfig{lab: benchLab + "-lanes", binary: f.cfg.Binary})
	if err != nil {
		return nil, err
	}
	c := built.(*weftContender)
	defer func() { err = errors.Join(err, c.Close()) }()
	behind, err := c.forwardTo()
	if err != nil {
		return nil, fmt.Errorf("build a workload that forwards: %w", err)
	}
	defer func() {
		behind.Netns.Close()
		err = errors.Join(err, netdev.DeleteNamespace(behindNetns))
	}()
	f.say("built: " + c.Name() + ", with a workload that forwards")
	var out []Series
	for _, m := range []struct {
		name string
		wire bool
		to   *Workload
	}{{aggregateWhole, false, nil}, {aggregateWire, true, nil}, {forwardingWhole, false, behind}, {forwardingWire, true, behind}} {
		s, err := f.streamTo(ctx, Series{Measure: m.name, Unit: "Gb/s", Higher: true, Reference: nativeName}, lanes(c, m.to), m.wire, 1)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

const behindNetns = benchPrefix + "behind"

var behindAddrs = [2]netip.Addr{netip.MustParseAddr("10.97.0.1"), netip.MustParseAddr("10.97.0.2")}

// forwardTo makes workload b a router, and gives what is behind it.
func (c *weftContender) forwardTo() (*Workload, error) {
	a, b := c.Workloads()
	if err := netdev.CreateNamespace(behindNetns); err != nil {
		return nil, err
	}
	h, err := netdev.OpenName(behindNetns)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	_, far, err := b.Netns.EnsureVeth(netdev.Veth{Name: "behind0", MTU: innerMTU, Addresses: []netip.Prefix{netip.PrefixFrom(behindAddrs[0], 24)},
		Peer: netdev.VethPeer{Namespace: h, Name: "eth0", Addresses: []netip.Prefix{netip.PrefixFrom(behindAddrs[1], 24)}}})
	if err != nil {
		return nil, err
	}
	net := netip.PrefixFrom(behindAddrs[0], 24).Masked()
	if err := errors.Join(
		b.Netns.SetSysctl("net/ipv4/ip_forward", "1"),
		a.Netns.ReplaceRoute(netdev.Route{Dst: net, Hops: []netdev.Hop{{Gateway: b.Addr, Index: a.Ifindex}}}),
		h.ReplaceRoute(netdev.Route{Dst: netip.PrefixFrom(a.Addr, 24).Masked(), Hops: []netdev.Hop{{Gateway: behindAddrs[0], Index: far.Index}}})); err != nil {
		return nil, err
	}
	w, err := openWorkload(behindNetns, "eth0", behindAddrs[1])
	return &w, err
}
