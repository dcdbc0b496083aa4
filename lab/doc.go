// Package lab is a datacentre on one machine: hosts, leaf and spine routers and workloads as network namespaces, joined by
// links and routed by the kernel, with the real server and a real agent for each host as processes of the real binary.
//
//	        weft-spine1      weft-spine2          198.19.SPINE.0/24, a /31 a link
//	         /   |    \______/___|____ \
//	  weft-leaf1  weft-leaf2     weft-leaf3       ECMP over the spines, hashed by L4
//	       |          |              |
//	    weft-h1    weft-h2        weft-h3         198.18.HOST.1, one agent each
//	    /  \  |        |  /          |
//	web1  web2 `-------+------------ '            workloads: weft-NAME, veths made by the agents
//	              weft-server                     172.31.0.1, the management link
//
// With Config.Underlay 6 the same addresses are in fd18::/16 and fd19::/16, and there is no IPv4 but on the management link.
//
// With Config.Uplinks 2 host H hangs below leaf H+1, too (the last one below leaf1), and its VTEP is on its loopback: see uplinks.go.
//
// With Config.Multicast leaves and spines route multicast, by daemons of FRR: see router.go.
//
// A workload may be a virtual machine instead: see vm.go and package lab/qemu.
//
// It never reaches into the product: it uses the public API, the agents' sockets and the command line, and what it makes is
// recorded before it is made, so that Down finds it after a kill at any moment. It owns nothing outside its namespaces, its
// directory and its pins, and ends only processes that it can prove to be its own.
//
// Read Config, Lab and node first.
package lab
