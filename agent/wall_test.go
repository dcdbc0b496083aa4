package agent

import (
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/weftnet/weft/internal/testenv"
)

// TestWall turns red when the own table is not made once and for all, changes go unseen, or a foreign rule is not named.
func TestWall(t *testing.T) {
	testenv.Require(t, testenv.Root)
	ns := namespace(t, "wall")
	err := ns.Run(func() error {
		w := &wall{port: 4789}
		if err := w.ensure(); err != nil {
			return err
		}
		events, err := watchWall()
		if err != nil {
			return err
		}
		defer events.Close()
		if err := w.ensure(); err != nil {
			return err
		}
		if err := events.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			return err
		}
		buf := make([]byte, 1<<16)
		if _, err := events.Read(buf); err == nil {
			t.Error("making it again wrote something")
		}
		if s := w.suspect(); s != "" {
			t.Errorf("an open host has suspect %q", s)
		}

		c, err := nftables.New()
		if err != nil {
			return err
		}
		policy := nftables.ChainPolicyDrop
		table := c.AddTable(&nftables.Table{Name: "strict", Family: nftables.TableFamilyIPv4})
		c.AddChain(&nftables.Chain{Name: "closed", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter, Policy: &policy})
		other := c.AddChain(&nftables.Chain{Name: "rules", Table: table})
		c.AddRule(&nftables.Rule{Table: table, Chain: other, Exprs: append(w.match(), &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop})})
		if err := c.Flush(); err != nil {
			return err
		}
		if err := events.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			return err
		}
		if _, err := events.Read(buf); err != nil {
			t.Errorf("a change of the firewall was not seen: %v", err)
		}
		s := w.suspect()
		for _, part := range []string{`rule 1 (handle`, `chain "rules" of table ip "strict" drops UDP port 4789`, `chain "closed" of table ip "strict" drops what it does not accept`} {
			if !strings.Contains(s, part) {
				t.Errorf("suspect %q does not say %q", s, part)
			}
		}

		// Another port is another table.
		if err := (&wall{port: 4790}).ensure(); err != nil {
			return err
		}
		if w.right(c) || !(&wall{port: 4790}).right(c) {
			t.Error("the table does not follow the port")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
