// Package stream carries the messages between server and agent over a TLS connection of their own, with nothing between: a header of
// five octets (what it is, and how long) and the message. Both know by the protocol that TLS negotiated that the other speaks so.
//
// A change to all hosts is one small message to each, and one back. Over HTTP/2 more than half of what that cost both sides was the way
// through its goroutines: see docs/decisions/0017-plan-streams.md.
package stream
