// Package scale measures a server under a fleet: a real `weft server` process with its own etcd (or an external one), and as many
// agents as asked for, simulated in this process. A simulated agent joined with a real token, holds its own TLS connection
// under its own certificate, speaks by the agent's own Speaker, and takes the plan in by plan.Staging; what it has not is a kernel.
//
//	server.go  the server's process                 agent.go   one simulated agent
//	fill.go    tenants, networks, ports by the API  fleet.go   all of them: join, bind, wait, report
//	share.go   one copy of what many hold           verify.go  every agent's digests against those of the store
//	run.go     what is measured, in order           real.go    a real agent with the largest plan
//
// Simulated agents share the machine's cores with the server: what is measured is the time that both take together.
// Read Config, Run and Result first.
package scale
