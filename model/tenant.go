package model

const fixRecreate = "leave it as it is, or delete the object and create it anew"

// Validate reports everything that is wrong with the tenant in itself.
func (t *Tenant) Validate() error {
	var r refusals
	r.add(ValidateName("name", t.Name))
	r.add(validateDescription(t.Spec.Description))
	return r.err()
}

// ValidateUpdate is Validate, and refuses a change of the name.
func (t *Tenant) ValidateUpdate(old *Tenant) error {
	var r refusals
	r.add(same("name", t.Name, old.Name, fixRecreate))
	if len(r) > 0 {
		return r.err()
	}
	return t.Validate()
}
