package bench

import (
	"fmt"
	"io"
)

// notes say, for a target that a run does not reach, what was tried, what the profile shows and what the limit is. By what the target is
// about and whom it is against.
var notes = map[[2]string]string{
	{"TCP bulk, offloads on, veth ports", vethName}: `Profile (perf, time of both threads for 64 kB, on a machine that others used too): the sender's core takes 8.7 us over a direct veth, 9.9 us
with weft, 9.4 us with a bridge without any overlay, 11.1 us with bridge + vxlan; the receiver's 6.4, 9.3, 7.3 and 9.6 us. Most of it is
copying from and to the program, memory for that, and waking the other side. weft's own programs are about 5 % of weft's samples; pskb_expand_head, that is a
head without room for the outer headers, is not among them: TCP leaves more room than 70 octets. What weft adds on the sender's core is two
crossings of a veth and three programs for each aggregate. What it adds on the receiver's core is the way back: an acknowledgement is a small
packet, costs what a small packet costs (the measure of 64-byte frames), and there are one to two for each 64 kB.
Limit: a bridge without overlay, which does nothing but look up a MAC, reached 0.91 x direct veth on an idle machine and is below 0.93 x itself.
An overlay that gets to 0.93 x has to cost less than that bridge. Receive packet steering would move work from the sender's core to the other, for every contender alike, so it was left out.`,
	{"TCP bulk, offloads on, veth ports", tunedName}: `Here weft saves the kernel's way through UDP, IP and the bridge once for each 64 kB: about 1.2 of 11 us on the sender's core, by the time of
its thread. The rest is copying, the same for both, so the ratio cannot be far from 1.12, and rounds spread more than that as soon as anything
else uses one of the two cores. Limit: direct veth, which is no overlay at all, in the same table. In the run of 2026-11-29 it was 1.07 x the bridge + vxlan itself,
on a machine where letting interrupts in again costs a way out of the guest (below, packets by TAP).`,
	{"TCP bulk, underlay as a wire, veth ports", tunedName}: `In this mode every contender cuts its aggregates in software and computes their checksums, which is most of the time and the same for both.`,
	{"TCP bulk, offloads on, TAP", tunedName}: `The pump that stands for a hypervisor copies each frame twice more and takes most of both cores; what lies between the two TAP devices is a
small part of the sample. Aggregates take the kernel lane here (decision 6), whose receiving half is the same code as the vxlan device's.`,
	{"TCP bulk, underlay as a wire, TAP", tunedName}: `As with offloads on, and cutting in software besides. Aggregates take the kernel lane (decision 6): stripped natively the rate is a fifth.`,
	{"packets, TAP", tunedName}: `Profile (perf) of the pump and of all that runs on its account: over a third is pvm_irq_enable. The machine is a guest whose hypervisor has to be
asked when interrupts are let in again, which each system call does, and a frame takes four, whoever forwards it. from_port and from_uplink are 2 %; what they replace
(bridge, vxlan device, routing and netfilter's hooks) is 11 % of the samples of both contenders together. What was saved for a frame, 1.4 us in the run of 2026-11-29, is in
a whole of 7.9 us. On a guest without that cost (the run of 2026-11-22) the ratio was 1.64.`,
	{"head-end replication to 256 VTEPs", tunedName}: `Profile of the host's own part: a quarter of a copy is the clone and its new head (skb_clone, pskb_expand_head), two fifths are the
kernel's way to the uplink (__dev_queue_xmit), and the rest is weft's: next hop, addresses and checksum of the outer header. The first two parts
are the kernel's for every contender. Tried: counting copies as they leave the host, not behind the underlay, which diluted the ratio; anchoring
the generator, whose restart took three quarters of the time; one look-up of a VTEP for a copy; the flood list in
blocks of 16, read once a flood and not once a copy; one sum of the outer IPv4 header for all copies; a short way for weft's own packets past the
guard on the uplink, which each copy meets.`,
	{"ARP answered for 1,000 addresses", tunedName}: `Profile (perf) of both: a third of weft's part are look-ups in hash tables (interface, port, network, what the port claims, who has the
address); the bridge asks its neighbour table and its FDB, and spends most on a packet's way through it and on making the answer anew. So the ratio depends on whether others
use the caches too: in the run of 2026-11-29 at 9daff10 a packet over a direct veth was 67 % dearer than in that at ea661a7, the bridge's answer 35 %, weft's 83 %,
and 2.58 had become 1.70. Done since: what most ports claim is looked up first, and what a solicitation says twice once.`,
	{"neighbour solicitations answered for 1,000 addresses", tunedName}: `As with ARP (above): 1.80 in the run at ea661a7, 1.40 in that at 9daff10. A solicitation is checked in more places, and its answer has a checksum.`,
	{"plan of 1,000,000 entries, received to read back", ""}: `The plan is networks with MACs behind an external VTEP. The agent keeps what is claimed and what the kernel holds by network, in maps that
the caches hold while one network is looked at, compares a new network whole instead of naming each key, decodes a resource once, and works entries
out while those before them are written. By BenchmarkPlan that took six sevenths of the processor time away that the agent had spent on such a plan before (2.0 s to 0.3 s,
from the octets to the system calls). What is left is mostly not the agent's: the kernel's map takes 1.0 to 1.2 million entries a second on a core (two
write at once), reading back takes 0.3 s, and the server that sends is on the same two cores.`,
	{"1,000,000 FDB entries, 10 active", tableName(weftName, 10)}: `Ten active entries stay in the caches whatever the table's size is, and the program is the same: what differs between the two, which are labs
of their own, is what else the machine did. See the interval.`,
	{"request and response, one core, p50", tunedName}: `Of a request and its answer on one core, two switches of threads and four system calls are the same for all contenders. Limit:
direct veth, which forwards nothing, in the same table: 1.32 x in the run of 2026-11-29, 15.2 us beside 18.6 with weft and 20.1 with bridge + vxlan, on a guest that pays much for a
system call (above, packets by TAP). On another (the run of 2026-11-22) the ratio was 1.30.`,
	{"64 B forwarding, XDP lane", tunedName}: `The floor of the method, generator, one veth and counter, is part of every figure: it is direct veth in the table of 64-byte frames, and more
than half of the XDP lane's. Profile: the two programs, with what they call, take about 140 ns for a packet, a third of it look-ups in hash tables
(interface, FDB, accept table); the rest is generator, two veths, making the packet's skb at the end, and counter. Less the floor the ratio is
above five.`,
}

// explain writes about the targets that were not reached.
func (r *Result) explain(w io.Writer) {
	first := true
	for _, v := range r.Verdicts {
		if !v.Measured || v.Reached {
			continue
		}
		if first {
			fmt.Fprintf(w, "\n## Where a target is not reached\n\nWhat was tried and what profiles showed when each was last looked into: November 2026, Linux 6.18, two cores. The figures in\nthe text are of those profiles, not of this run.\n")
			first = false
		}
		text, ok := notes[[2]string{v.What, v.Against}]
		if !ok {
			text = "Not looked into yet."
		}
		fmt.Fprintf(w, "\n**%s", v.What)
		if v.Against != "" {
			fmt.Fprintf(w, ", against %s", v.Against)
		}
		fmt.Fprintf(w, "**: wanted %s, found %s. %s\n", v.wanted(), v.found(), text)
	}
}
