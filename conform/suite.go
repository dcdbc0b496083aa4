package conform

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// Case is one rule in one situation.
type Case struct {
	// Rule is the ID of one of Rules.
	Rule string
	Name string
	// Lanes in which, and Underlays over which, it makes sense; empty is all.
	Lanes     []Lane
	Underlays []Underlay
	// Not are rows whose lane cannot carry it.
	Not []Row
	do  func(*bed) error
}

// in reports whether the case makes sense in a row.
func (c Case) in(row Row) bool {
	return (len(c.Lanes) == 0 || slices.Contains(c.Lanes, row.Lane)) && (len(c.Underlays) == 0 || slices.Contains(c.Underlays, row.Underlay)) &&
		!slices.Contains(c.Not, row)
}

// Cases are all of them, in the order in which they run.
func Cases() []Case {
	return slices.Concat(outCases(), inCases(), addressCases(), headerCases(), brokenCases(), fragmentCases(), vlanCases(), floodCases(), learnCases(), groupCases(), rogueCases(), ttlCases(), ecnCases(), dscpCases(), mtuCases(), laneCases())
}

// Result is a case in a row.
type Result struct {
	Case Case
	Row  Row
	Err  error
}

// Config chooses what runs; the zero value is everything.
type Config struct {
	// Match is of the names of cases, "rule name".
	Match *regexp.Regexp
	Rows  []Row
}

// Run runs every case in every row. The results are complete unless it returns an error, which is about the machine and not
// about a case. However it ends, nothing is left.
func Run(ctx context.Context, cfg Config) (results []Result, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("the cases run in network namespaces, and making them needs root: run it with sudo")
	}
	release, err := own()
	if err != nil {
		return nil, err
	}
	defer release()
	if err := clean(); err != nil {
		return nil, fmt.Errorf("take away what an earlier run left: %w", err)
	}
	rows := cfg.Rows
	if len(rows) == 0 {
		rows = Rows()
	}
	done := make(chan error, 1)
	go func() { // of its own, for its thread is bound to a CPU, and ends with it
		runtime.LockOSThread()
		done <- func() error {
			if err := oneCPU(); err != nil {
				return err
			}
			for _, row := range rows {
				if err := runRow(ctx, cfg, row, &results); err != nil {
					return err
				}
			}
			return nil
		}()
	}()
	err = <-done
	return results, err
}

// oneCPU binds the thread to one: packets then keep their order through every queue.
func oneCPU() error {
	var have, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &have); err != nil {
		return fmt.Errorf("read the CPU affinity: %w", err)
	}
	for i := range 1024 {
		if have.IsSet(i) {
			one.Set(i)
			break
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("bind to a CPU: %w", err)
	}
	return nil
}

// warmings bound how often a case is repeated because the XDP lane let the kernel see one of its packets: again and again where the machine stands
// still between the warming and the case.
const warmings = 10

func runRow(ctx context.Context, cfg Config, row Row, results *[]Result) (err error) {
	b, err := newBed(row)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	for _, c := range Cases() {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("interrupted: %w", err)
		}
		if !c.in(row) || cfg.Match != nil && !cfg.Match.MatchString(c.Rule+" "+c.Name) {
			continue
		}
		failure := c.do(b)
		for again := 0; again < warmings && errors.Is(failure, errNextHop); again++ {
			if failure = errors.Join(b.reset(), b.warm()); failure == nil {
				failure = c.do(b)
			}
		}
		if failure != nil {
			failure = errors.Join(failure, b.reset())
			b.patience = max(b.patience/4, patience/50) // so that a broken datapath does not take all day
		}
		*results = append(*results, Result{Case: c, Row: row, Err: failure})
	}
	return nil
}

// Write prints the table: for each rule what it asks for, then a line a case, a column a row; then what failed. It returns how many did.
func Write(w io.Writer, results []Result) (failed int, err error) {
	out := bufio.NewWriter(w)
	t := newTable(results)
	t.heading(out)
	for _, rule := range rules {
		t.rule(out, rule)
	}
	for _, r := range results {
		if r.Err != nil {
			failed++
			fmt.Fprintf(out, "\n%s, rule %s, %s:\n  %v\n", r.Row, r.Case.Rule, r.Case.Name, r.Err)
		}
	}
	fmt.Fprintf(out, "\n%d cases in %d rows: %d of %d failed\n", t.cases, len(t.rows), failed, len(results))
	return failed, out.Flush()
}
