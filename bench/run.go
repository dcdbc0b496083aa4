package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Config of a run. Zero fields take the defaults named.
type Config struct {
	// Rounds of every measure: 7. Fewer than MinRounds are refused.
	Rounds int
	// Frames a sample of packet cost: 1,000,000.
	Frames int
	// Stream is how long a TCP sample lasts: 2 s.
	Stream time.Duration
	// Binary is the weft program; empty is the running one.
	Binary string
	// Commit and Version of the program measured.
	Commit, Version string
	Progress        io.Writer
}

func (c Config) withDefaults() Config {
	if c.Rounds == 0 {
		c.Rounds = 7
	}
	if c.Frames == 0 {
		c.Frames = 1_000_000
	}
	if c.Stream == 0 {
		c.Stream = 2 * time.Second
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

// Run builds the contenders, checks that each carries traffic, measures, and takes everything away again, also when the
// context ends first.
func Run(ctx context.Context, cfg Config) (_ *Result, err error) {
	cfg = cfg.withDefaults()
	if cfg.Rounds < MinRounds {
		return nil, fmt.Errorf("--rounds %d: a median worth a claim needs %d", cfg.Rounds, MinRounds)
	}
	r, err := newResult(cfg)
	if err != nil {
		return nil, err
	}
	f := &field{cfg: cfg, by: map[string]Contender{}}
	defer func() { err = errors.Join(err, f.close()) }()
	if err := f.build(ctx); err != nil {
		return nil, err
	}
	for _, measure := range []func(context.Context) (Series, error){f.packets, f.streamsWhole, f.streamsWire} {
		s, err := measure(ctx)
		if err != nil {
			return nil, err
		}
		r.Series = append(r.Series, s)
	}
	return r, nil
}

// field is the contenders, side by side.
type field struct {
	cfg   Config
	names []string
	by    map[string]Contender
}

func (f *field) build(ctx context.Context) error {
	say := func(s string) { fmt.Fprintln(f.cfg.Progress, s) }
	for _, build := range []func() (Contender, error){
		func() (Contender, error) { return newWeft(ctx, f.cfg.Binary, say) },
		func() (Contender, error) { return newBridgeVXLAN(tunedName, "weft-bench-t-", true) },
		func() (Contender, error) { return newBridgeVXLAN(defaultName, "weft-bench-d-", false) },
		func() (Contender, error) { return newDirectVeth("weft-bench-v-") },
	} {
		c, err := build()
		if err != nil {
			return err
		}
		f.names = append(f.names, c.Name())
		f.by[c.Name()] = c
		// Parity: both directions carry TCP before anything is measured; this also resolves every neighbour.
		a, b := c.Workloads()
		for _, ends := range [][2]Workload{{a, b}, {b, a}} {
			if _, err := tcpStream(ends[0], ends[1], 100*time.Millisecond); err != nil {
				return fmt.Errorf("%s does not carry traffic: %w", c.Name(), err)
			}
		}
		say("built: " + c.Name())
	}
	return nil
}

func (f *field) close() error {
	var errs []error
	for _, c := range f.by {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

func (f *field) compare(ctx context.Context, s Series, measure func(Contender) (float64, error)) (Series, error) {
	s.Reference = tunedName
	return Compare(s, f.names, f.cfg.Rounds, func(name string) (float64, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return measure(f.by[name])
	}, func(p Sample) {
		fmt.Fprintf(f.cfg.Progress, "  %s, round %d: %s %.4g %s\n", s.Measure, p.Round+1, p.Contender, p.Value, s.Unit)
	})
}

func (f *field) packets(ctx context.Context) (Series, error) {
	return f.compare(ctx, Series{Measure: "64-byte frames, whole path on one core", Unit: "ns/packet"}, func(c Contender) (float64, error) {
		a, b := c.Workloads()
		return packetCost(a, b, traffic{Length: frameOctets}, f.cfg.Frames)
	})
}

func (f *field) streamsWhole(ctx context.Context) (Series, error) {
	return f.streams(ctx, "one TCP stream, offloads on", false)
}

func (f *field) streamsWire(ctx context.Context) (Series, error) {
	return f.streams(ctx, "one TCP stream, underlay as a wire", true)
}

func (f *field) streams(ctx context.Context, name string, wire bool) (Series, error) {
	for _, c := range f.by {
		if err := c.SetWire(wire); err != nil {
			return Series{}, fmt.Errorf("set the underlay of %s: %w", c.Name(), err)
		}
	}
	return f.compare(ctx, Series{Measure: name, Unit: "Gb/s", Higher: true}, func(c Contender) (float64, error) {
		a, b := c.Workloads()
		return tcpStream(a, b, f.cfg.Stream)
	})
}
