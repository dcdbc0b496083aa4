package conform

import (
	"fmt"
	"io"
	"slices"
)

// table is the results, arranged.
type table struct {
	rows  []Row
	names map[string][]string // of cases, by rule, in their order
	cells map[string]map[Row]string
	width int // of the names
	cases int
}

func newTable(results []Result) *table {
	t := &table{names: map[string][]string{}, cells: map[string]map[Row]string{}}
	for _, r := range results {
		key := r.Case.Rule + " " + r.Case.Name
		if t.cells[key] == nil {
			t.cells[key], t.names[r.Case.Rule] = map[Row]string{}, append(t.names[r.Case.Rule], r.Case.Name)
			t.width, t.cases = max(t.width, len(r.Case.Name)), t.cases+1
		}
		if !slices.Contains(t.rows, r.Row) {
			t.rows = append(t.rows, r.Row)
		}
		t.cells[key][r.Row] = "ok"
		if r.Err != nil {
			t.cells[key][r.Row] = "FAIL"
		}
	}
	return t
}

func (t *table) heading(w io.Writer) {
	fmt.Fprintf(w, "%-12s%-*s", "RULE", t.width, "CASE")
	for _, row := range t.rows {
		fmt.Fprintf(w, "  %s", row)
	}
	fmt.Fprintln(w)
}

// rule prints one rule's cases; a case that makes no sense in a row has a dash there.
func (t *table) rule(w io.Writer, rule Rule) {
	if len(t.names[rule.ID]) == 0 {
		return
	}
	fmt.Fprintf(w, "%-12s%s (%s)\n", rule.ID, rule.Text, rule.Source)
	for _, name := range t.names[rule.ID] {
		fmt.Fprintf(w, "%-12s%-*s", "", t.width, name)
		for i, row := range t.rows {
			cell := t.cells[rule.ID+" "+name][row]
			if cell == "" {
				cell = "-"
			}
			if i == len(t.rows)-1 {
				fmt.Fprintf(w, "  %s", cell)
			} else {
				fmt.Fprintf(w, "  %-*s", len(row.String()), cell)
			}
		}
		fmt.Fprintln(w)
	}
}
