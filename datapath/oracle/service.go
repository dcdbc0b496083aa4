package oracle

import (
	"encoding/binary"

	"github.com/weftnet/weft/wire"
)

// Services are what a port has: RFC 2131, RFC 8415 and RFC 4861 answered by the host, and what its workload may answer itself.
type Services struct {
	DHCP4, DHCP6, Router         bool
	MayServeDHCP, MayBeTheRouter bool
}

// service says of a guarded port's frame that it is for the agent (Handed), that it is dropped, or neither: ok is false.
func (s Services) service(frame []byte) (r Result, ok bool) {
	var dhcp, asked, may bool
	why := "dhcp_server"
	switch kind := binary.BigEndian.Uint16(frame[12:]); kind {
	case 0x0806:
		target := frame[14:]
		if len(target) < 28 || binary.BigEndian.Uint16(target[6:]) != 1 || [4]byte(target[24:28]) != wire.DHCPServer4.As4() {
			return r, false
		}
		asked = s.DHCP4
	case typeIPv4:
		src, dst, found := ports4(frame[14:])
		if !found {
			return r, false
		}
		dhcp, may = dst == 68, s.MayServeDHCP
		asked = dst == 67 && src != 67 && s.DHCP4
	case typeIPv6:
		l4, proto, open := behindExtensions(frame[14:])
		switch {
		case open:
			dhcp, may, why = true, s.MayBeTheRouter, "router_advertisement"
		case proto == protoUDP && len(l4) >= 4:
			src, dst := binary.BigEndian.Uint16(l4), binary.BigEndian.Uint16(l4[2:])
			dhcp, may = dst == 546, s.MayServeDHCP
			asked = dst == 547 && src != 547 && s.DHCP6
		case proto == 58 && len(l4) >= 1:
			dhcp, may, why = l4[0] == 134 || l4[0] == 137, s.MayBeTheRouter, "router_advertisement"
			asked = l4[0] == 133 && s.Router
		}
	}
	switch {
	case dhcp && !may:
		return drop(why), true
	case !dhcp && asked:
		return Result{Verdict: Handed}, true
	}
	return r, false
}

func ports4(b []byte) (src, dst uint16, ok bool) {
	if len(b) < 20 || b[0]>>4 != 4 || b[0]&15 < 5 || b[9] != protoUDP || binary.BigEndian.Uint16(b[6:])&0x1fff != 0 {
		return 0, 0, false
	}
	n := int(b[0]&15) * 4
	if len(b) < n+4 {
		return 0, 0, false
	}
	return binary.BigEndian.Uint16(b[n:]), binary.BigEndian.Uint16(b[n+2:]), true
}

// behindExtensions finds the upper layer. open: what there is leaves it open, in a first fragment or behind more than eight headers.
func behindExtensions(b []byte) (l4 []byte, proto byte, open bool) {
	if len(b) < 40 {
		return nil, 59, false
	}
	first := false
	proto, b = b[6], b[40:]
	for n := 0; ; n++ {
		switch proto {
		case protoUDP:
			return b, proto, first && len(b) < 4
		case 58:
			return b, proto, first && len(b) < 1
		case 0, 43, 60, 135, 139, 140, protoFragment, 51:
		default:
			return nil, proto, false
		}
		if len(b) < 4 {
			return nil, 59, first
		}
		if proto == protoFragment && binary.BigEndian.Uint16(b[2:])&0xfff8 != 0 {
			return nil, 59, false // a later fragment, however many headers are before it
		}
		if n == 8 {
			return nil, 59, true
		}
		size := 8 + int(b[1])*8
		switch proto {
		case protoFragment:
			size = 8
			first = first || b[3]&1 != 0
		case 51:
			size = 8 + int(b[1])*4
		}
		proto, b = b[0], b[min(size, len(b)):]
	}
}
