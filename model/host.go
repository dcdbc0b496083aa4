package model

import (
	"net/netip"
	"strings"
)

// MinUplinkMTU is the smallest underlay MTU that carries an inner IPv4 packet of 576 octets over IPv6.
const MinUplinkMTU = MinMTU + 70

// Validate reports everything that is wrong with the host in itself.
func (h *Host) Validate() error {
	var r refusals
	r.add(ValidateName("name", h.Name))
	r.add(validateDescription(h.Spec.Description))
	if s := h.Spec.WhenSilent; s != WhenSilentShow && s != WhenSilentFail {
		r.add(Errorf(Invalid, "spec.when_silent", "use show or fail", "%q is not a known value", clip(string(s))))
	}
	return r.err()
}

// Receives refuses to give a port to a host that is drained or was declared dead.
func (h *Host) Receives() *Error { return h.Duty.Receives(h.Name) }

// Receives is Host.Receives for a host of that name.
func (d HostDuty) Receives(name string) *Error {
	fix := "choose another host, or take it back into service with `weft host return " + name + "`"
	switch d {
	case DutyDrained:
		return Errorf(Conflict, "host", fix, "host %s is drained, and gets no ports", name)
	case DutyFailed:
		return Errorf(Conflict, "host", fix, "host %s was declared dead, and gets no ports", name)
	}
	return nil
}

// ValidateUpdate is Validate, and refuses a change of the name.
func (h *Host) ValidateUpdate(old *Host) error {
	if e := same("name", h.Name, old.Name, "leave it as it is, or remove the host and let it join under the new name"); e != nil {
		return e
	}
	return h.Validate()
}

// Validate reports everything that is wrong with what a host's agent says of it.
func (f *HostFacts) Validate() error {
	var r refusals
	if f.Host == "" {
		r.add(Errorf(Invalid, "host", "name the host's uid", "a host is needed"))
	}
	if len(f.VTEPAddresses) == 0 {
		r.add(Errorf(Invalid, "vtep_addresses", "give the agent an underlay address: --vtep-address", "an address is needed"))
	}
	var v4, v6 netip.Addr
	for i, a := range f.VTEPAddresses {
		field := at("vtep_addresses", i)
		if e := validateUnderlay(field, a); e != nil {
			r.add(e)
			continue
		}
		first := &v6
		if a.Is4() {
			first = &v4
		}
		if first.IsValid() {
			r.add(Errorf(Invalid, field, "give at most one address of each family", "%s is a second one beside %s", a, *first))
		}
		*first = a
	}
	if f.UDPPort == 0 {
		r.add(Errorf(Invalid, "udp_port", "choose 1 to 65535; the usual one is 4789", "a UDP port is needed"))
	}
	if f.UplinkMTU < MinUplinkMTU || f.UplinkMTU > 65535 {
		r.add(Errorf(Invalid, "uplink_mtu", "raise the MTU of the uplink", "%d is outside %d..65535", f.UplinkMTU, MinUplinkMTU))
	}
	for _, s := range [...]struct{ field, value string }{{"uplink", f.Uplink}, {"kernel", f.Kernel}, {"version", f.Version}} {
		if len(s.value) > 255 || strings.ContainsFunc(s.value, func(c rune) bool { return c < ' ' || c == 0x7f }) {
			r.add(Errorf(Invalid, s.field, "report at most 255 printable characters", "it is too long or contains a control character"))
		}
	}
	return r.err()
}
