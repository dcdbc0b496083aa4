package conform

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/internal/testenv"
)

// TestConform runs every case in every row. Red when, for instance, from_uplink takes a reserved bit for an error, write_outer forgets the
// don't-fragment bit, check_group lets every group in, flood_by_kernel sends to an IPv6 group, or JoinGroup adds its address without autojoin.
func TestConform(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.BPF)
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	results, err := Run(ctx, Config{})
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	failed, err := Write(&table, results)
	if err != nil {
		t.Fatal(err)
	}
	if failed > 0 {
		t.Error(table.String())
	}
	if len(results) < len(Rows())*280 {
		t.Errorf("only %d results", len(results))
	}
	empty(t)
}

// empty: nothing is left.
func empty(t *testing.T) {
	t.Helper()
	if left, err := netdev.Namespaces(prefix); err != nil || len(left) > 0 {
		t.Errorf("namespaces are left: %v %v", left, err)
	}
	if _, err := os.Stat(pinRoot); !os.IsNotExist(err) {
		t.Errorf("pins are left: %v", err)
	}
}

// TestInterruptedLeavesNothing: the context ends while cases run; and a run that was killed is cleaned up by the next.
func TestInterruptedLeavesNothing(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.BPF)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, Config{}); err == nil {
		t.Error("an interrupted run reports nothing")
	}
	empty(t)
	if _, err := newBed(Rows()[0]); err != nil { // and nobody takes it away
		t.Fatal(err)
	}
	if _, err := Run(t.Context(), Config{Rows: Rows()[:1], Match: regexp.MustCompile("^9 ")}); err != nil {
		t.Fatal(err)
	}
	empty(t)
}

// TestCasesHaveNamesOfTheirOwn: the table has a line for each; and every rule has a case, or says why not. Red when a case's rule is
// misspelt: it would be in no table.
func TestCasesHaveNamesOfTheirOwn(t *testing.T) {
	seen, of := map[string]bool{}, map[string]int{}
	for _, c := range Cases() {
		of[c.Rule]++
		name := c.Rule + " " + c.Name
		if seen[name] || c.Rule == "" || c.Name == "" || c.do == nil {
			t.Errorf("%q is twice, or unfinished", name)
		}
		seen[name] = true
	}
	for _, r := range Rules() {
		if (of[r.ID] == 0) != (r.Missing != "") {
			t.Errorf("rule %s has %d cases; missing: %q", r.ID, of[r.ID], r.Missing)
		}
		delete(of, r.ID)
	}
	if len(of) > 0 {
		t.Errorf("cases of rules that are not listed: %v", of)
	}
}

// TestTable: a column a row, a dash where a case makes no sense, and what failed at the end.
func TestTable(t *testing.T) {
	one, two := Row{TC, IPv4}, Row{XDP, IPv6}
	failed, err := Write(io.Discard, nil)
	if failed != 0 || err != nil {
		t.Errorf("an empty table: %d %v", failed, err)
	}
	var got strings.Builder
	failed, err = Write(&got, []Result{{Case: Case{Rule: "12", Name: "a name"}, Row: one}, {Case: Case{Rule: "9", Name: "only here"}, Row: two, Err: errors.New("so")},
		{Case: Case{Rule: "12", Name: "a name"}, Row: two}})
	want := `RULE        CASE       tc/ipv4  xdp/ipv6
9           the I flag must be set; the other flags are 0 when sent and ignored when received (RFC 7348, section 5)
            only here  -        FAIL
12          the destination UDP port is 4789 unless configured (RFC 7348, section 5)
            a name     ok       ok

xdp/ipv6, rule 9, only here:
  so

2 cases in 2 rows: 1 of 3 failed
`
	if failed != 1 || err != nil || got.String() != want {
		t.Errorf("%d %v\n%s\nwant\n%s", failed, err, got.String(), want)
	}
}

// TestParseRow: every row by its name, and nothing else.
func TestParseRow(t *testing.T) {
	for _, row := range Rows() {
		if got, err := ParseRow(row.String()); got != row || err != nil {
			t.Errorf("%s is read as %s: %v", row, got, err)
		}
	}
	if _, err := ParseRow("xdp"); err == nil || !strings.Contains(err.Error(), "xdp/ipv6") {
		t.Errorf("a row that there is not: %v; the error must name those that there are", err)
	}
}
