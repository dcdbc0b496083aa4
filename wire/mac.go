package wire

import (
	"encoding/hex"
	"fmt"
)

// MAC is a 48-bit Ethernet address (IEEE 802).
type MAC [6]byte

// ParseMAC reads six hexadecimal octets separated by colons, as "02:00:5e:10:00:01".
func ParseMAC(s string) (MAC, error) {
	var m MAC
	if len(s) != 17 {
		return MAC{}, fmt.Errorf("%q is not a MAC address of the form 02:00:5e:10:00:01", s)
	}
	for i := range m {
		if i > 0 && s[3*i-1] != ':' {
			return MAC{}, fmt.Errorf("%q is not a MAC address of the form 02:00:5e:10:00:01", s)
		}
		if _, err := hex.Decode(m[i:i+1], []byte(s[3*i:3*i+2])); err != nil {
			return MAC{}, fmt.Errorf("%q is not a MAC address of the form 02:00:5e:10:00:01", s)
		}
	}
	return m, nil
}

// String is the lower-case colon form.
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// IsZero reports whether no address is there.
func (m MAC) IsZero() bool { return m == MAC{} }

// IsMulticast reports whether the group bit is set; the broadcast address is a multicast address.
func (m MAC) IsMulticast() bool { return m[0]&1 != 0 }

// IsBroadcast reports whether m is ff:ff:ff:ff:ff:ff.
func (m MAC) IsBroadcast() bool { return m == MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff} }

// MarshalText is the form of String.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads the form that ParseMAC reads.
func (m *MAC) UnmarshalText(b []byte) error {
	v, err := ParseMAC(string(b))
	if err != nil {
		return err
	}
	*m = v
	return nil
}

// ReservedPrefix begins the MACs of weft's own devices, which no workload may own: the kernel's vxlan device silently
// drops an inner frame whose source is its own MAC.
var ReservedPrefix = [3]byte{0x02, 0x6f, 0x77}

// IsReserved reports whether m begins with ReservedPrefix.
func (m MAC) IsReserved() bool { return [3]byte(m[:3]) == ReservedPrefix }

// IsLocal reports whether the locally administered bit is set.
func (m MAC) IsLocal() bool { return m[0]&2 != 0 }
