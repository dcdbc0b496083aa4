package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// ErrTruncated says that a header, or what a header announces, goes beyond the end of the buffer.
var ErrTruncated = errors.New("truncated")

// ErrMalformed says that a header contradicts itself or its protocol.
var ErrMalformed = errors.New("malformed")

func truncated(layer string) error { return fmt.Errorf("%s: %w", layer, ErrTruncated) }

func malformed(layer, why string) error { return fmt.Errorf("%s: %w: %s", layer, ErrMalformed, why) }

// cursor reads a buffer from front to back. A read beyond the end gives zeroes and sets short, so that a parser reads a
// whole header and checks once.
type cursor struct {
	rest  []byte
	short bool
}

// take is the next n octets, or nil.
func (c *cursor) take(n int) []byte {
	if n < 0 || n > len(c.rest) {
		c.rest, c.short = nil, true
		return nil
	}
	b := c.rest[:n:n]
	c.rest = c.rest[n:]
	return b
}

func (c *cursor) u8() uint8 {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) u16() uint16 {
	if b := c.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (c *cursor) u32() uint32 {
	if b := c.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (c *cursor) mac() (m MAC) {
	copy(m[:], c.take(6))
	return m
}

func (c *cursor) addr4() netip.Addr {
	var a [4]byte
	copy(a[:], c.take(4))
	return netip.AddrFrom4(a)
}

func (c *cursor) addr6() netip.Addr {
	var a [16]byte
	copy(a[:], c.take(16))
	return netip.AddrFrom16(a)
}

var be = binary.BigEndian
