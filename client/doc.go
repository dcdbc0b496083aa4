// Package client is the Go client of weft: the public API over TLS with an API token, or over the server's own socket as
// root; and the agent's socket.
//
// Of several servers it asks one until that becomes useless, and then the next. It sends a request again only where that can do no harm: if it
// reads, if nothing was done the first time, or if it is a create, which the servers know by a name. It believes only the CA that the token or a file
// pins. It keeps no state beside its connections, and never logs. Read Config, Client and Error first.
package client
