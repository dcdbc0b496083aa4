package model

import "math"

// BUM limits, in frames a second: how many broadcast, unknown unicast and multicast frames are flooded.
const (
	// DefaultPortBUM is what one port may send.
	DefaultPortBUM = 1000
	// DefaultNetworkBUM is what a host sends for all its ports of a network together.
	DefaultNetworkBUM = 10_000
	// NoBUMLimit is the setting that ends the limit.
	NoBUMLimit = math.MaxUint32
	// MaxBUMLimit is the largest limit.
	MaxBUMLimit = 10_000_000
)

// EffectiveBUMLimit is the setting, or else the default; 0 is no limit.
func (s PortSpec) EffectiveBUMLimit() uint32 { return effectiveBUM(s.BUMLimit, DefaultPortBUM) }

// EffectiveBUMLimit is the setting, or else the default; 0 is no limit.
func (s NetworkSpec) EffectiveBUMLimit() uint32 { return effectiveBUM(s.BUMLimit, DefaultNetworkBUM) }

func effectiveBUM(limit, otherwise uint32) uint32 {
	switch limit {
	case 0:
		return otherwise
	case NoBUMLimit:
		return 0
	}
	return limit
}

func validateBUM(limit uint32) *Error {
	if limit > MaxBUMLimit && limit != NoBUMLimit {
		return Errorf(Invalid, "spec.bum_limit", "choose a smaller one, or none (4294967295)", "%d frames a second are more than %d", limit, MaxBUMLimit)
	}
	return nil
}
