package model

import "github.com/weftnet/weft/wire"

// Validate reports everything that is wrong with the external VTEP in itself.
func (v *VTEP) Validate() error {
	var r refusals
	r.add(ValidateName("name", v.Name))
	r.add(validateUnderlay("spec.address", v.Spec.Address))
	r.add(validateDescription(v.Spec.Description))
	return r.err()
}

// ValidateUpdate is Validate, and refuses a change of the name. Address, UDP port and checksum may change: plans name a
// VTEP by its uid.
func (v *VTEP) ValidateUpdate(old *VTEP) error {
	if e := same("name", v.Name, old.Name, fixRecreate); e != nil {
		return e
	}
	return v.Validate()
}

// EffectiveUDPPort is the port stated, or else the standard one.
func (s VTEPSpec) EffectiveUDPPort() uint16 {
	if s.UDPPort == 0 {
		return wire.VXLANPort
	}
	return s.UDPPort
}
