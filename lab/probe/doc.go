// Package probe is weft's own traffic: echo requests, TCP streams and sessions, numbered datagrams, many flows, and witnesses
// that say whose packets arrive where. It needs no outside program.
//
// Every probe works in a namespace that a netdev.Handle holds: its sockets are opened there and stay there. Nothing is sent
// anywhere else. Nothing is judged here: a probe reports what it counted.
//
// Read Ping, Sequence and Witness first.
package probe
