package bench

import (
	"errors"
	"math"
	"strings"
	"testing"
)

func TestCompareRotatesAndTakesMedianOfRatios(t *testing.T) {
	var order []string
	// b is always twice as fast as a, while the machine gets slower round by round: only ratios within a round show it.
	slow := map[string]float64{"a": 100, "b": 50}
	calls := 0
	s, err := Compare(Series{Measure: "cost", Unit: "ns", Reference: "a"}, []string{"a", "b"}, 5,
		func(c string) (float64, error) {
			order = append(order, c)
			calls++
			return slow[c] * float64(1+(calls-1)/2), nil
		}, func(Sample) {})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(order, ""); got != "abbaabbaab" {
		t.Errorf("order %s, want each round to begin with the next contender", got)
	}
	if s.Rows[1].Ratio != 2 || s.Rows[1].RatioLow != 2 || s.Rows[1].RatioHigh != 2 {
		t.Errorf("ratio %+v, want 2 in every round", s.Rows[1])
	}
	if s.Rows[0].Median != 300 {
		t.Errorf("median %v, want 300", s.Rows[0].Median)
	}
}

func TestCompareRefusesFewRoundsAndFailures(t *testing.T) {
	if _, err := Compare(Series{}, []string{"a"}, 4, nil, nil); err == nil {
		t.Error("four rounds were accepted")
	}
	boom := errors.New("boom")
	_, err := Compare(Series{Measure: "m"}, []string{"a"}, 5, func(string) (float64, error) { return 0, boom }, func(Sample) {})
	if !errors.Is(err, boom) {
		t.Errorf("err %v, want the measure's", err)
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{{[]float64{3}, 3}, {[]float64{4, 1}, 2.5}, {[]float64{9, 1, 5}, 5}} {
		if got := median(c.in); got != c.want {
			t.Errorf("median(%v) = %v, want %v", c.in, got, c.want)
		}
	}
	if !math.IsNaN(median(nil)) {
		t.Error("the median of nothing is a number")
	}
}
