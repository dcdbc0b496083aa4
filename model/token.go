package model

// Validate reports everything that is wrong with the token in itself.
func (t *APIToken) Validate() error {
	var r refusals
	r.add(ValidateName("name", t.Name))
	switch t.Scope {
	case ScopeAdmin:
		if t.Tenant != "" {
			r.add(Errorf(Invalid, "tenant", "leave it out, or choose the scope tenant", "an admin token is not of one tenant"))
		}
	case ScopeTenant:
		r.add(ValidateName("tenant", t.Tenant))
	case ScopeReadOnly:
		if t.Tenant != "" {
			r.add(ValidateName("tenant", t.Tenant))
		}
	default:
		r.add(Errorf(Invalid, "scope", "choose admin, tenant or read-only", "%q is not a scope", clip(string(t.Scope))))
	}
	return r.err()
}

// Validate reports everything that is wrong with the join token in itself.
func (t *JoinToken) Validate() error {
	var r refusals
	r.add(ValidateName("host", t.Host))
	if t.Expires.IsZero() {
		r.add(Errorf(Invalid, "expires", "give it a time to live", "a join token has to expire"))
	}
	return r.err()
}
