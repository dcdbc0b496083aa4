package bench

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// Sample is one measurement of one contender in one round.
type Sample struct {
	Round     int     `json:"round"`
	Contender string  `json:"contender"`
	Value     float64 `json:"value"`
}

// Series is what one measure found for every contender.
type Series struct {
	// Group is the name of the measure that --only takes; Measure says what exactly was measured.
	Group   string `json:"group"`
	Measure string `json:"measure"`
	Unit    string `json:"unit"`
	// Higher says whether a larger value is better.
	Higher    bool     `json:"higher_is_better"`
	Reference string   `json:"reference"`
	Samples   []Sample `json:"samples"`
	Rows      []Row    `json:"rows"`
}

// Row sums up one contender. Ratio is how many times better than the reference it is, as the median of the ratios of the
// rounds, with the bounds of its 95 % confidence interval (bootstrap over rounds).
type Row struct {
	Contender string  `json:"contender"`
	Median    float64 `json:"median"`
	Min       float64 `json:"min"`
	Max       float64 `json:"max"`
	Ratio     float64 `json:"ratio"`
	RatioLow  float64 `json:"ratio_low"`
	RatioHigh float64 `json:"ratio_high"`
}

// MinRounds is the fewest rounds whose median is worth a claim.
const MinRounds = 5

// Compare measures every contender once a round, beginning each round with the next contender (A B C, B C A, C A B), and
// sums up. Progress is told of every sample.
func Compare(s Series, contenders []string, rounds int, measure func(contender string) (float64, error), progress func(Sample)) (Series, error) {
	all, err := CompareAll([]Series{s}, contenders, rounds, func(c string) ([]float64, error) {
		v, err := measure(c)
		return []float64{v}, err
	}, progress)
	return all[0], err
}

// CompareAll is Compare for a measure that gives several values at once, one for each Series. Progress is told of the first.
func CompareAll(all []Series, contenders []string, rounds int, measure func(contender string) ([]float64, error), progress func(Sample)) ([]Series, error) {
	if rounds < MinRounds {
		return all, fmt.Errorf("%d rounds of %s: a median needs %d", rounds, all[0].Measure, MinRounds)
	}
	for round := range rounds {
		for i := range contenders {
			c := contenders[(round+i)%len(contenders)]
			values, err := measure(c)
			if err != nil {
				return all, fmt.Errorf("%s of %s, round %d: %w", all[0].Measure, c, round+1, err)
			}
			for j, v := range values {
				all[j].Samples = append(all[j].Samples, Sample{Round: round, Contender: c, Value: v})
			}
			progress(all[0].Samples[len(all[0].Samples)-1])
		}
	}
	for j := range all {
		all[j].Rows = summarise(all[j], contenders)
	}
	return all, nil
}

// Ratio is how many times better one contender is than another: the median of the rounds' ratios, and the bounds of its 95 %
// confidence interval. ok is false if one of them was not measured.
func (s Series) Ratio(contender, reference string) (ratio, low, high float64, ok bool) {
	values, references := valuesOf(s.Samples, contender), valuesOf(s.Samples, reference)
	if len(values) == 0 || len(values) != len(references) {
		return 0, 0, 0, false
	}
	ratios := make([]float64, len(values))
	for i := range values {
		ratios[i] = values[i] / references[i]
		if !s.Higher {
			ratios[i] = references[i] / values[i]
		}
	}
	low, high = interval(ratios)
	return median(ratios), low, high, true
}

// level is the median of what one contender was measured at, and the bounds of its 95 % confidence interval.
func (s Series) level(contender string) (level, low, high float64, ok bool) {
	values := valuesOf(s.Samples, contender)
	if len(values) == 0 {
		return 0, 0, 0, false
	}
	low, high = interval(values)
	return median(values), low, high, true
}

func summarise(s Series, contenders []string) []Row {
	rows := make([]Row, 0, len(contenders))
	for _, c := range contenders {
		values := valuesOf(s.Samples, c)
		row := Row{Contender: c, Median: median(values), Min: slices.Min(values), Max: slices.Max(values)}
		row.Ratio, row.RatioLow, row.RatioHigh, _ = s.Ratio(c, s.Reference)
		rows = append(rows, row)
	}
	return rows
}

func valuesOf(samples []Sample, contender string) []float64 {
	var v []float64
	for _, s := range samples {
		if s.Contender == contender {
			v = append(v, s.Value)
		}
	}
	return v
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(v))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// interval is the 95 % bootstrap interval of the median. The seed is fixed: the same samples give the same bounds.
func interval(v []float64) (low, high float64) {
	const draws = 2000
	r := rand.New(rand.NewPCG(7348, 4789))
	medians := make([]float64, draws)
	draw := make([]float64, len(v))
	for i := range medians {
		for j := range draw {
			draw[j] = v[r.IntN(len(v))]
		}
		medians[i] = median(draw)
	}
	slices.Sort(medians)
	return medians[draws*25/1000], medians[draws*975/1000]
}
