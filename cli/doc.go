// Package cli is the client commands of weft and their output: one file a noun.
//
// It reads no environment, and starts no process but the command of `weft host drain --with`: Deps brings both ends of the terminal and what the
// environment says. What is right is decided by the server; here only what cannot be said on the wire is refused. Exit status: 0 done, 1 refused or
// failed, 2 wrong usage or a wrong field, 3 a wait ended too early, 4 ports are left on a host that was to be emptied. Read Deps,
// app and failure first.
package cli
