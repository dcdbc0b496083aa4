// Package store keeps intent in etcd: embedded on unix sockets by default, an external cluster by its endpoints. It is the
// only package that imports etcd.
//
// Every write is one transaction that compares all it was decided upon, puts an audit record, and answers a refusal with a
// *model.Error that names the field and the fix. The store never validates a spec in itself (model does) and never decides
// anything: it claims names, VNIs, MACs and IPs, and keeps the references between objects whole.
//
// Revisions and epochs are the store's base plus etcd's revision; the base grows at every restore, so neither ever shrinks.
// A backup holds all of it, the hashes of API and join tokens included; the certificate authority's key is no part of it,
// for that is a file of the server. While a restore runs, or after one was interrupted, everything but Restore answers with
// an *InterruptedError, which a server waits out.
//
// Read Store, Event and keys.go first.
package store
