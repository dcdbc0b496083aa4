package datapath

import (
	"context"
	"encoding/binary"

	"github.com/weftnet/weft/datapath/bpf"
	"github.com/weftnet/weft/wire"
)

// strangerBacklog is how many strangers wait to be taken from the channel; when it is full they wait in the ring buffer, and when that is full
// their next packet tells.
const strangerBacklog = 64

// strangerEvent is struct stranger: VNI and address.
const strangerEvent = 4 + 16

// Strangers tells of addresses that sent packets of a network that takes unlisted VTEPs, and that the accept table does not have: again and again,
// about one a millisecond and CPU in all, until it does. One listener at a time, until ctx or the datapath ends: then the channel is closed.
func (d *Datapath) Strangers(ctx context.Context) (<-chan Accept, error) {
	told := make(chan Accept, strangerBacklog)
	return told, d.listen(ctx, &d.strangers, "strangers", "strangers", func(ctx context.Context, record []byte) {
		if len(record) < strangerEvent {
			return
		}
		var w bpf.TCAddr
		for i := range w.W {
			w.W[i] = binary.NativeEndian.Uint32(record[4+4*i:])
		}
		select {
		case told <- Accept{VNI: wire.VNI(binary.NativeEndian.Uint32(record)), Addr: netipOf(w)}:
		case <-ctx.Done():
		}
	}, func() { close(told) })
}
