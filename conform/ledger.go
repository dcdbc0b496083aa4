package conform

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/weftnet/weft/datapath"
)

// ledger is every count of a datapath.
type ledger struct {
	books map[string]datapath.Books
	lanes map[string]uint64
	drops map[string]uint64
}

func (b *bed) ledger() (l ledger, err error) {
	l = ledger{map[string]datapath.Books{}, map[string]uint64{}, map[string]uint64{}}
	books, err := b.dp.Books()
	if err != nil {
		return l, err
	}
	for _, k := range books {
		l.books[k.Program] = k
	}
	lanes, err := b.dp.Lanes()
	if err != nil {
		return l, err
	}
	for _, c := range lanes {
		l.lanes[c.Reason.String()] = c.Packets
	}
	drops, err := b.dp.Drops()
	if err != nil {
		return l, err
	}
	for _, d := range drops {
		if !d.Source.IsValid() {
			l.drops[d.Reason.String()] += d.Packets
		}
	}
	return l, nil
}

// balanced: in = delivered + encapsulated + passed + answered + dropped for every program, and every drop has a name.
func (l ledger) balanced() error {
	var dropped, named uint64
	for _, k := range l.books {
		if k.In != k.Delivered+k.Encapsulated+k.Passed+k.Answered+k.Dropped {
			return fmt.Errorf("the books of %s do not balance: %+v", k.Program, k)
		}
		dropped += k.Dropped
	}
	for reason, n := range l.drops {
		if !strings.HasPrefix(reason, "copy_") { // those stand apart
			named += n
		}
	}
	if dropped != named {
		return fmt.Errorf("%d packets are dropped by the books, %d by name: %v", dropped, named, l.drops)
	}
	return nil
}

// since is what was counted after an earlier ledger, without zeros.
func (l ledger) since(before ledger) (lanes, drops map[string]uint64) {
	return subtract(l.lanes, before.lanes), subtract(l.drops, before.drops)
}

func subtract(now, before map[string]uint64) map[string]uint64 {
	d := map[string]uint64{}
	for _, k := range slices.Sorted(maps.Keys(now)) {
		if n := now[k] - before[k]; n != 0 {
			d[k] = n
		}
	}
	return d
}
