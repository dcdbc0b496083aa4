package datapath

import (
	"errors"
	"log/slog"

	"github.com/weftnet/weft/wire"
)

// Config says where and for what a datapath is opened.
type Config struct {
	// PinRoot is a directory on a bpffs; every map and link of this instance is pinned below it. It names the instance.
	PinRoot string
	// Uplink is the interface that carries the underlay; several are given with commas between them.
	Uplink string
	// Local is this host's own end of every tunnel.
	Local Local
	// Limits bound the tables; zero fields take their defaults. Other limits than those of a running instance are a new
	// layout (see Publish).
	Limits Limits
	// Log gets a line for every capability and every take-over; nil discards.
	Log *slog.Logger
}

// Limits are the sizes of the tables. Zero means the default.
type Limits struct {
	FDB, Accepts, Networks, VTEPs, Ports, FloodEntries, DropKeys, DropSources int
}

// Datapath is an open instance. Its methods are idempotent and may be called from several goroutines.
type Datapath struct{}

// TableUse says how full a table is.
type TableUse struct {
	Name           string
	Entries, Limit int
	// Refused counts entries that did not fit since Open.
	Refused uint64
}

var errStub = errors.New("datapath: not built yet")

// Open loads or adopts the instance under PinRoot.
func Open(Config) (*Datapath, error) { return nil, errStub }

// Close closes what the process holds; everything stays in the kernel.
func (d *Datapath) Close() error { return errStub }

// Publish switches to a new layout that was built aside, after it was filled; a no-op when nothing is pending.
func (d *Datapath) Publish() error { return errStub }

// Remove takes everything of the instance out of the kernel.
func Remove(pinRoot string) error { return errStub }

// SetLocal changes this host's own end.
func (d *Datapath) SetLocal(Local) error { return errStub }

// PutVTEPs writes entries.
func (d *Datapath) PutVTEPs([]VTEP) error { return errStub }

// DeleteVTEPs removes entries; absent ones are fine.
func (d *Datapath) DeleteVTEPs([]VTEPID) error { return errStub }

// VTEPs reads the table.
func (d *Datapath) VTEPs() ([]VTEP, error) { return nil, errStub }

// PutNetwork writes a network.
func (d *Datapath) PutNetwork(Network) error { return errStub }

// DeleteNetwork removes a network.
func (d *Datapath) DeleteNetwork(wire.VNI) error { return errStub }

// Networks reads the table.
func (d *Datapath) Networks() ([]Network, error) { return nil, errStub }

// PutFDB writes entries.
func (d *Datapath) PutFDB([]FDBEntry) error { return errStub }

// DeleteFDB removes entries.
func (d *Datapath) DeleteFDB([]FDBKey) error { return errStub }

// FDB reads the table.
func (d *Datapath) FDB() ([]FDBEntry, error) { return nil, errStub }

// PutAccepts writes entries.
func (d *Datapath) PutAccepts([]Accept) error { return errStub }

// DeleteAccepts removes entries.
func (d *Datapath) DeleteAccepts([]Accept) error { return errStub }

// Accepts reads the table.
func (d *Datapath) Accepts() ([]Accept, error) { return nil, errStub }

// AttachPort puts the entry, then attaches from_port to the interface.
func (d *Datapath) AttachPort(Port) error { return errStub }

// UpdatePort rewrites the entry of an attached port.
func (d *Datapath) UpdatePort(Port) error { return errStub }

// DetachPort takes the program off the interface and removes the entry.
func (d *Datapath) DetachPort(ifindex uint32) error { return errStub }

// Ports reads the table.
func (d *Datapath) Ports() ([]Port, error) { return nil, errStub }

// PortCounters reads the counters of a port id.
func (d *Datapath) PortCounters(id PortID) (PortCounters, error) { return PortCounters{}, errStub }

// ResetPort zeroes the counters and drops of a port id, for its next user.
func (d *Datapath) ResetPort(id PortID) error { return errStub }

// Drops reads all drop counts.
func (d *Datapath) Drops() ([]DropCount, error) { return nil, errStub }

// Books reads the books of every program.
func (d *Datapath) Books() ([]Books, error) { return nil, errStub }

// Tables says how full every table is.
func (d *Datapath) Tables() []TableUse { return nil }

// Programs names what is attached where, one line each.
func (d *Datapath) Programs() []string { return nil }
