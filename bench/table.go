package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/cilium/ebpf"

	"github.com/weftnet/weft/wire"
)

// named is a Contender under another name: one whose hosts know many MACs behind the other workload, besides the two that send, has the
// size of its table in it.
type named struct {
	Contender
	name string
}

// Name implements Contender.
func (t named) Name() string { return t.name }

// tableFiller is a Contender that can be given a table: n MACs, all behind workload b.
type tableFiller interface {
	fill(ctx context.Context, n int) error
}

func tableName(name string, n int) string { return fmt.Sprintf("%s, %s entries", name, grouped(n)) }

// grouped writes a number with commas.
func grouped(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// fill gives the kernel the same table as weft: on the sender the bridge and the vxlan device need each MAC, on the receiver the
// bridge.
func (c *bridgeVXLAN) fill(_ context.Context, n int) error {
	macs := spreadMACs(n)
	return errors.Join(c.uplinks[0].netns.AddFDBs("vx0", macs, hostAddrs[1]), c.uplinks[1].netns.AddFDBs("port0", macs, netip.Addr{}))
}

// fdbKey is the key of weft's pinned table.
type fdbKey struct {
	VNI uint32
	MAC wire.MAC
	Pad uint16
}

// fill writes into the pinned tables of both hosts, as their agents would. The agents are ended before, for good: they would
// take away what no plan asks for, and a plan of a million ports would measure the server.
func (c *weftContender) fill(ctx context.Context, n int) error {
	state, err := c.lab.State()
	if err != nil {
		return err
	}
	for _, h := range state.Hosts {
		if err := c.lab.StopAgent(ctx, h.Name); err != nil {
			return err
		}
		if err := fillPinned(h.PinRoot, n, fdbKey{VNI: benchVNI, MAC: c.workloads[1].MAC}); err != nil {
			return fmt.Errorf("fill the FDB of %s: %w", h.Name, err)
		}
	}
	return nil
}

// openPinned opens a table of the one layout that is pinned there.
func openPinned(root, name string) (*ebpf.Map, error) {
	paths, err := filepath.Glob(filepath.Join(root, "*", name))
	if err != nil || len(paths) != 1 {
		return nil, fmt.Errorf("%d tables %s are pinned under %s, not one", len(paths), name, root)
	}
	return ebpf.LoadPinnedMap(paths[0], nil)
}

// fillPinned makes n entries that say what that of one key says.
func fillPinned(root string, n int, like fdbKey) error {
	m, err := openPinned(root, "fdb")
	if err != nil {
		return err
	}
	defer m.Close()
	var value [16]byte
	if err := m.Lookup(like, &value); err != nil {
		return fmt.Errorf("look up %s: %w", like.MAC, err)
	}
	const batch = 10_000
	for first := 0; first < n; first += batch {
		count := min(batch, n-first)
		keys, values := make([]fdbKey, count), make([][16]byte, count)
		for i := range keys {
			keys[i], values[i] = fdbKey{VNI: like.VNI, MAC: spreadMAC(first + i)}, value
		}
		if _, err := m.BatchUpdate(keys, values, nil); err != nil {
			return err
		}
	}
	return nil
}

const (
	fewDestinations  = 10
	manyDestinations = 100_000
)

func fdbMeasure(destinations int) string {
	return fmt.Sprintf("FDB, %s active destinations", grouped(destinations))
}

// tables measures packets to destinations spread over tables of several sizes, each with contenders of its own.
func (f *field) tables(ctx context.Context) (_ []Series, err error) {
	var few, many []Contender
	var all []Contender
	defer func() { err = errors.Join(err, closeAll(all)) }()
	sizes := map[string]int{}
	largest := 0
	for i, n := range f.cfg.Tables {
		for _, build := range []func() (Contender, error){
			func() (Contender, error) {
				return newWeft(ctx, weftConfig{lab: fmt.Sprintf("bench-f%d", i), binary: f.cfg.Binary})
			},
			func() (Contender, error) { return newBridgeVXLAN(tunedName, fmt.Sprintf("weft-bench-f%dk-", i), true) },
		} {
			c, err := build()
			if err != nil {
				return nil, err
			}
			all = append(all, c)
			if err := parity(c); err != nil {
				return nil, err
			}
			if err := c.(tableFiller).fill(ctx, n); err != nil {
				return nil, fmt.Errorf("%s: %w", c.Name(), err)
			}
			t := named{c, tableName(c.Name(), n)}
			sizes[t.name] = n
			f.say("built: " + t.name)
			few = append(few, t)
			if n >= min(manyDestinations, f.cfg.Tables[len(f.cfg.Tables)-1]) {
				many = append(many, t)
			}
		}
		largest = n
	}
	var out []Series
	for _, m := range []struct {
		destinations int
		contenders   []Contender
	}{{fewDestinations, few}, {min(manyDestinations, largest), many}} {
		s, err := f.compare(ctx, Series{Measure: fdbMeasure(m.destinations), Unit: "ns/packet", Reference: tableName(tunedName, largest)}, m.contenders,
			func(c Contender) (float64, error) {
				return f.cost(c, traffic{Length: frameOctets, Destinations: m.destinations, Entries: sizes[c.Name()]}, f.cfg.Frames)
			})
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

func closeAll(all []Contender) error {
	var errs []error
	for _, c := range all {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}
