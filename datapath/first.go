package datapath

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/weftnet/weft/datapath/bpf"
)

// firstBacklog is how many ports wait to be taken from FirstFrames' channel; when it is full they wait in the ring buffer, and when that is full
// the ports stay watched.
const firstBacklog = 64

// FirstFrames tells the id of a port that is held and watched (Port.Watched) when it sends its first frame from one of its MACs: its guest runs. What
// was sent while nobody listened is told first, unless the port is open by now. A port may be told twice where its entry is written at that moment.
// One listener at a time, until ctx or the datapath ends: then the channel is closed.
func (d *Datapath) FirstFrames(ctx context.Context) (<-chan PortID, error) {
	told := make(chan PortID, firstBacklog)
	return told, d.listen(ctx, &d.firsts, "first_frames", "first frames", func(ctx context.Context, record []byte) {
		if len(record) < 4 {
			return
		}
		id := binary.NativeEndian.Uint32(record)
		if e, ok, err := d.ports.Get(id); err != nil || !ok || e.Flags&bpf.TCPortFlagsPORT_HELD == 0 {
			return // of long ago
		}
		select {
		case told <- PortID(id):
		case <-ctx.Done():
		}
	}, func() { close(told) })
}

// OpenPort lets a held port go, and says where its MACs are now: here. One write for the port, then one for each entry; nothing else is looked at.
//
// The port comes first. Between the two its frames leave already, and frames for it still go where they went: to the host that it comes from, which
// holds its own copy and sends them on here. The other way round they would be dropped here as port_held. A frame follows the one entry that it
// finds, so none is delivered twice.
func (d *Datapath) OpenPort(id PortID, entries []FDBEntry) error {
	if err := d.setHeld(id, false); err != nil {
		return err
	}
	return d.PutFDB(entries)
}

// HoldPort says where a port's MACs are now: elsewhere (FDBForward), and holds what was the port here. The entries come first, so that no frame
// for it is dropped as port_held in between: at any moment one is delivered here or forwarded.
func (d *Datapath) HoldPort(id PortID, entries []FDBEntry) error {
	if err := d.PutFDB(entries); err != nil {
		return err
	}
	return d.setHeld(id, true)
}

func (d *Datapath) setHeld(id PortID, held bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.putHeld(uint32(id), held)
}

// putHeld changes nothing of a port but that, and ends the watch for a first frame. d.mu is held.
func (d *Datapath) putHeld(id uint32, held bool) error {
	e, ok, err := d.ports.Get(id)
	if err != nil {
		return err
	}
	if !ok || e.Ifindex == 0 {
		return fmt.Errorf("port id %d has no entry", id)
	}
	e.Flags &^= bpf.TCPortFlagsPORT_HELD | bpf.TCPortFlagsPORT_WATCHED
	if held {
		e.Flags |= bpf.TCPortFlagsPORT_HELD
	}
	return d.ports.PutOne(id, e)
}
