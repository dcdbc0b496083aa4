package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/datapath/netdev"
)

// uplink is this host's own end of the underlay, as it was last seen.
type uplink struct {
	// name of the interface; several with commas between them.
	name string
	// local is this host's end as the datapath has it, and found as its interfaces have it: the plan comes between, see moveEnd.
	local, found datapath.Local
	// indexes of its interfaces; another index is another interface of the name, that needs weft's programs.
	indexes []int
	// managed are the next hops that the kernel keeps resolved for us.
	managed map[netdev.Hop]bool
	// hops are the equal next hops to each VTEP, as the datapath has them.
	hops map[datapath.VTEPID][]datapath.Hop
}

func (u *uplink) facts(cfg Config) *planv1.Facts {
	f := &planv1.Facts{
		UdpPort: uint32(u.found.UDPPort), UplinkMtu: uint32(u.found.UplinkMTU), Uplink: u.name, Kernel: kernelRelease(),
	}
	for _, a := range []netip.Addr{u.found.Addr4, u.found.Addr6} {
		if a.IsValid() {
			f.VtepAddresses = append(f.VtepAddresses, a.String())
		}
	}
	return f
}

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// waitUplink finds the uplink, and waits for it: at boot the agent may be up before the network.
func waitUplink(ctx context.Context, cfg Config, links Links) (*uplink, error) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for said := false; ; {
		u, err := findUplink(cfg, links, datapath.Local{})
		if err == nil {
			return u, nil
		}
		if !said {
			cfg.Log.Warn("the uplink is not there yet", "err", err)
			said = true
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-ticker.C:
		}
	}
}

// findUplink settles address, interface and MTU. What is configured goes before what is found: the VTEP address by flag,
// or else the uplink's (the one it was, if it still has it), or else the one from which the server is reached, or else the default route's.
func findUplink(cfg Config, links Links, was datapath.Local) (*uplink, error) {
	all, err := links.Addresses("")
	if err != nil {
		return nil, err
	}
	byIndex, byName, err := namedLinks(links)
	if err != nil {
		return nil, err
	}
	routes, err := links.Routes()
	if err != nil {
		return nil, err
	}
	name := cfg.Uplink
	addr := cfg.VTEPAddress
	if addr.IsValid() {
		holder := 0
		for _, a := range all {
			if a.Prefix.Addr() == addr {
				holder = a.Index
			}
		}
		if holder == 0 {
			return nil, fmt.Errorf("VTEP address %s is on no interface of this host", addr)
		}
		if name == "" {
			name = byIndex[holder].Name
		}
		// A VTEP on the loopback is reached through every link that has a route: the default route's are the uplinks.
		if cfg.Uplink == "" && (name == "lo" || byName[name].Kind == "dummy") {
			outward := netip.IPv4Unspecified()
			if addr.Is6() {
				outward = netip.IPv6Unspecified()
			}
			if name, err = routeLink(routes, byIndex, outward); err != nil {
				return nil, err
			}
		}
	} else if name == "" {
		if name, err = routeLink(routes, byIndex, serverAddress(cfg.Servers)); err != nil {
			return nil, err
		}
	}
	u := &uplink{name: name, local: datapath.Local{UDPPort: cfg.UDPPort}, managed: map[netdev.Hop]bool{}, hops: map[datapath.VTEPID][]datapath.Hop{}}
	if addr.IsValid() {
		u.set(addr)
	}
	// An address that it has already stays the one, whatever order the kernel lists them in.
	for _, a := range all {
		if ip := a.Prefix.Addr(); !addr.IsValid() && (ip == was.Addr4 || ip == was.Addr6) {
			u.set(ip)
		}
	}
	for _, n := range strings.Split(name, ",") {
		link, ok := byName[n]
		if !ok {
			return nil, fmt.Errorf("uplink %s: there is no such interface", n)
		}
		u.indexes = append(u.indexes, link.Index)
		if mtu := u.local.UplinkMTU; mtu == 0 || link.MTU < mtu {
			u.local.UplinkMTU = link.MTU
		}
		for _, a := range all {
			if !addr.IsValid() && a.Index == link.Index && !a.LinkLocal && !a.Tentative {
				u.set(a.Prefix.Addr())
			}
		}
	}
	if !u.local.Addr4.IsValid() && !u.local.Addr6.IsValid() {
		return nil, fmt.Errorf("uplink %s has no address: give it one, or say --vtep-address", name)
	}
	u.found = u.local
	return u, nil
}

func (u *uplink) has(name string) bool { return slices.Contains(strings.Split(u.name, ","), name) }

func (u *uplink) set(a netip.Addr) {
	a = a.Unmap()
	switch {
	case a.Is4() && !u.local.Addr4.IsValid():
		u.local.Addr4 = a
	case a.Is6() && !u.local.Addr6.IsValid():
		u.local.Addr6 = a
	}
}

func namedLinks(links Links) (map[int]netdev.Link, map[string]netdev.Link, error) {
	list, err := links.Links()
	if err != nil {
		return nil, nil, err
	}
	byIndex, byName := map[int]netdev.Link{}, map[string]netdev.Link{}
	for _, l := range list {
		byIndex[l.Index], byName[l.Name] = l, l
	}
	return byIndex, byName, nil
}

func routeLink(routes []netdev.Route, byIndex map[int]netdev.Link, to netip.Addr) (string, error) {
	var names []string
	for _, dst := range []netip.Addr{to, netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		if !dst.IsValid() || dst.IsLoopback() {
			continue
		}
		for _, hop := range netdev.NextHops(routes, dst) {
			if l, ok := byIndex[hop.Index]; ok && l.Name != "lo" && !slices.Contains(names, l.Name) {
				names = append(names, l.Name)
			}
		}
		if len(names) > 0 {
			return strings.Join(names, ","), nil
		}
	}
	return "", errors.New("no route leads to the server or out of this host: say --uplink or --vtep-address")
}

// serverAddress is the first server's, if it can be known without asking anybody for long.
func serverAddress(servers []string) netip.Addr {
	for _, s := range servers {
		host, _, err := net.SplitHostPort(s)
		if err != nil {
			host = s
		}
		if a, err := netip.ParseAddr(host); err == nil {
			return a.Unmap()
		}
		ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
		list, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		cancel()
		if err == nil && len(list) > 0 {
			return list[0].Unmap()
		}
	}
	return netip.Addr{}
}

// checkUplink looks again, tells kernel and server what changed, and keeps the next hops of all VTEPs resolved.
func (a *Agent) checkUplink() {
	fixed := a.cfg
	fixed.Uplink = a.uplink.name // programs are on it: another one needs a restart
	now, err := findUplink(fixed, a.links, a.uplink.found)
	if err != nil {
		a.setCondition("uplink", err.Error())
		return
	}
	if !slices.Equal(now.indexes, a.uplink.indexes) {
		// Nothing else is in its place: Publish puts the programs on the interfaces that have the names now.
		why := "there is no plan to go by yet"
		if a.swept {
			why = ""
			if err := a.kernel.Publish(); err != nil {
				why = err.Error()
			}
		}
		if why != "" {
			a.setCondition("uplink", fmt.Sprintf("%s was made again and is without weft's programs: %s", a.uplink.name, why))
			later(&a.uplinkAt, retryEvery)
			return
		}
		a.log.Info("the uplink was made again, and has weft's programs", "uplink", a.uplink.name)
		a.uplink.indexes = now.indexes
		maps.DeleteFunc(a.uplink.managed, func(hop netdev.Hop, _ bool) bool { return !slices.Contains(now.indexes, hop.Index) })
	}
	if now.found != a.uplink.found {
		a.log.Info("the tunnel's end changed", "vtep", now.found.Addr4, "vtep6", now.found.Addr6, "mtu", now.found.UplinkMTU)
		a.uplink.found = now.found
		a.server.Say(nil, a.uplink.facts(a.cfg), nil)
	}
	sender := a.rec.sender
	a.joinGroups()
	if a.moveEnd() || a.rec.sender != sender {
		a.reconcile()
	}
	a.manageNextHops()
}

// moveEnd tells the datapath where this host's tunnels end, and reports whether that is new. Another address waits for the plan to
// have it: until then the peers send to the old one and accept nothing else, and so does this host. All follow the same update, so that
// what is lost is what is on the way at that moment.
func (a *Agent) moveEnd() bool {
	end, ahead := a.uplink.found, ""
	if a.aheadOfPlan() {
		end.Addr4, end.Addr6 = a.uplink.local.Addr4, a.uplink.local.Addr6
		ahead = "the address of " + a.uplink.name + " changed, and the plan does not say so yet: tunnels end at the old one"
	}
	a.setCondition("uplink", ahead)
	if end == a.uplink.local {
		return false
	}
	if err := a.rec.SetLocal(end); err != nil {
		a.log.Error("the tunnel's end could not be changed", "err", err)
		later(&a.uplinkAt, retryEvery)
		return false
	}
	a.uplink.local = end
	a.renewOAM()
	return true
}

// aheadOfPlan reports whether the plan has another address of this host than its uplink. A host that is new to the plan is not ahead of it.
func (a *Agent) aheadOfPlan() bool {
	v := a.rec.view.vteps[a.rec.self]
	if v == nil {
		return false
	}
	for _, addr := range []netip.Addr{a.uplink.found.Addr4, a.uplink.found.Addr6} {
		if addr.IsValid() && !slices.Contains(v.addrs, addr) {
			return true
		}
	}
	return false
}

// manageNextHops tells the datapath which ways to a VTEP are equal, and asks the kernel to resolve and refresh what packets to VTEPs
// leave through: bpf_fib_lookup does neither.
func (a *Agent) manageNextHops() {
	routes, err := a.links.Routes()
	if err != nil {
		a.log.Error("the routes could not be read", "err", err)
		return
	}
	byIndex, _, err := namedLinks(a.links)
	if err != nil {
		a.log.Error("the interfaces could not be read", "err", err)
		return
	}
	want, equal := map[netdev.Hop]bool{}, map[datapath.VTEPID][]datapath.Hop{}
	for uid, v := range a.rec.view.vteps {
		addr, ok := a.rec.target(v)
		if !ok || a.rec.own(uid) {
			continue
		}
		hops := netdev.NextHops(routes, addr)
		for _, hop := range hops {
			want[hop] = true
		}
		if id, ok := a.rec.vtepID(uid); ok {
			equal[id] = equalHops(hops, byIndex)
		}
	}
	a.spread(equal)
	for hop := range want {
		if err := a.links.ManageNeighbour(hop.Index, hop.Gateway); err != nil {
			a.log.Warn("a next hop cannot be kept resolved", "hop", hop.Gateway, "err", err)
			continue
		}
		a.uplink.managed[hop] = true
	}
	for hop := range a.uplink.managed {
		if want[hop] {
			continue
		}
		if err := a.links.ReleaseNeighbour(hop.Index, hop.Gateway); err != nil {
			a.log.Warn("a next hop cannot be let go", "hop", hop.Gateway, "err", err)
		}
		delete(a.uplink.managed, hop)
	}
}

// equalHops are next hops as the datapath takes them, in an order that does not depend on the kernel's.
func equalHops(hops []netdev.Hop, byIndex map[int]netdev.Link) (list []datapath.Hop) {
	if len(hops) < 2 {
		return nil
	}
	for _, hop := range hops {
		list = append(list, datapath.Hop{Ifindex: uint32(hop.Index), Gateway: hop.Gateway, Down: !byIndex[hop.Index].Running})
	}
	slices.SortFunc(list, func(a, b datapath.Hop) int {
		return cmp.Or(cmp.Compare(a.Ifindex, b.Ifindex), a.Gateway.Compare(b.Gateway))
	})
	return list
}

// spread writes what differs of the equal next hops. Of VTEPs that went nothing is left behind for whom gets their number.
func (a *Agent) spread(equal map[datapath.VTEPID][]datapath.Hop) {
	for id := range a.uplink.hops {
		if _, ok := equal[id]; !ok {
			equal[id] = nil
		}
	}
	for id, list := range equal {
		if have, known := a.uplink.hops[id]; known && slices.Equal(have, list) {
			continue
		}
		if err := a.kernel.SetHops(id, list); err != nil {
			a.log.Warn("flows are not spread over the ways to a VTEP: the kernel alone chooses", "err", err)
			later(&a.uplinkAt, retryEvery)
			continue
		}
		a.uplink.hops[id] = list
	}
}

func (a *Agent) setCondition(name, message string) {
	if a.conditions[name] == message {
		return
	}
	if message == "" {
		delete(a.conditions, name)
		a.log.Info("a condition ended", "condition", name)
	} else {
		a.conditions[name] = message
		a.log.Warn("a condition began", "condition", name, "err", message)
	}
	later(&a.reportAt, reportDelay)
}
