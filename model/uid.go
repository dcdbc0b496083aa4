package model

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"strings"

	"github.com/weftnet/weft/wire"
)

var uidEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NewUID is the uid made of 128 random bits.
func NewUID(rand [16]byte) UID { return UID(uidEncoding.EncodeToString(rand[:])) }

// Valid reports whether u has the form that NewUID makes.
func (u UID) Valid() bool {
	b, err := uidEncoding.DecodeString(string(u))
	return err == nil && len(b) == 16 && len(u) == 26 && !strings.ContainsAny(string(u), "\r\n")
}

// MACFor is the n-th MAC that a port's uid gives: locally administered, unicast, beginning with 02:77:65, and the same at
// every call, so that a port needs no state to keep its address. 24 bits collide: the caller tries the next n.
func MACFor(uid UID, n int) wire.MAC {
	sum := sha256.Sum256(binary.BigEndian.AppendUint32([]byte(uid), uint32(n)))
	return wire.MAC{0x02, 0x77, 0x65, sum[0], sum[1], sum[2]}
}
