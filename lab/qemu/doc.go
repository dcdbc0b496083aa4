// Package qemu runs virtual machines for the lab: what a machine is made of (a kernel of the distribution, a file system in memory made
// here), QEMU's command line, its monitor protocol, and live migration. Software emulation, so that it works where KVM does not.
//
// It knows nothing of weft, starts no process and makes no interface: the caller starts what Machine.Args says, in the network namespace
// of a host that has the TAP.
//
// Read Machine, Monitor and Migrate first.
package qemu
