package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/weftnet/weft/datapath/bpf"
)

// uncheckedName is weft whose programs look at nobody's right to send and count nothing: what the checks cost. The product cannot be
// run like that.
const uncheckedName = "weft, checks and counters off"

// uncheckedContender is weft in a lab of its own, whose programs are exchanged for such ones once it stands.
type uncheckedContender struct{ *weftContender }

// Name implements Contender.
func (uncheckedContender) Name() string { return uncheckedName }

func newUnchecked(ctx context.Context, cfg weftConfig) (Contender, error) {
	c, err := newWeft(ctx, cfg)
	if err != nil {
		return nil, err
	}
	weft := c.(*weftContender)
	state, err := weft.lab.State()
	for _, h := range state.Hosts {
		if err == nil {
			err = uncheck(h.PinRoot)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("build %s: %w", uncheckedName, err), c.Close())
	}
	return uncheckedContender{weft}, nil
}

// uncheck loads the tc lane once more, over the maps that are pinned there and without checks, and puts it under the pinned links.
func uncheck(pinRoot string) error {
	spec, err := bpf.LoadTC()
	if err != nil {
		return err
	}
	if err := spec.Variables[bpf.TCVarUnchecked].Set(uint8(1)); err != nil {
		return err
	}
	maps := map[string]*ebpf.Map{}
	defer func() {
		for _, m := range maps {
			m.Close()
		}
	}()
	for name, s := range spec.Maps {
		if strings.HasPrefix(name, ".") { // of the object alone: the switch itself is in one
			continue
		}
		m, err := openPinned(pinRoot, name)
		if err != nil {
			return err
		}
		maps[name], s.MaxEntries = m, m.MaxEntries()
	}
	all, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: maps})
	if err != nil {
		return fmt.Errorf("load the programs: %w", err)
	}
	defer all.Close()
	return exchange(filepath.Join(pinRoot, "links"), all.Programs)
}

// exchange puts programs under the pinned links that are named after them: NAME, or NAME_INTERFACE.
func exchange(dir string, programs map[string]*ebpf.Program) error {
	pins, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	done := map[string]bool{}
	for _, pin := range pins {
		name := strings.TrimRight(pin.Name(), "_0123456789")
		if programs[name] == nil {
			return fmt.Errorf("link %s is of no program of the tc lane", pin.Name())
		}
		l, err := link.LoadPinnedLink(filepath.Join(dir, pin.Name()), nil)
		if err != nil {
			return err
		}
		err = l.Update(programs[name])
		l.Close()
		if err != nil {
			return fmt.Errorf("exchange %s: %w", pin.Name(), err)
		}
		done[name] = true
	}
	for name, p := range programs {
		if p.Type() == ebpf.SchedCLS && !done[name] { // the others are called by the agent, not by packets
			return fmt.Errorf("program %s is not attached", name)
		}
	}
	return nil
}
