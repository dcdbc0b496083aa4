// Package client is the Go client of weft: the public API over TLS with an API token, or over the server's own socket as
// root; and the agent's socket.
//
// It tries several servers in turn when it makes a connection, and never sends a request twice. It believes only the CA that
// the token or a file pins. It keeps no state beside its connections, and never logs. Read Config, Client and Error first.
package client
