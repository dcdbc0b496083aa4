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
	if rounds < MinRounds {
		return s, fmt.Errorf("%d rounds of %s: a median needs %d", rounds, s.Measure, MinRounds)
	}
	for round := range rounds {
		for i := range contenders {
			c := contenders[(round+i)%len(contenders)]
			v, err := measure(c)
			if err != nil {
				return s, fmt.Errorf("%s of %s, round %d: %w", s.Measure, c, round+1, err)
			}
			sample := Sample{Round: round, Contender: c, Value: v}
			s.Samples = append(s.Samples, sample)
			progress(sample)
		}
	}
	s.Rows = summarise(s, contenders)
	return s, nil
}

func summarise(s Series, contenders []string) []Row {
	reference := valuesOf(s.Samples, s.Reference)
	rows := make([]Row, 0, len(contenders))
	for _, c := range contenders {
		values := valuesOf(s.Samples, c)
		row := Row{Contender: c, Median: median(values), Min: slices.Min(values), Max: slices.Max(values)}
		ratios := make([]float64, len(values))
		for i := range values {
			ratios[i] = values[i] / reference[i]
			if !s.Higher {
				ratios[i] = reference[i] / values[i]
			}
		}
		row.Ratio = median(ratios)
		row.RatioLow, row.RatioHigh = interval(ratios)
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
