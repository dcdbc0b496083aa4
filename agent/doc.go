// Package agent keeps one host as the plan says: it receives resources from a server, or makes them from a file (source.go), compares what they ask for with
// what the kernel holds, writes the difference, and reports.
//
// It never decides where a port is and never forwards a packet: the first is the server's, the second the datapath's.
// Stopping it, at any moment, changes nothing in the kernel. One goroutine, the loop in agent.go, owns all state; the
// others (Speaker, Prober, watchers) hand it messages. One thing is done beside the loop, which may be busy: the flip of a port whose workload moved
// here or away (flipper). Read Agent, Reconciler, Speaker and flipper first.
package agent
