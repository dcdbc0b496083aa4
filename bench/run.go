package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Config of a run. Zero fields take the defaults named.
type Config struct {
	// Rounds of every measure: 7, or 5 if Quick. Fewer than MinRounds are refused.
	Rounds int
	// Frames a sample of packet cost: 200,000. A contender that cannot keep up gets a twentieth of them.
	Frames int
	// Stream is how long a TCP sample lasts: 600 ms.
	Stream time.Duration
	// Requests a sample of latency: 10,000.
	Requests int
	// Tables are the FDB sizes: 10, 100,000 and 1,000,000.
	Tables []int
	// VTEPs to replicate to: 256.
	VTEPs int
	// Known addresses that ARP and neighbour solicitations ask for: 1,000.
	Known int
	// MACs that are learned from frames: 100,000.
	MACs int
	// Leases that clients get by DHCP: 10,000.
	Leases int
	// PlanEntries of the plan that an agent takes in: 1,000,000.
	PlanEntries int
	// Moves of a workload in a sample: 20.
	Moves int
	// Quick takes the measures that need no other contenders: small frames and one TCP stream.
	Quick bool
	// Only names the measures to take; none is all.
	Only []string
	// kinds of frames; nil is each length with each number of flows, or the small one if Quick.
	kinds []traffic
	// Binary is the weft program; empty is the running one.
	Binary string
	// Commit and Version of the program measured.
	Commit, Version string
	Progress        io.Writer
}

func (c Config) withDefaults() Config {
	set := func(v *int, def int) {
		if *v == 0 {
			*v = def
		}
	}
	if c.Quick {
		set(&c.Rounds, MinRounds)
	}
	set(&c.Rounds, 7)
	set(&c.Frames, 200_000)
	set(&c.Requests, 10_000)
	set(&c.VTEPs, 256)
	set(&c.Known, 1000)
	set(&c.MACs, 100_000)
	set(&c.Leases, 10_000)
	set(&c.Moves, 20)
	set(&c.PlanEntries, 1_000_000)
	if c.Stream == 0 {
		c.Stream = 600 * time.Millisecond
	}
	if c.kinds == nil && c.Quick {
		c.kinds = []traffic{{Length: frameOctets, Flows: 1}}
	}
	if c.kinds == nil {
		for _, length := range []int{frameOctets, 512, 1400} {
			for _, flows := range []int{1, 1000, 100_000} {
				c.kinds = append(c.kinds, traffic{Length: length, Flows: flows})
			}
		}
	}
	if c.Tables == nil {
		c.Tables = []int{10, 100_000, 1_000_000}
	}
	if c.Progress == nil {
		c.Progress = io.Discard
	}
	return c
}

const (
	tunedName   = "bridge + vxlan, tuned"
	defaultName = "bridge + vxlan, defaults"
	// frameOctets of the small frame: 64, without frame check sequence.
	frameOctets = 64
)

// measure is a group of Series, taken together.
type measure struct {
	name  string
	quick bool
	take  func(*field, context.Context) ([]Series, error)
}

var measures = []measure{
	{"packets", true, (*field).packets},
	{"tcp", true, (*field).streams},
	{"latency", false, (*field).latency},
	{"cpu", false, (*field).load},
	{"replicate", false, (*field).replicate},
	{"tap", false, (*field).taps},
	{"aggregates", false, (*field).aggregates},
	{"fdb", false, (*field).tables},
	{"arp", false, (*field).questions},
	{"learn", false, (*field).learning},
	{"storm", false, (*field).storms},
	{"dhcp", false, (*field).leases},
	{"plan", false, (*field).plans},
	{"move", false, (*field).moves},
}

// MeasureNames are what Config.Only may name.
func MeasureNames() []string {
	var names []string
	for _, m := range measures {
		names = append(names, m.name)
	}
	return names
}

func (c Config) chosen() ([]measure, error) {
	for _, name := range c.Only {
		if !slices.Contains(MeasureNames(), name) {
			return nil, fmt.Errorf("--only %s: there is no such measure; choose of %s", name, strings.Join(MeasureNames(), ", "))
		}
	}
	return slices.DeleteFunc(slices.Clone(measures), func(m measure) bool {
		return len(c.Only) > 0 && !slices.Contains(c.Only, m.name) || len(c.Only) == 0 && c.Quick && !m.quick
	}), nil
}

// Run removes what a killed run left, builds the contenders, checks that each carries traffic, measures, and takes everything
// away again, also when the context ends first. With an error comes what was measured before it, if anything was, with a note that says so.
func Run(ctx context.Context, cfg Config) (_ *Result, err error) {
	cfg = cfg.withDefaults()
	if cfg.Rounds < MinRounds {
		return nil, fmt.Errorf("--rounds %d: a median worth a claim needs %d", cfg.Rounds, MinRounds)
	}
	chosen, err := cfg.chosen()
	if err != nil {
		return nil, err
	}
	leave, err := enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	r, err := newResult(cfg)
	if err != nil {
		return nil, err
	}
	f := &field{cfg: cfg, by: map[string]Contender{}}
	defer func() { err = errors.Join(err, f.close()) }()
	if !ovsInstalled() {
		r.Notes = append(r.Notes, "Open vSwitch was not measured: it is not installed (scripts/deps installs it)")
	}
	for i, m := range chosen {
		f.say(fmt.Sprintf("%d of %d: %s, after %s", i+1, len(chosen), m.name, time.Since(r.Time).Truncate(time.Second)))
		all, err := m.take(f, ctx)
		if err != nil {
			if len(r.Series) == 0 {
				return nil, err
			}
			r.Notes = append([]string{fmt.Sprintf("NOT COMPLETE: %s: %v", m.name, err)}, r.Notes...)
			return f.finish(r), fmt.Errorf("%s: %w", m.name, err)
		}
		for _, s := range all {
			s.Group = m.name
			r.Series = append(r.Series, s)
		}
	}
	return f.finish(r), nil
}

func (f *field) finish(r *Result) *Result {
	r.Notes = append(r.Notes, f.notes...)
	r.Seconds = int(time.Since(r.Time).Seconds())
	r.judge()
	return r
}

// triesPerSample bounds how often a sample is taken in which frames were lost: a machine that is busy loses some, and a contender that
// loses every time is broken. Before each it waits longer for what the machine is busy with, beginning with firstWait.
const (
	triesPerSample = 4
	firstWait      = time.Second
)

// field is the contenders that are there, side by side.
type field struct {
	cfg   Config
	by    map[string]Contender
	notes []string
}

func (f *field) say(s string) { fmt.Fprintln(f.cfg.Progress, s) }

// everyone is whom packets and streams compare. Those whom targets compare with weft stand beside it, so that little time passes between
// two samples of a round that make a ratio.
func everyone() []string {
	names := []string{vethName, weftName, tunedName, xdpName}
	if ovsInstalled() {
		names = append(names, ovsName)
	}
	return append(names, defaultName, plainName)
}

// need gives contenders by name, and builds those that are not there.
func (f *field) need(ctx context.Context, names ...string) ([]Contender, error) {
	builders := map[string]func() (Contender, error){
		weftName: func() (Contender, error) {
			return newWeft(ctx, weftConfig{lab: benchLab, binary: f.cfg.Binary, step: f.say})
		},
		xdpName: func() (Contender, error) {
			return newWeft(ctx, weftConfig{lab: xdpLab, binary: f.cfg.Binary, xdp: true})
		},
		uncheckedName: func() (Contender, error) {
			return newUnchecked(ctx, weftConfig{lab: uncheckedLab, binary: f.cfg.Binary})
		},
		tunedName:   func() (Contender, error) { return newBridgeVXLAN(tunedName, benchPrefix+"t-", true) },
		defaultName: func() (Contender, error) { return newBridgeVXLAN(defaultName, benchPrefix+"d-", false) },
		ovsName:     func() (Contender, error) { return newOVS(ctx, benchPrefix+"o-", ovsDir) },
		plainName:   func() (Contender, error) { return newPlainBridge(benchPrefix + "b-") },
		vethName:    func() (Contender, error) { return newDirectVeth(benchPrefix + "v-") },
	}
	var all []Contender
	for _, name := range names {
		c := f.by[name]
		if c == nil {
			var err error
			if c, err = builders[name](); err != nil {
				return nil, err
			}
			f.by[name] = c
			if err := parity(c); err != nil {
				return nil, err
			}
			f.say("built: " + name)
		}
		all = append(all, c)
	}
	return all, nil
}

// carryPatience is how long a contender may take until it carries traffic: Open vSwitch in user space resolves its tunnel's neighbours from what passes,
// and a busy machine lets the first tries run out.
const carryPatience = 60 * time.Second

// parity is that both directions carry TCP before anything is measured; this also resolves every neighbour.
func parity(c Contender) error {
	a, b := c.Workloads()
	for _, ends := range [][2]Workload{{a, b}, {b, a}} {
		if err := prepareStream(c, false); err != nil {
			return err
		}
		_, err := tcpStream(ends[0], ends[1], 100*time.Millisecond)
		for until := time.Now().Add(carryPatience); err != nil && time.Now().Before(until); {
			_, err = tcpStream(ends[0], ends[1], 100*time.Millisecond)
		}
		if err != nil {
			return fmt.Errorf("%s does not carry traffic: %w", c.Name(), err)
		}
	}
	return nil
}

func prepareStream(c Contender, wire bool) error {
	if err := c.SetWire(wire); err != nil {
		return fmt.Errorf("set the underlay of %s: %w", c.Name(), err)
	}
	return nil
}

func (f *field) close() error {
	var errs []error
	for _, c := range f.by {
		errs = append(errs, c.Close())
	}
	return errors.Join(append(errs, removeAnchor())...)
}

func (f *field) compare(ctx context.Context, s Series, contenders []Contender, measure func(Contender) (float64, error)) (Series, error) {
	all, err := f.compareAll(ctx, []Series{s}, contenders, func(c Contender) ([]float64, error) {
		v, err := measure(c)
		return []float64{v}, err
	})
	return all[0], err
}

func (f *field) compareAll(ctx context.Context, all []Series, contenders []Contender, measure func(Contender) ([]float64, error)) ([]Series, error) {
	by, names := map[string]Contender{}, make([]string, len(contenders))
	for i, c := range contenders {
		by[c.Name()], names[i] = c, c.Name()
	}
	for i := range all {
		if all[i].Reference == "" {
			all[i].Reference = tunedName
		}
	}
	return CompareAll(all, names, f.cfg.Rounds, func(name string) ([]float64, error) {
		for try := 1; ; try++ {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			values, err := measure(by[name])
			if !doesNotCount(err) || try == triesPerSample {
				return values, err
			}
			again := fmt.Sprintf("a sample was taken again, as it does not count: %s of %s: %v", all[0].Measure, name, err)
			f.notes = append(f.notes, again)
			f.say("  " + again)
			select {
			case <-ctx.Done():
			case <-time.After(firstWait << (try - 1)):
			}
		}
	}, f.sampled(&all[0]))
}

// sampled tells of the samples of a Series.
func (f *field) sampled(s *Series) func(Sample) {
	measure, unit := s.Measure, s.Unit
	return func(p Sample) {
		f.say(fmt.Sprintf("  %s, round %d of %d: %s %.4g %s", measure, p.Round+1, f.cfg.Rounds, p.Contender, p.Value, unit))
	}
}
