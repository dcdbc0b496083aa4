// Package plan is what the contract between server and agent means: resources, the sets they form, the digests that
// sum them up, and the rules by which an agent takes an update, refuses one, or keeps a file of the last one it applied; and how reports follow
// each other on a stream.
//
// It knows nothing of intent (a host and a server of different versions must understand each other), and it touches
// nothing: no I/O, no clock, no goroutine, no log. Read Resource, Set and Staging first.
package plan
