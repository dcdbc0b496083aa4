// Package compile turns intent into plan resources: what every host must hold, from what users asked for and hosts said.
//
// What it makes is a function of the World alone, whatever order the changes came in; Changed only saves the work. It
// never decides (allocation is the server's), never keeps what the World does not say, and touches nothing. Read Compiler,
// Output and Evidence first. One noun a file: host.go, network.go, port.go, vtep.go.
package compile
