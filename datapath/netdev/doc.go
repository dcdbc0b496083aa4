// Package netdev makes and watches Linux network interfaces, addresses, routes and neighbours through netlink, in any
// network namespace.
//
// A Handle is one namespace: every call on it works there, whatever namespace the caller's thread is in, and no thread is
// left in a foreign namespace. What weft makes on a host carries a Mark, and what has no mark of ours is never changed or
// removed by the functions that take one. The package never decides what should exist: that is for its callers.
//
// Read Handle, Veth and Mark first.
package netdev
