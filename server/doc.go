// Package server answers the public API, decides what is allowed, allocates, and keeps hosts' plans up to date.
//
// It is one loop and many handlers. The loop owns the world: it takes what the store's watch says, applies it, lets
// compile say which resources changed, and hands those to distribute. A handler validates through model, writes one
// store transaction, and answers from the world once the loop has taken that transaction in. What hosts tell (liveness,
// applied revisions, port states, counters, drops) is kept in memory only and is told again after a restart.
//
// Of several servers on one store, each listens to all the others (relay), so that states, counters, WaitApplied and moves are the same at
// any of them, and no request is answered from a view older than the request (fresher). Plans reach every host through whichever server it
// chose. The servers of one deployment share one CA, whose fingerprint the store keeps.
//
// It never validates by itself, never compiles, never speaks etcd, and keeps nothing that the store does not: any
// number of servers may run on one store, and none of them leads.
//
// Read Server, view (the world, guarded) and realisation (what hosts told) first.
package server
