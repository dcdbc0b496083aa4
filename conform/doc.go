// Package conform holds RFC 7348 to weft: each rule of the standard that the datapath can keep today is a case, run on the real programs
// and the real kernel with packets that are sent and received octet by octet.
//
//	w1, w2, t1 (VNI 7), x1 (VNI 8)  ---  weft-conform-host  --- up0 ---  weft-conform-peer, which is nothing but octets
//
// t1 is a virtual machine's TAP device with virtio headers, the other workloads are containers' veths. The peer is raw sockets: it stands for any VTEP, right or wrong, and no kernel there answers or repairs anything. A case is a
// trial: what is sent, what must arrive where, octet by octet, and nowhere else; which drops are counted; which lane did it; and the
// books of every program must balance. The same cases run in every row of the table {lane, underlay}.
//
// It touches only namespaces that it made, and their datapath. What needs multicast or learning is not here.
//
// Not here yet: multicast, learning and the gateway (rules 3, 4, 5, 20, 21), which the datapath does not have; and the XDP lane.
//
// Read Row, Case and trial first.
package conform
