package model

import (
	"encoding/binary"
	"hash/fnv"
	"math/big"
	"net/netip"
	"slices"

	"github.com/weftnet/weft/wire"
)

const (
	// macTries bounds the search for a free derived MAC: 24 bits, so even with half of them taken 64 tries fail once in
	// 2^64.
	macTries = 256
	// inOrder is how many addresses are tried in order before a large subnet is searched from a place that the uid gives,
	// so that allocating in a full /8 does not walk all of it each time.
	inOrder = 4096
)

// NextIP is the first address of the subnet that is not used, searching from `from` to the end and then from the
// beginning. The network address, the first host address (by custom the gateway's) and the IPv4 broadcast address are
// never given; a `from` outside what can be given is .2 or ::2. It reports false when all are used.
func NextIP(subnet netip.Prefix, used func(netip.Addr) bool, from netip.Addr) (netip.Addr, bool) {
	return nextIP(subnet, used, from, nil)
}

// nextIP is NextIP that gives up after *tries questions, if tries is not nil.
func nextIP(subnet netip.Prefix, used func(netip.Addr) bool, from netip.Addr, tries *int) (netip.Addr, bool) {
	first, last, ok := allocatable(subnet)
	if !ok {
		return netip.Addr{}, false
	}
	if !from.IsValid() || from.BitLen() != first.BitLen() || from.Less(first) || last.Less(from) {
		from = first
	}
	for a := from; ; {
		if tries != nil {
			if *tries == 0 {
				return netip.Addr{}, false
			}
			*tries--
		}
		if !used(a) {
			return a, true
		}
		if a == last {
			a = first
		} else {
			a = a.Next()
		}
		if a == from {
			return netip.Addr{}, false
		}
	}
}

// allocatable is the range of addresses that a subnet can give, both ends included.
func allocatable(subnet netip.Prefix) (first, last netip.Addr, ok bool) {
	if !subnet.IsValid() || subnet.Bits() > subnet.Addr().BitLen()-2 {
		return first, last, false
	}
	first = subnet.Masked().Addr().Next().Next()
	last = lastAddr(subnet)
	if last.Is4() {
		last = last.Prev()
	}
	return first, last, true
}

// somewhere is an address of the subnet that a port's uid gives.
func somewhere(subnet netip.Prefix, uid UID) netip.Addr {
	first, last, ok := allocatable(subnet)
	if !ok {
		return netip.Addr{}
	}
	h := fnv.New64a()
	h.Write([]byte(uid))
	lo, hi := new(big.Int).SetBytes(first.AsSlice()), new(big.Int).SetBytes(last.AsSlice())
	span := hi.Sub(hi, lo).Add(hi, big.NewInt(1))
	off := new(big.Int).SetBytes(binary.BigEndian.AppendUint64(nil, h.Sum64()))
	sum := lo.Add(lo, off.Mod(off, span))
	a, _ := netip.AddrFromSlice(sum.FillBytes(make([]byte, first.BitLen()/8)))
	return a
}

// AllocatePort fills in p.Alloc for its network: the addresses that the spec gives, and where it leaves them open (no MACs,
// or no IPs) one MAC, and one IP of each subnet, kept from p.Alloc where they still fit and allocated otherwise. macUsed and
// ipUsed report what is in use in the network; they are not asked about addresses that p.Alloc has already. On an error,
// *Error as always, p.Alloc is unchanged.
func AllocatePort(p *Port, n *Network, macUsed func(wire.MAC) bool, ipUsed func(netip.Addr) bool) error {
	if err := p.ValidateIn(n); err != nil {
		return err
	}
	had := PortAlloc{}
	if p.Alloc.NetworkUID == n.UID {
		had = p.Alloc
	}
	macs, err := allocateMACs(p, n, had.MACs, macUsed)
	if err != nil {
		return err
	}
	ips, err := allocateIPs(p, n, had.IPs, ipUsed)
	if err != nil {
		return err
	}
	p.Alloc = PortAlloc{NetworkUID: n.UID, MACs: macs, IPs: ips}
	return nil
}

func allocateMACs(p *Port, n *Network, had []wire.MAC, used func(wire.MAC) bool) ([]wire.MAC, error) {
	if len(p.Spec.MACs) > 0 {
		for i, m := range p.Spec.MACs {
			if !slices.Contains(had, m) && used(m) {
				return nil, Errorf(Taken, at("spec.macs", i), "choose another, or leave it out to have one allocated",
					"%s is already taken in network %s", m, n.Name)
			}
		}
		return slices.Clone(p.Spec.MACs), nil
	}
	behind := n.macsBehindVTEPs()
	for _, m := range had {
		if _, no := behind[m]; !no {
			return []wire.MAC{m}, nil
		}
	}
	for i := range macTries {
		m := MACFor(p.UID, i)
		if _, no := behind[m]; !no && !used(m) {
			return []wire.MAC{m}, nil
		}
	}
	return nil, Errorf(Exhausted, "spec.macs", "state a MAC", "no free MAC was found in network %s after %d tries", n.Name, macTries)
}

func allocateIPs(p *Port, n *Network, had []netip.Prefix, used func(netip.Addr) bool) ([]netip.Prefix, error) {
	own := func(a netip.Addr) bool {
		return slices.ContainsFunc(had, func(h netip.Prefix) bool { return h.Addr() == a })
	}
	var ips []netip.Prefix
	for i, a := range p.Spec.IPs {
		if !own(a) && used(a) {
			return nil, Errorf(Taken, at("spec.ips", i), "choose another, or leave it out to have one allocated",
				"%s is already taken in network %s", a, n.Name)
		}
		s, _ := subnetOf(n.Spec.Subnets, a)
		ips = append(ips, netip.PrefixFrom(a, s.Bits()))
	}
	if len(ips) > 0 {
		return ips, nil
	}
	for _, s := range n.Spec.Subnets {
		a, ok := keptIP(s, had)
		if !ok {
			a, ok = freeIP(s, p.UID, func(a netip.Addr) bool { return used(a) || n.Spec.keepsBack(a) })
		}
		if !ok {
			return nil, Errorf(Exhausted, "spec.ips", "delete ports that are no longer needed, or add a subnet and state an address in it",
				"subnet %s of network %s has no free address", s, n.Name)
		}
		ips = append(ips, netip.PrefixFrom(a, s.Bits()))
	}
	return ips, nil
}

func keptIP(s netip.Prefix, had []netip.Prefix) (netip.Addr, bool) {
	for _, h := range had {
		if s.Contains(h.Addr()) && unusable(s, h.Addr()) == "" {
			return h.Addr(), true
		}
	}
	return netip.Addr{}, false
}

func freeIP(s netip.Prefix, uid UID, used func(netip.Addr) bool) (netip.Addr, bool) {
	tries := inOrder
	if a, ok := nextIP(s, used, netip.Addr{}, &tries); ok || tries > 0 {
		return a, ok
	}
	return NextIP(s, used, somewhere(s, uid))
}
