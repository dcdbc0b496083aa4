package plan

import (
	"fmt"
	"net/netip"
	"slices"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/wire"
)

// finding is what one resource says that matters to others, and what is wrong with it in itself. There is one of each port: it is small.
type finding struct {
	wrong string
	// vtep is what a port must be reached through.
	vtep string
	// names are of a host or a network.
	names *names
}

type names struct {
	network wire.VNI // of a network
	// vteps are what else is named: without one of them the rest still works.
	vteps    []string
	networks []string // of a host
}

// vni is a network's; 0 of anything else.
func (f finding) vni() wire.VNI {
	if f.names == nil {
		return 0
	}
	return f.names.network
}

// inspect looks at one resource alone. What it finds wrong is the first thing.
func inspect(r *Resource, host string, features []string) finding {
	var f finding
	m, err := r.Decode()
	if err == nil {
		switch m := m.(type) {
		case *planv1.Host:
			f.names = &names{vteps: m.GetVteps(), networks: m.GetNetworks()}
			if m.GetVtep() != "" {
				f.names.vteps = append(slices.Clip(m.GetVteps()), m.GetVtep())
			}
			if host != "" && m.GetUid() != host {
				err = fmt.Errorf("it is another host than %s", host)
			}
		case *planv1.Network:
			f.names = &names{network: wire.VNI(m.GetVni())}
			for _, e := range m.GetExternal() {
				f.names.vteps = append(f.names.vteps, e.GetVtep())
			}
			err = inspectNetwork(m)
		case *planv1.Port:
			f.vtep = m.GetVtep()
			err = inspectPort(m)
		case *planv1.Vtep:
			err = inspectVTEP(m)
		}
	}
	if err != nil {
		f.wrong = err.Error()
	}
	if feature := Missing(r, features); feature != "" {
		f.wrong = fmt.Sprintf("it needs the feature %q, which this agent does not know: upgrade the agent", feature)
	}
	return f
}

// The MTUs that a plan may state: what every IPv4 host takes (RFC 791), and what an IP packet's length field holds.
const minMTU, maxMTU = 68, 65535

func inspectNetwork(n *planv1.Network) error {
	if err := wire.VNI(n.GetVni()).Validate(); err != nil {
		return err
	}
	if m := n.GetMtu(); m < minMTU || m > maxMTU {
		return fmt.Errorf("MTU %d is outside %d..%d", m, minMTU, maxMTU)
	}
	if _, known := planv1.UnknownUnicast_name[int32(n.GetUnknownUnicast())]; !known {
		return fmt.Errorf("unknown answer %d to unknown unicast", n.GetUnknownUnicast())
	}
	if err := inspectDHCP(n.GetDhcp()); err != nil {
		return fmt.Errorf("dhcp: %w", err)
	}
	if _, known := planv1.Neighbours_name[int32(n.GetNeighbours())]; !known {
		return fmt.Errorf("unknown setting %d for neighbours", n.GetNeighbours())
	}
	if l := n.GetLearning(); l != nil {
		if err := inspectLearning(l); err != nil {
			return err
		}
	}
	for _, e := range n.GetExternal() {
		for _, m := range e.GetMacs() {
			if err := inspectMAC(m); err != nil {
				return fmt.Errorf("behind external VTEP %s: %w", e.GetVtep(), err)
			}
		}
	}
	return nil
}

// maxAgeing is what a kernel table can tell apart from the past.
const maxAgeing = 7 * 24 * 3600

func inspectLearning(l *planv1.Learning) error {
	if a := l.GetAgeingSeconds(); a == 0 || a > maxAgeing {
		return fmt.Errorf("learned MACs are to age after %d s, which is outside 1..%d", a, maxAgeing)
	}
	for _, s := range l.GetSources() {
		if _, err := netip.ParsePrefix(s); err != nil {
			return fmt.Errorf("source %q is not an IP prefix", s)
		}
	}
	return nil
}

func inspectPort(p *planv1.Port) error {
	if len(p.GetMacs()) == 0 && !p.GetUnguarded() {
		return fmt.Errorf("it has no MAC, and may not send from any")
	}
	for _, m := range p.GetMacs() {
		if err := inspectMAC(m); err != nil {
			return err
		}
	}
	for _, ip := range p.GetIps() {
		if _, err := netip.ParsePrefix(ip); err != nil {
			return fmt.Errorf("%q is not an address with the length of its subnet", ip)
		}
	}
	for _, pair := range p.GetAllowedAddressPairs() {
		if err := inspectMAC(pair.GetMac()); err != nil {
			return fmt.Errorf("allowed address pair: %w", err)
		}
		if ip := pair.GetIp(); ip != "" {
			if _, err := netip.ParseAddr(ip); err != nil {
				return fmt.Errorf("allowed address pair: %q is not an address", ip)
			}
		}
	}
	if p.GetEpoch() < 0 {
		return fmt.Errorf("epoch %d is negative", p.GetEpoch())
	}
	return nil
}

func inspectVTEP(v *planv1.Vtep) error {
	if len(v.GetAddresses()) == 0 {
		return fmt.Errorf("it has no address")
	}
	four, six := 0, 0
	for _, b := range v.GetAddresses() {
		a, ok := netip.AddrFromSlice(b)
		if !ok {
			return fmt.Errorf("an address has %d octets, not 4 or 16", len(b))
		}
		if a.IsUnspecified() || a.IsMulticast() || a.Is4In6() {
			return fmt.Errorf("%s cannot be the address of a VTEP", a)
		}
		if a.Is4() {
			four++
		} else {
			six++
		}
	}
	if four > 1 || six > 1 {
		return fmt.Errorf("it has more than one address of a family")
	}
	if p := v.GetUdpPort(); p == 0 || p > 65535 {
		return fmt.Errorf("UDP port %d is outside 1..65535", p)
	}
	return nil
}

func inspectMAC(b []byte) error {
	if len(b) != len(wire.MAC{}) {
		return fmt.Errorf("a MAC has %d octets, not 6", len(b))
	}
	if m := wire.MAC(b); m.IsZero() || m.IsMulticast() {
		return fmt.Errorf("%s cannot be the MAC of a port", m)
	}
	return nil
}

// The most that is taken of a network's lists: what a DHCP message can carry.
const maxServers, maxRoutes, maxDomain = 64, 28, 253

func inspectDHCP(d *planv1.Dhcp) error {
	if len(d.GetDnsServers()) > maxServers || len(d.GetRoutes()) > maxRoutes || len(d.GetDomain()) > maxDomain {
		return fmt.Errorf("%d DNS servers, %d routes and a domain of %d octets do not fit a message", len(d.GetDnsServers()), len(d.GetRoutes()), len(d.GetDomain()))
	}
	for _, s := range append(d.GetGateways()[:len(d.GetGateways()):len(d.GetGateways())], d.GetDnsServers()...) {
		if a, err := netip.ParseAddr(s); err != nil || a.Zone() != "" {
			return fmt.Errorf("%q is not an address", s)
		}
	}
	for _, r := range d.GetRoutes() {
		p, err := netip.ParsePrefix(r.GetPrefix())
		a, bad := netip.ParseAddr(r.GetGateway())
		if err != nil || bad != nil || !p.Addr().Is4() || !a.Is4() {
			return fmt.Errorf("route %q by %q is not one of IPv4", r.GetPrefix(), r.GetGateway())
		}
	}
	return nil
}
