package scale

import "context"

func (r *run) real(context.Context) error { return nil }
