package model

import "maps"

// PortCounts are what a port counted: inner Ethernet frames, ingress towards the workload.
type PortCounts struct {
	IngressPackets uint64 `json:"ingress_packets,omitempty"`
	IngressOctets  uint64 `json:"ingress_octets,omitempty"`
	EgressPackets  uint64 `json:"egress_packets,omitempty"`
	EgressOctets   uint64 `json:"egress_octets,omitempty"`
}

// Plus is the sum.
func (c PortCounts) Plus(o PortCounts) PortCounts {
	c.IngressPackets += o.IngressPackets
	c.IngressOctets += o.IngressOctets
	c.EgressPackets += o.EgressPackets
	c.EgressOctets += o.EgressOctets
	return c
}

// Counters are what a port counted on hosts that have no part in it any more.
type Counters struct {
	Port UID        `json:"port"`
	Sum  PortCounts `json:"sum"`
	// Settled has for each of those hosts the epoch of the binding that last ended its part: what it counted up to there is in the sum.
	Settled map[UID]Epoch `json:"settled"`
	// Revision of the transaction that last wrote the record, filled in by the store.
	Revision Revision `json:"-"`
}

// Settle adds what a host counted until its part ended, unless that is in the sum already. It reports whether it was not.
func (c *Counters) Settle(host UID, epoch Epoch, counts PortCounts) bool {
	if epoch <= c.Settled[host] {
		return false
	}
	c.Settled = maps.Clone(c.Settled)
	if c.Settled == nil {
		c.Settled = map[UID]Epoch{}
	}
	c.Settled[host], c.Sum = epoch, c.Sum.Plus(counts)
	return true
}

// With is the sum and what a host says that it has counted since, as of an epoch that it knows. A nil receiver has settled nothing.
func (c *Counters) With(sum PortCounts, host UID, epoch Epoch, counts PortCounts) PortCounts {
	if c != nil && epoch <= c.Settled[host] {
		return sum
	}
	return sum.Plus(counts)
}
