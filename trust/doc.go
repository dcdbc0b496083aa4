// Package trust is who is who and who may do what: the deployment's certificate authority, the certificates of servers
// and hosts, join tokens, API tokens, and the one table that says which identity may call which procedure.
//
// It touches key files and nothing else: no network, no log. Times come in as arguments or as a clock. It never keeps the
// secret of a token, and a host's key never leaves the host. Read CA, HostIdentity and Identity first.
package trust

import "github.com/weftnet/weft/model"

// Error is a refusal with a field and a fix, by the name under which client and agent, which do not see intent, may read it.
type Error = model.Error

// ErrorKind is the kind of an Error.
type ErrorKind = model.ErrorKind

// Errors lists the refusals in an error, which may be several joined.
func Errors(err error) []*Error { return model.Errors(err) }
