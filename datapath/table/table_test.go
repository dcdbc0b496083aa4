package table

import (
	"errors"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/weftnet/weft/internal/testenv"
)

// TestPutOnSeveralCores writes more than one core does at once into a map that is too small: all that fits is there, and what does
// not is counted. Count the refused of the first writer alone, or let every writer take the first share, and it goes red.
func TestPutOnSeveralCores(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.BPF)
	const limit, over = many, 2 * many
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "wefttest_table", Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: limit, Flags: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	keys, values := make([]uint32, limit+over), make([]uint32, limit+over)
	for i := range keys {
		keys[i], values[i] = uint32(i), uint32(i)*3
	}
	table := New[uint32, uint32]("numbers", m, limit)
	full := new(FullError)
	if err := table.Put(keys, values); !errors.As(err, &full) || full.Refused != over {
		t.Errorf("put %d where %d fit: %v", len(keys), limit, err)
	}
	seen := map[uint32]bool{}
	if err := table.All(func(k, v uint32) {
		seen[k] = true
		if v != 3*k {
			t.Errorf("%d holds %d", k, v)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if len(seen) != limit || table.Refused() != over {
		t.Errorf("%d entries, want %d; %d refused, want %d", len(seen), limit, table.Refused(), over)
	}
}
