package bench

import (
	"slices"
	"strings"
	"testing"
)

func TestVerdictsSayHowSureTheyAre(t *testing.T) {
	for _, c := range []struct {
		v    Verdict
		want string
	}{
		{Verdict{}, "not measured"},
		{Verdict{Measured: true, Reached: true, Want: 2, Stretch: 2.2, Ratio: 2.3, RatioLow: 2.1}, "yes, and the stretch target of 2.2"},
		{Verdict{Measured: true, Reached: true, Want: 2, Stretch: 2.2, Ratio: 2.1, RatioLow: 2.05}, "yes"},
		{Verdict{Measured: true, Reached: true, Want: 2, Ratio: 2.1, RatioLow: 1.9}, "yes, but the interval reaches below"},
		{Verdict{Measured: true, Want: 2, Ratio: 1.9, RatioHigh: 2.1}, "no, but the interval reaches above"},
		{Verdict{Measured: true, Want: 2, Ratio: 1.5, RatioHigh: 1.6}, "no"},
	} {
		if got := c.v.answer(); got != c.want {
			t.Errorf("%+v: %q, want %q", c.v, got, c.want)
		}
	}
}

func TestJudgeFindsItsMeasures(t *testing.T) {
	s := Series{Measure: smallPackets, Unit: "ns", Reference: tunedName}
	for round := range MinRounds {
		s.Samples = append(s.Samples, Sample{round, weftName, 500}, Sample{round, tunedName, 1100}, Sample{round, ovsName, 2000})
	}
	s.Rows = summarise(s, []string{weftName, tunedName, ovsName})
	rate := Series{Measure: planMeasure(1_000_000), Unit: "entries/s", Higher: true}
	for round := range MinRounds {
		rate.Samples = append(rate.Samples, Sample{round, weftName, 400_000 + float64(round)})
	}
	r := Result{Series: []Series{s, rate}}
	r.judge()
	if v := r.Verdicts[0]; !v.Reached || v.Ratio != 2.2 {
		t.Errorf("against the kernel: %+v", v)
	}
	if v := r.Verdicts[1]; v.Reached || v.Ratio != 4 {
		t.Errorf("against Open vSwitch: %+v", v)
	}
	last := slices.IndexFunc(r.Verdicts, func(v Verdict) bool { return strings.HasPrefix(v.What, "plan of") })
	if v := r.Verdicts[last]; !v.Reached || v.Unit != "entries/s" || v.found() != "400,002 (400,000 - 400,004)" || v.wanted() != ">= 300,000 entries/s" {
		t.Errorf("the rate: %+v", v)
	}
	var b strings.Builder
	if err := r.WriteMarkdown(&b); err != nil || !strings.Contains(b.String(), "| 64 B forwarding, tc lane | Open vSwitch, user space | >= 5 x | 4.00 (4.00 - 4.00) | no |") {
		t.Errorf("%v\n%s", err, b.String())
	}
}

// TestWhatIsNotReachedIsExplained: every note is about a target, and a target that is not reached is written about. Misspell a target in
// notes and it goes red.
func TestWhatIsNotReachedIsExplained(t *testing.T) {
	known := map[[2]string]bool{}
	for _, target := range targets() {
		known[[2]string{target.what, target.reference}] = true
	}
	for about := range notes {
		if !known[about] {
			t.Errorf("a note is about %q, which is no target", about)
		}
	}
	r := Result{Verdicts: []Verdict{
		{What: "TCP bulk, offloads on, veth ports", Against: vethName, Measured: true, Unit: "x", Want: 0.93, Ratio: 0.8},
		{What: "64 B forwarding, tc lane", Against: tunedName, Measured: true, Reached: true, Unit: "x", Want: 2, Ratio: 2.5},
		{What: "packets, TAP", Against: tunedName, Unit: "x", Want: 1.3},
	}}
	var b strings.Builder
	if r.explain(&b); strings.Count(b.String(), "wanted") != 1 || !strings.Contains(b.String(), "against direct veth**: wanted >= 0.93 x, found 0.80") {
		t.Errorf("explained: %s", b.String())
	}
}

func TestGroupedAndSpread(t *testing.T) {
	if got := grouped(1234567) + " " + grouped(100) + " " + grouped(1000); got != "1,234,567 100 1,000" {
		t.Error(got)
	}
	seen := map[string]bool{}
	for _, m := range spreadMACs(100_000) {
		seen[m.String()] = true
	}
	if len(seen) != 100_000 {
		t.Errorf("%d MACs differ, of 100,000", len(seen))
	}
}
