package datapath

import (
	"fmt"
	"time"

	"github.com/weftnet/weft/datapath/bpf"
	"github.com/weftnet/weft/datapath/table"
)

// MaxBUMLimit is the largest BUM limit: its frames are still nanoseconds apart.
const MaxBUMLimit = 10_000_000

func checkBUM(limit uint32) error {
	if limit > MaxBUMLimit {
		return fmt.Errorf("BUM limit %d is larger than %d", limit, MaxBUMLimit)
	}
	return nil
}

// budgetOf is an unused budget of so many frames a second.
func budgetOf(limit uint32) bpf.TCBudget {
	if limit == 0 {
		return bpf.TCBudget{}
	}
	return bpf.TCBudget{Interval: uint32(time.Second) / limit, Limit: limit}
}

// putBudget sets a limit; one that stays keeps what is used of it.
func putBudget(t *table.Table[uint32, bpf.TCBudget], key, limit uint32) error {
	have, ok, err := t.Get(key)
	if err != nil {
		return err
	}
	want := budgetOf(limit)
	if ok && have.Limit == limit {
		return nil
	}
	return t.PutOne(key, want)
}
