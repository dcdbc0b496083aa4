// Package table is one typed BPF map at a time: batches in, whole dumps out, a limit with a name, and a count of what did
// not fit.
//
// It knows no meaning: keys and values are the generated C layouts, and package datapath says what they are. Read Table
// and FullError first.
package table

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Table is a map with keys K and values V, both free of implicit padding. Safe for several goroutines as the kernel's map
// is: an update is one entry at a time.
type Table[K comparable, V any] struct {
	name    string
	m       *ebpf.Map
	limit   int
	refused atomic.Uint64
}

// batch is how many entries go to the kernel in a call: 1.0-1.2 million entries/s; larger is not faster.
const batch = 4096

// Half a second in all, then the error is the caller's.
const (
	memoryTries = 100
	memoryPause = 5 * time.Millisecond
)

// New makes a Table of a map. limit is how many entries a user may put, which for an array is less than its size when
// index 0 is not used.
func New[K comparable, V any](name string, m *ebpf.Map, limit int) *Table[K, V] {
	return &Table[K, V]{name: name, m: m, limit: limit}
}

// FullError says that entries did not fit. What fitted is there, and what was there before works on.
type FullError struct {
	Table   string
	Limit   int
	Refused int
}

// Error names the table, its limit and what to do.
func (e *FullError) Error() string {
	return fmt.Sprintf("table %s is full (limit %d): %d entries did not fit; take networks or ports off this host, or start its agent with a larger --tables", e.Table, e.Limit, e.Refused)
}

// Name is the table's name.
func (t *Table[K, V]) Name() string { return t.name }

// Limit is the largest number of entries.
func (t *Table[K, V]) Limit() int { return t.limit }

// Refused counts entries that did not fit since New.
func (t *Table[K, V]) Refused() uint64 { return t.refused.Load() }

// Refuse counts n entries that the caller found not to fit, and is their error.
func (t *Table[K, V]) Refuse(n int) error {
	t.refused.Add(uint64(n))
	return &FullError{Table: t.name, Limit: t.limit, Refused: n}
}

// many is from how many entries on several cores write at once: most of the time a batch spends in the kernel is waiting for memory.
const many = 16 * batch

// Put writes entries, old keys and new, none twice, in no order. Where some do not fit the others are written all the same, and the error is a
// *FullError.
func (t *Table[K, V]) Put(keys []K, values []V) error {
	shares := 1
	if len(keys) >= many {
		shares = runtime.GOMAXPROCS(0)
	}
	refused, errs := make([]int, shares), make([]error, shares)
	var writers sync.WaitGroup
	for i := range shares {
		from, to := i*len(keys)/shares, (i+1)*len(keys)/shares
		writers.Go(func() { refused[i], errs[i] = t.put(keys[from:to], values[from:to]) })
	}
	writers.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	sum := 0
	for _, n := range refused {
		sum += n
	}
	if sum > 0 {
		return t.Refuse(sum)
	}
	return nil
}

// put writes entries in batches, and counts those that do not fit.
func (t *Table[K, V]) put(keys []K, values []V) (refused int, err error) {
	for len(keys) > 0 {
		n := min(len(keys), batch)
		done, err := t.m.BatchUpdate(keys[:n], values[:n], nil)
		if err != nil {
			done = max(0, min(done, n))
			if full, err := t.putOne(keys[done], values[done]); err != nil {
				return refused, fmt.Errorf("put into %s: %w", t.name, err)
			} else if full {
				refused++
			}
			n = done + 1
		}
		keys, values = keys[n:], values[n:]
	}
	return refused, nil
}

func (t *Table[K, V]) putOne(k K, v V) (full bool, err error) {
	// A map without preallocation can find the kernel's cache of elements empty under load; it is filled a moment later.
	for try := 0; ; try++ {
		if err = t.m.Put(&k, &v); !errors.Is(err, unix.ENOMEM) || try == memoryTries {
			break
		}
		time.Sleep(memoryPause)
	}
	if errors.Is(err, unix.E2BIG) || errors.Is(err, unix.ENOSPC) {
		return true, nil
	}
	return false, err
}

// PutOne is Put for one entry.
func (t *Table[K, V]) PutOne(k K, v V) error {
	full, err := t.putOne(k, v)
	if err != nil {
		return fmt.Errorf("put into %s: %w", t.name, err)
	}
	if full {
		return t.Refuse(1)
	}
	return nil
}

// Get reads an entry.
func (t *Table[K, V]) Get(k K) (v V, ok bool, err error) {
	err = t.m.Lookup(&k, &v)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return v, false, nil
	}
	if err != nil {
		return v, false, fmt.Errorf("look up in %s: %w", t.name, err)
	}
	return v, true, nil
}

// Delete removes entries; absent ones are fine. Not for arrays.
func (t *Table[K, V]) Delete(keys []K) error {
	for len(keys) > 0 {
		n := min(len(keys), batch)
		done, err := t.m.BatchDelete(keys[:n], nil)
		if err != nil {
			done = max(0, min(done, n-1))
			k := keys[done]
			if err := t.m.Delete(&k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return fmt.Errorf("delete from %s: %w", t.name, err)
			}
			n = done + 1
		}
		keys = keys[n:]
	}
	return nil
}

// All dumps the table in no order. Entries that come or go during the dump may be seen or not; every other one is seen, once
// or more.
func (t *Table[K, V]) All(visit func(K, V)) error {
	var cursor ebpf.MapBatchCursor
	size := min(batch, max(1, int(t.m.MaxEntries())))
	keys, values := make([]K, size), make([]V, size)
	for {
		n, err := t.m.BatchLookup(&cursor, keys, values, nil)
		for i := range n {
			visit(keys[i], values[i])
		}
		switch {
		case errors.Is(err, ebpf.ErrKeyNotExist):
			return nil
		case errors.Is(err, unix.ENOSPC) && n == 0 && size < int(t.m.MaxEntries()):
			size = min(size*2, int(t.m.MaxEntries())) // one bucket holds more than the batch
			keys, values = make([]K, size), make([]V, size)
		case err != nil:
			return fmt.Errorf("dump %s: %w", t.name, err)
		}
	}
}

// Len counts the entries by a dump: 0.3 s for a million.
func (t *Table[K, V]) Len() (int, error) {
	n := 0
	err := t.All(func(K, V) { n++ })
	return n, err
}
