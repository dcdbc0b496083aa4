// Package guest is the program inside a virtual machine of the lab: it sends and receives numbered datagrams, and has TCP connections, as
// it is told over the machine's second serial port, so that what it is asked and what it counted never crosses the network under test.
//
// Serve is the machine's end, Control the other one; Request and Report are what they say, a line of JSON each.
package guest
