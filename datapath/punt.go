package datapath

import (
	"context"
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/bpf"
)

// Services are what the agent answers a port, and what its workload may answer others.
type Services uint8

// The services; bpf/punt.h says which frames they are about.
const (
	ServeDHCP4    = Services(bpf.TCPortServicesPORT_DHCP4)
	ServeDHCP6    = Services(bpf.TCPortServicesPORT_DHCP6)
	ServeRouter   = Services(bpf.TCPortServicesPORT_ADVERTISED)
	MayServeDHCP  = Services(bpf.TCPortServicesPORT_MAY_SERVE_DHCP)
	MayAdvertise  = Services(bpf.TCPortServicesPORT_MAY_ADVERTISE)
	puntHead      = 24
	puntOldest    = 10 * time.Second
	mostPuntOctet = len(bpf.TCPunt{}.Frame)
)

// Punt is a frame that a workload sent and the agent is to answer.
type Punt struct {
	ID      PortID
	Ifindex uint32
	// At is when, since boot.
	At time.Duration
	// Frame is what was kept of it, at most 1514 octets, of Length. It is the receiver's for as long as the call lasts.
	Frame  []byte
	Length int
}

// Punts gives the frames for the agent to answer, one after the other, until ctx or the datapath ends. What came while nobody listened is left
// out where its sender has asked again by now. One listener at a time.
func (d *Datapath) Punts(ctx context.Context, answer func(Punt)) error {
	return d.listen(ctx, &d.punts, "punts", "workloads' questions", func(_ context.Context, record []byte) {
		if p, ok := readPunt(record); ok && sinceBoot()-p.At < puntOldest {
			answer(p)
		}
	}, func() {})
}

// readPunt reads struct punt; the ring buffer's records are whole words, so that what is behind the frame is cut off.
func readPunt(b []byte) (Punt, bool) {
	if len(b) < puntHead {
		return Punt{}, false
	}
	p := Punt{At: time.Duration(binary.NativeEndian.Uint64(b)), ID: PortID(binary.NativeEndian.Uint32(b[8:])),
		Ifindex: binary.NativeEndian.Uint32(b[12:]), Length: int(binary.NativeEndian.Uint32(b[16:]))}
	p.Frame = b[puntHead:min(len(b), puntHead+mostPuntOctet, puntHead+p.Length)]
	return p, true
}

// sinceBoot is the clock of bpf_ktime_get_ns.
func sinceBoot() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
