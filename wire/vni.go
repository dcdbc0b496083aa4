package wire

import "fmt"

// VNI is a VXLAN network identifier of 24 bits (RFC 7348, section 5). Networks use 1 to MaxVNI.
type VNI uint32

const (
	// MaxVNI is the largest VNI that 24 bits hold.
	MaxVNI VNI = 1<<24 - 1
	// OAMVNI carries weft's own probes between agents and never a network.
	OAMVNI VNI = 0
	// VXLANPort is the UDP port assigned to VXLAN (RFC 7348, section 5).
	VXLANPort = 4789
)

// Validate reports why a network cannot have this VNI.
func (v VNI) Validate() error {
	if v == 0 || v > MaxVNI {
		return fmt.Errorf("VNI %d is outside 1..%d", v, MaxVNI)
	}
	return nil
}
