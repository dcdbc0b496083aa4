package model

import (
	"net/netip"
	"time"
)

// Limits and defaults of learning.
const (
	DefaultAgeing    = 300 * time.Second
	MinAgeing        = 10 * time.Second
	MaxAgeing        = 24 * time.Hour
	DefaultVTEPLimit = 8192
	DefaultPortLimit = 1024
	// MaxLearned is the MACs that may be learned behind one VTEP or port: a quarter of a host's table.
	MaxLearned = 1 << 18
	// MaxSources is the prefixes from which a network may accept unlisted VTEPs.
	MaxSources = 16
	// MinSourceBits keeps a network from accepting the whole of the Internet.
	MinSourceBits = 8
)

// Learning says how a network learns source MACs.
type Learning struct {
	// Ageing after a MAC's last frame; 0 is DefaultAgeing.
	Ageing time.Duration `json:"ageing,omitempty"`
	// VTEPLimit and PortLimit are MACs behind one VTEP and one port; 0 is the default.
	VTEPLimit int `json:"vtep_limit,omitempty"`
	PortLimit int `json:"port_limit,omitempty"`
	// Sources are prefixes from which VTEPs that are not listed may take part.
	Sources []netip.Prefix `json:"sources,omitempty"`
}

// Effective is the settings with defaults put in.
func (l Learning) Effective() Learning {
	if l.Ageing == 0 {
		l.Ageing = DefaultAgeing
	}
	if l.VTEPLimit == 0 {
		l.VTEPLimit = DefaultVTEPLimit
	}
	if l.PortLimit == 0 {
		l.PortLimit = DefaultPortLimit
	}
	return l
}

// Validate reports everything that is wrong with the settings, which a user wrote in that field.
func (l *Learning) Validate(field string) error {
	var r refusals
	l.validate(field, &r)
	return r.err()
}

func (l *Learning) validate(field string, r *refusals) {
	if l == nil {
		return
	}
	if a := l.Ageing; a != 0 && (a < MinAgeing || a > MaxAgeing) {
		r.add(Errorf(Invalid, field+".ageing", "choose a time within that range, or leave it out for 300 s", "%s is outside %s..%s", a, MinAgeing, MaxAgeing))
	} else if a%time.Second != 0 {
		r.add(Errorf(Invalid, field+".ageing", "choose whole seconds", "%s is not", a))
	}
	for name, n := range map[string]int{".vtep_limit": l.VTEPLimit, ".port_limit": l.PortLimit} {
		if n < 0 || n > MaxLearned {
			r.add(Errorf(Invalid, field+name, "choose a number within that range, or leave it out for the default", "%d is outside 1..%d", n, MaxLearned))
		}
	}
	if len(l.Sources) > MaxSources {
		r.add(Errorf(Invalid, field+".sources", "use fewer, larger ones", "%d prefixes are more than %d", len(l.Sources), MaxSources))
		return
	}
	for i, p := range l.Sources {
		r.add(validateSource(at(field+".sources", i), p))
		for j, q := range l.Sources[:i] {
			if p.IsValid() && q.IsValid() && p.Overlaps(q) {
				r.add(Errorf(Invalid, at(field+".sources", i), "leave one of them out", "%s overlaps %s, which is %s", p, q, at(field+".sources", j)))
				break
			}
		}
	}
}

func validateSource(field string, p netip.Prefix) *Error {
	const fix = "name the underlay prefixes in which those VTEPs are, such as 192.0.2.0/24 or 2001:db8:1::/48"
	switch {
	case !p.IsValid() || p.Addr().Is4In6():
		return Errorf(Invalid, field, fix, "it is not an IPv4 or IPv6 prefix")
	case p != p.Masked():
		return Errorf(Invalid, field, "write "+p.Masked().String(), "%s has bits set behind its length", p)
	case p.Bits() < MinSourceBits:
		return Errorf(Invalid, field, fix, "%s is too much: any of its addresses could send into the network", p)
	case p.Addr().IsMulticast() || p.Addr().IsLoopback() || p.Addr().IsLinkLocalUnicast():
		return Errorf(Invalid, field, fix, "%s has no addresses that a VTEP could have", p)
	}
	return nil
}

// ParseSource reads a prefix of underlay addresses that a user wrote in a field.
func ParseSource(field, s string) (netip.Prefix, *Error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, Errorf(Invalid, field, "write it as 192.0.2.0/24 or 2001:db8:1::/48, one address as 192.0.2.7/32", "%q is not an IP prefix", clip(s))
	}
	return p, validateSource(field, p)
}
