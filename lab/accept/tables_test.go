package accept_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/datapath/bpf"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/lab"
	"github.com/weftnet/weft/wire"
)

// configured are the maps that hold what the plan asks for; the others count or cache.
var configured = []string{"accepts", "fdb", "floods", "locals", "networks", "port_ids", "ports", "vteps"}

// pinned opens a host's map by its pin.
func (f *fixture) pinned(t testing.TB, host, name string) *ebpf.Map {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(f.hostOf(t, host).PinRoot, "*", name))
	if err != nil || len(found) != 1 {
		t.Fatalf("the pin of map %s of %s: %v, %v", name, host, found, err)
	}
	m, err := ebpf.LoadPinnedMap(found[0], &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (f *fixture) hostOf(t testing.TB, name string) lab.Host {
	t.Helper()
	s, err := f.State()
	if err != nil {
		t.Fatal(err)
	}
	h, ok := s.Host(name)
	if !ok {
		t.Fatalf("no host %s", name)
	}
	return h
}

// octets dumps what a restart must not touch of a host's kernel: every entry of every configured map and the numbers of the maps,
// the links and what they are attached to, and the interfaces that weft made, with theirs. A loaded program may be another.
func (f *fixture) octets(t testing.TB, host string) []string {
	t.Helper()
	var out []string
	for _, name := range configured {
		m := f.pinned(t, host, name)
		if i, err := m.Info(); err == nil {
			id, _ := i.ID()
			out = append(out, fmt.Sprintf("map %s is number %d", name, id))
		}
		var k, v []byte
		for it := m.Iterate(); it.Next(&k, &v); {
			if strings.Trim(string(v), "\x00") != "" { // of an array, what is empty
				out = append(out, name+" "+hex.EncodeToString(k)+" "+hex.EncodeToString(v))
			}
		}
		m.Close()
	}
	pins, err := filepath.Glob(filepath.Join(f.hostOf(t, host).PinRoot, "links", "*"))
	if err != nil || len(pins) == 0 {
		t.Fatalf("the pinned links of %s: %v, %v", host, pins, err)
	}
	for _, pin := range pins {
		l, err := link.LoadPinnedLink(pin, nil)
		if err != nil {
			t.Fatal(err)
		}
		i, err := l.Info()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("link %s is number %d", filepath.Base(pin), i.ID))
		l.Close()
	}
	for _, l := range f.own(t, host) {
		out = append(out, fmt.Sprintf("interface %s is number %d", l.Name, l.Index))
	}
	slices.Sort(out)
	return out
}

// own are the interfaces on a host that weft made, by their names: one that was left behind before it was marked is one too.
func (f *fixture) own(t testing.TB, host string) []netdev.Link {
	t.Helper()
	all, err := f.node(t, host).Links()
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(l netdev.Link) bool { return !strings.HasPrefix(l.Name, netdev.NamePrefix) })
}

// history is what a host's interfaces that are called as weft's are, and what its agent has said of a port.
func (f *fixture) history(t testing.TB, host, port string) string {
	t.Helper()
	var out []string
	all, err := f.node(t, host).Links()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range all {
		if strings.HasPrefix(l.Name, netdev.NamePrefix) {
			out = append(out, fmt.Sprintf("%s (number %d), marked %q", l.Name, l.Index, l.Alias))
		}
	}
	s, err := f.State()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(s.Dir, host, host+".log"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, "port="+port+" ") || strings.Contains(line, "the agent is ready") || strings.Contains(line, "removed") {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return strings.Join(out, "\n")
}

func addrOf(a bpf.TCAddr) netip.Addr {
	b := make([]byte, 0, 16)
	for _, w := range a.W {
		b = append(b, byte(w), byte(w>>8), byte(w>>16), byte(w>>24)) // network order in a little-endian word
	}
	addr, _ := netip.AddrFromSlice(b)
	return addr.Unmap()
}

// tables says in words what the maps of a host hold of tenants' networks. Numbers that mean nothing beyond the host (of VTEPs,
// ports and flood lists) are replaced by what they stand for, so that hosts, and a host before and after, can be compared.
func (f *fixture) tables(t testing.TB, host string) []string {
	t.Helper()
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	vteps := map[uint32]string{0: "-"}
	each(t, f.pinned(t, host, "vteps"), func(id uint32, v bpf.TCVtep) {
		if v.Flags&bpf.TCVtepFlagsVTEP_PRESENT != 0 {
			vteps[id] = fmt.Sprint(addrOf(v.Addr))
		}
	})
	links := map[uint32]string{}
	all, err := f.node(t, host).Links()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range all {
		links[uint32(l.Index)] = l.Name
	}
	ports := map[uint32]string{}
	each(t, f.pinned(t, host, "ports"), func(id uint32, p bpf.TCPort) {
		uid := string(p.Uid[:p.UidLen])
		if ports[id] = uid; p.Ifindex != 0 && p.Vni != uint32(wire.OAMVNI) {
			add("port %s vni %d at %s, held %t", uid, p.Vni, links[p.Ifindex], p.Flags&bpf.TCPortFlagsPORT_HELD != 0)
		}
	})
	each(t, f.pinned(t, host, "port_ids"), func(ifindex, id uint32) {
		if ports[id] == "" {
			add("interface %d (%s) is port number %d, which is nobody's", ifindex, links[ifindex], id)
		}
	})
	each(t, f.pinned(t, host, "fdb"), func(k bpf.TCFdbKey, e bpf.TCFdbEntry) {
		if k.Vni == uint32(wire.OAMVNI) {
			return
		}
		if e.Ifindex != 0 {
			add("fdb vni %d %s here, port %s at %s", k.Vni, wire.MAC(k.Mac), ports[e.Port], links[e.Ifindex])
		} else {
			add("fdb vni %d %s behind %s", k.Vni, wire.MAC(k.Mac), vteps[e.Vtep])
		}
	})
	each(t, f.pinned(t, host, "accepts"), func(k bpf.TCAcceptKey, _ uint32) {
		if k.Vni != uint32(wire.OAMVNI) {
			add("accept vni %d from %s", k.Vni, addrOf(k.Source))
		}
	})
	lists := map[uint32]string{} // flood list to VNI
	sizes := map[uint32]bpf.TCNetwork{}
	each(t, f.pinned(t, host, "networks"), func(vni uint32, n bpf.TCNetwork) {
		if vni != uint32(wire.OAMVNI) {
			add("network vni %d", vni)
		}
		lists[n.List], sizes[n.List] = fmt.Sprint(vni), n
	})
	each(t, f.pinned(t, host, "floods"), func(k bpf.TCFloodKey, v bpf.TCFloodBlock) {
		names := vteps
		if room := uint32(len(v.To)); k.Block < (sizes[k.List].Local+room-1)/room {
			names = links
		}
		switch vni := lists[k.List]; vni {
		case "":
			add("flood list %d, which no network names", k.List)
		case fmt.Sprint(uint32(wire.OAMVNI)):
		default:
			for _, to := range v.To {
				if to != 0 {
					add("flood vni %s to %s", vni, names[to])
				}
			}
		}
	})
	slices.Sort(out)
	return out
}

func each[K, V any](t testing.TB, m *ebpf.Map, f func(K, V)) {
	t.Helper()
	defer m.Close()
	var k K
	var v V
	it := m.Iterate()
	for it.Next(&k, &v) {
		f(k, v)
	}
	if err := it.Err(); err != nil {
		t.Fatal(err)
	}
}

// intended is what tables has to say on a host, computed here from the API's answers alone: no code of the product's own
// compiler or agent has a part in it. It knows networks without external VTEPs, with every bound port attached.
func (f *fixture) intended(t testing.TB, host string) []string {
	t.Helper()
	ctx := limited(t)
	c := f.api(t)
	hosts, err := c.Hosts.ListHosts(ctx, connect.NewRequest(&weftv1.ListHostsRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	vtep := map[string]string{}
	for _, h := range hosts.Msg.GetHosts() {
		vtep[h.GetName()] = h.GetStatus().GetVtepAddresses()[0]
	}
	networks, err := c.Networks.ListNetworks(ctx, connect.NewRequest(&weftv1.ListNetworksRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	ports, err := c.Ports.ListPorts(ctx, connect.NewRequest(&weftv1.ListPortsRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for _, n := range networks.Msg.GetNetworks() {
		members := map[string]bool{}
		var in []*weftv1.Port
		for _, p := range ports.Msg.GetPorts() {
			if b := p.GetStatus().GetBinding(); p.GetTenant() == n.GetTenant() && p.GetSpec().GetNetwork() == n.GetName() && b.GetActive() != "" {
				in, members[b.GetActive()] = append(in, p), true
			}
		}
		if !members[host] {
			continue
		}
		vni := n.GetStatus().GetVni()
		add("network vni %d", vni)
		for m := range members {
			if m != host {
				add("accept vni %d from %s", vni, vtep[m])
				add("flood vni %d to %s", vni, vtep[m])
			}
		}
		for _, p := range in {
			uid, here := p.GetMeta().GetUid(), p.GetStatus().GetBinding().GetActive() == host
			if here {
				add("port %s vni %d at %s, held false", uid, vni, netdev.PortInterface(uid))
				add("flood vni %d to %s", vni, netdev.PortInterface(uid))
			}
			for _, mac := range p.GetStatus().GetMacs() {
				if here {
					add("fdb vni %d %s here, port %s at %s", vni, mac, uid, netdev.PortInterface(uid))
				} else {
					add("fdb vni %d %s behind %s", vni, mac, vtep[p.GetStatus().GetBinding().GetActive()])
				}
			}
		}
	}
	slices.Sort(out)
	return out
}

// differs lists what only one of two sorted lists has.
func differs(want, have []string) (out []string) {
	for _, w := range want {
		if _, ok := slices.BinarySearch(have, w); !ok {
			out = append(out, "lacks: "+w)
		}
	}
	for _, h := range have {
		if _, ok := slices.BinarySearch(want, h); !ok {
			out = append(out, "has:   "+h)
		}
	}
	if len(out) == 0 && len(want) != len(have) {
		out = append(out, fmt.Sprintf("something is there twice: %d lines, not %d", len(have), len(want)))
	}
	return out
}

// settled waits until the kernel of every host holds what the API says and nothing else: tables, interfaces and books.
func (f *fixture) settled(t testing.TB) {
	t.Helper()
	s, err := f.State()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range hostNames(s) {
		eventually(t, "the tables of "+h+" are what the API says", func() (bool, string) {
			d := differs(f.intended(t, h), f.tables(t, h))
			return len(d) == 0, strings.Join(d, "\n")
		})
		eventually(t, "the interfaces of "+h+" are those of its ports", func() (bool, string) {
			var want, have []string
			for _, line := range f.tables(t, h) {
				if strings.HasPrefix(line, "port ") {
					_, at, _ := strings.Cut(line, " at ")
					at, _, _ = strings.Cut(at, ",")
					want = append(want, at)
				}
			}
			for _, l := range f.own(t, h) {
				if !strings.HasPrefix(l.Name, "weft-") { // weft-vxlan and weft-oam are the host's
					have = append(have, l.Name)
				}
			}
			slices.Sort(want)
			slices.Sort(have)
			d := differs(want, have)
			return len(d) == 0, strings.Join(d, "\n")
		})
		f.balanced(t, h)
	}
}

// balanced wants of every program of a host: in = delivered + encapsulated + passed + answered + dropped. A packet may be under way.
func (f *fixture) balanced(t testing.TB, host string) {
	t.Helper()
	eventually(t, "the books of "+host+" balance", func() (bool, string) {
		m := f.pinned(t, host, "books")
		defer m.Close()
		var now []string
		ok := true
		for i := range uint32(bpf.TCProgramPROGRAM_MAX) {
			var per []bpf.TCProgramBooks
			if err := m.Lookup(i, &per); err != nil {
				t.Fatal(err)
			}
			var in, out uint64
			for _, b := range per {
				in += b.In
				out += b.Delivered + b.Encapsulated + b.Passed + b.Answered + b.Dropped
			}
			ok = ok && in == out
			now = append(now, fmt.Sprintf("program %d: %d in, %d accounted for", i, in, out))
		}
		return ok, strings.Join(now, "; ")
	})
}

// resync ends a host's agent, takes its plan away (not its attachments) and lets a new one build everything from the server's
// word, in the tables that are there.
func (f *fixture) resync(t testing.TB, host string) {
	t.Helper()
	if err := f.KillAgent(limited(t), host); err != nil {
		t.Fatal(err)
	}
	s, err := f.State()
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"plan.snapshot", "plan.recent"} {
		if err := os.Remove(filepath.Join(s.Dir, host, "data", file)); err != nil {
			t.Fatal(err)
		}
	}
	f.agentBack(t, host)
}

// agentBack starts a host's agent and waits until it has applied what the store holds.
func (f *fixture) agentBack(t testing.TB, host string) {
	t.Helper()
	if err := f.StartAgent(host); err != nil {
		t.Fatal(err)
	}
	f.caughtUp(t, host)
}

// caughtUp waits until a host has applied the store's revision of now, by its own word and by the server's: a server takes a while to
// notice that a stream is dead.
func (f *fixture) caughtUp(t testing.TB, host string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*inTime)
	defer cancel()
	st, err := f.api(t).System.GetStatus(ctx, connect.NewRequest(&weftv1.GetStatusRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	a, err := f.Agent(host)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	eventually(t, fmt.Sprintf("%s has a server and has applied revision %d", host, st.Msg.GetRevision()), func() (bool, string) {
		own, err := a.GetStatus(ctx, connect.NewRequest(&localv1.GetStatusRequest{}))
		if err != nil {
			return false, err.Error()
		}
		if !own.Msg.GetConnected() || own.Msg.GetRevision() < st.Msg.GetRevision() {
			return false, fmt.Sprintf("connected %t, revision %d", own.Msg.GetConnected(), own.Msg.GetRevision())
		}
		h, err := f.api(t).Hosts.GetHost(ctx, connect.NewRequest(&weftv1.GetHostRequest{Name: host}))
		if err != nil {
			return false, err.Error()
		}
		up := h.Msg.GetStatus().GetState() == weftv1.HostState_HOST_STATE_READY || h.Msg.GetStatus().GetState() == weftv1.HostState_HOST_STATE_DEGRADED
		return up && h.Msg.GetStatus().GetAppliedRevision() >= st.Msg.GetRevision(),
			fmt.Sprintf("%s, revision %d", h.Msg.GetStatus().GetState(), h.Msg.GetStatus().GetAppliedRevision())
	})
}
