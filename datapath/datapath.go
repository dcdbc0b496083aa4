package datapath

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/cilium/ebpf"

	"github.com/weftnet/weft/datapath/bpf"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/datapath/table"
	"github.com/weftnet/weft/wire"
)

// Config says where and for what a datapath is opened.
type Config struct {
	// PinRoot is a directory on a bpffs; every map and link of this instance is pinned below it. It names the instance.
	PinRoot string
	// Uplink is the interface that carries the underlay; several are given with commas between them.
	Uplink string
	// XDP attaches the XDP lane to the uplinks, whose VLAN tags then stay in the frames (ethtool's rxvlan off); see Port.FastPath for the ports.
	XDP bool
	// Local is this host's own end of every tunnel.
	Local Local
	// Limits bound the tables; zero fields take their defaults. Other limits than those of the running instance are a new
	// layout: see Publish.
	Limits Limits
	// Log gets a line for what was found, made and taken over; nil discards.
	Log *slog.Logger

	tracePriority uint32 // tests: verdicts about packets of this priority are written to a map
}

// Datapath is an open instance, in the network namespace of the thread that called Open. Its methods are idempotent, may
// be called from several goroutines, and block for no longer than system calls do.
type Datapath struct {
	cfg   Config
	log   *slog.Logger
	ns    *netdev.Handle
	dir   string // maps of this layout
	maps  map[string]*ebpf.Map
	progs map[string]*ebpf.Program

	locals     *table.Table[uint32, bpf.TCLocal]
	vteps      *table.Table[uint32, bpf.TCVtep]
	hops       *table.Table[uint32, bpf.TCHops]
	networks   *table.Table[uint32, bpf.TCNetwork]
	floods     *table.Table[bpf.TCFloodKey, bpf.TCFloodBlock]
	fdb        *table.Table[bpf.TCFdbKey, bpf.TCFdbEntry]
	accepts    *table.Table[bpf.TCAcceptKey, uint32]
	ofPorts    *table.Table[uint32, bpf.TCBudget]
	ofNetworks *table.Table[uint32, bpf.TCBudget]
	neighbours *table.Table[bpf.TCNeighbourKey, bpf.TCNeighbour]
	claims     *table.Table[bpf.TCClaimKey, uint32]
	learned    *table.Table[bpf.TCFdbKey, bpf.TCLearnedMac]
	learners   *table.Table[bpf.TCLearnerKey, bpf.TCLearner]
	prefixes   *table.Table[bpf.TCSourceKey, uint32]
	groups     *table.Table[bpf.TCGroupKey, uint32]
	portIDs    *table.Table[uint32, uint32]
	ports      *table.Table[uint32, bpf.TCPort]
	dropCounts *table.Table[bpf.TCDropKey, uint64]
	sources    *table.Table[bpf.TCDropSourceKey, uint64]

	probed    sync.Once
	kernelCan []Capability

	mu      sync.Mutex // all below, and every change of more than one entry
	pending bool       // another layout is attached; see Publish
	local   bpf.TCLocal
	byIndex map[uint32]portRef          // by interface
	claimed map[uint32][]bpf.TCClaimKey // by port id
	lists   uint32                      // last flood list number given
	retired []retiredList
	sweeper *sweeper

	// Who hears of what the programs tell.
	firsts, punts, strangers listener
}

// portRef is what the process remembers of a port.
type portRef struct{ id, vni uint32 }

// Open loads the programs, and makes or takes over everything that is pinned under PinRoot: a restarted agent finds the
// tables as they were, and the programs are exchanged without a packet lost. It makes VXLANDevice and attaches to the
// uplink. Errors: a kernel older than 6.6, no bpffs, no such uplink, another vxlan device on the UDP port (PortTakenError).
func Open(cfg Config) (*Datapath, error) {
	cfg.Limits = cfg.Limits.withDefaults()
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := errors.Join(CheckKernel(), cfg.Local.validate()); err != nil {
		return nil, err
	}
	if err := ensureBPFFS(cfg.PinRoot); err != nil {
		return nil, err
	}
	ns, err := netdev.Current()
	if err != nil {
		return nil, err
	}
	d := &Datapath{cfg: cfg, log: cfg.Log, ns: ns, maps: map[string]*ebpf.Map{}, progs: map[string]*ebpf.Program{}}
	d.sweeper = newSweeper(d)
	if err := d.open(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func (d *Datapath) open() error {
	spec, err := bpf.LoadTC()
	if err != nil {
		return fmt.Errorf("read the programs: %w", err)
	}
	xdp, err := bpf.LoadXDP()
	if err != nil {
		return fmt.Errorf("read the XDP programs: %w", err)
	}
	for _, s := range []*ebpf.CollectionSpec{spec, xdp} {
		d.cfg.Limits.apply(s)
		if err := s.Variables["trace_verdicts"].Set(d.cfg.tracePriority); err != nil {
			return err
		}
	}
	if err := d.openMaps(spec); err != nil {
		return err
	}
	if d.local.Mark, err = d.secret("secret", newMark); err != nil {
		return err
	}
	if d.local.Seal, err = d.secret("seal", newSeal); err != nil {
		return err
	}
	if err := d.SetLocal(d.cfg.Local); err != nil {
		return err
	}
	if err := d.recall(); err != nil {
		return err
	}
	if err := errors.Join(d.load(spec), d.load(xdp)); err != nil {
		return err
	}
	old, err := d.otherLayouts()
	if err != nil {
		return err
	}
	d.pending = len(old) > 0
	d.log.Info("opened the datapath", "pins", d.dir, "new layout aside", d.pending)
	if d.pending {
		return nil
	}
	return d.Publish()
}

// openMaps makes the layout's maps or takes over pinned ones.
func (d *Datapath) openMaps(spec *ebpf.CollectionSpec) error {
	d.dir = filepath.Join(d.cfg.PinRoot, layoutDir(layoutHash(spec)))
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return fmt.Errorf("make pin directory: %w", err)
	}
	for name, ms := range spec.Maps {
		if !shared(name) {
			continue
		}
		m, err := openMap(filepath.Join(d.dir, name), ms)
		if err != nil {
			return err
		}
		d.maps[name] = m
	}
	l := d.cfg.Limits
	d.locals = table.New[uint32, bpf.TCLocal]("local", d.maps["locals"], 1)
	d.vteps = table.New[uint32, bpf.TCVtep]("vteps", d.maps["vteps"], l.VTEPs)
	d.hops = table.New[uint32, bpf.TCHops]("next hops", d.maps["equal_hops"], l.VTEPs)
	d.networks = table.New[uint32, bpf.TCNetwork]("networks", d.maps["networks"], l.Networks)
	d.floods = table.New[bpf.TCFloodKey, bpf.TCFloodBlock]("flood blocks", d.maps["floods"], l.FloodBlocks)
	d.fdb = table.New[bpf.TCFdbKey, bpf.TCFdbEntry]("fdb", d.maps["fdb"], l.FDB)
	d.accepts = table.New[bpf.TCAcceptKey, uint32]("accepts", d.maps["accepts"], l.Accepts)
	d.ofPorts = table.New[uint32, bpf.TCBudget]("port budgets", d.maps["port_budgets"], l.Ports)
	d.ofNetworks = table.New[uint32, bpf.TCBudget]("network budgets", d.maps["network_budgets"], l.Networks)
	d.neighbours = table.New[bpf.TCNeighbourKey, bpf.TCNeighbour]("neighbours", d.maps["neighbours"], l.Neighbours)
	d.claims = table.New[bpf.TCClaimKey, uint32]("claims", d.maps["claims"], l.Claims)
	d.learned = table.New[bpf.TCFdbKey, bpf.TCLearnedMac]("learned MACs", d.maps["learned"], l.Learned)
	d.learners = table.New[bpf.TCLearnerKey, bpf.TCLearner]("learners", d.maps["learners"], l.Accepts+l.Ports)
	d.prefixes = table.New[bpf.TCSourceKey, uint32]("sources", d.maps["sources"], l.Sources)
	d.groups = table.New[bpf.TCGroupKey, uint32]("groups", d.maps["groups"], l.Groups)
	d.portIDs = table.New[uint32, uint32]("interfaces", d.maps["port_ids"], l.Ports)
	d.ports = table.New[uint32, bpf.TCPort]("ports", d.maps["ports"], l.Ports)
	d.dropCounts = table.New[bpf.TCDropKey, uint64]("drop counters", d.maps["drops"], l.DropKeys)
	d.sources = table.New[bpf.TCDropSourceKey, uint64]("drop sources", d.maps["drop_sources"], l.DropSources)
	return nil
}

func openMap(path string, spec *ebpf.MapSpec) (*ebpf.Map, error) {
	m, err := ebpf.LoadPinnedMap(path, nil)
	if err == nil {
		return m, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open pinned map %s: %w", path, err)
	}
	if m, err = ebpf.NewMap(spec); err != nil {
		return nil, fmt.Errorf("make map %s: %w", spec.Name, err)
	}
	if err := m.Pin(path); err != nil {
		return nil, errors.Join(fmt.Errorf("pin map %s: %w", path, err), m.Close())
	}
	return m, nil
}

// recall reads back what the process has to know of the tables: which port is where, and which flood lists are in use.
func (d *Datapath) recall() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.byIndex = map[uint32]portRef{}
	if err := d.portIDs.All(func(ifindex, id uint32) { d.byIndex[ifindex] = portRef{id: id} }); err != nil {
		return err
	}
	if err := d.ports.All(func(id uint32, e bpf.TCPort) {
		if have, ok := d.byIndex[e.Ifindex]; ok && have.id == id {
			d.byIndex[e.Ifindex] = portRef{id: id, vni: e.Vni}
		}
	}); err != nil {
		return err
	}
	if err := d.recallClaims(); err != nil {
		return err
	}
	if err := d.reserveDropKeys(); err != nil {
		return err
	}
	return d.recallLists()
}

// Close closes what the process holds, and waits for its goroutines; everything stays in the kernel and goes on.
func (d *Datapath) Close() error {
	var errs []error
	d.sweeper.stop()
	d.firsts.stop()
	d.punts.stop()
	d.strangers.stop()
	for _, p := range d.progs {
		errs = append(errs, p.Close())
	}
	for _, m := range d.maps {
		errs = append(errs, m.Close())
	}
	d.ns.Close()
	return errors.Join(errs...)
}

// wordOf is how the maps hold a MAC to compare with: octet 0 lowest.
func wordOf(m wire.MAC) (w uint64) {
	for i, o := range m {
		w |= uint64(o) << (8 * i)
	}
	return w
}

func macOf(w uint64) (m wire.MAC) {
	for i := range m {
		m[i] = byte(w >> (8 * i))
	}
	return m
}
