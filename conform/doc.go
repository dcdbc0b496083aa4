// Package conform holds RFC 7348 to weft: each rule of the standard that the datapath can keep today is a case, run on the real programs
// and the real kernel with packets that are sent and received octet by octet; and so are ECN (RFC 6040), DSCP (RFC 2983) and the MTU.
//
//	w1, w2, t1 (VNI 7), x1 (VNI 8)  ---  weft-conform-host  --- up0 ---  weft-conform-peer, which is nothing but octets
//
// t1 is a virtual machine's TAP device with virtio headers, the other workloads are containers' veths. The peer is raw sockets: it stands
// for any VTEP, right or wrong, and no kernel there answers or repairs anything. A case is a trial: what is sent, what must arrive
// where, octet by octet, and nowhere else; which drops are counted; which lane did it, and for what reason another one passed it on; and
// the books of every program must balance. The same cases run in every row of the table {lane, underlay}.
//
// It touches only namespaces that it made, and their datapath. What needs multicast, learning or the gateway is not here: the datapath
// does not have them.
//
// Read Row, Case and trial first.
package conform
