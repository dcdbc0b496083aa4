package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// What each group of measures consists of.

const (
	smallPackets = "64-byte frames, 1 flow"
	streamWhole  = "1 TCP stream, offloads on"
	streamWire   = "1 TCP stream, underlay as a wire"
	latencyOne   = "request and response, one core"
	latencyTwo   = "request and response, two cores"
)

func packetMeasure(length, flows int) string {
	name := fmt.Sprintf("%d-byte frames, %s flow", length, grouped(flows))
	if flows != 1 {
		name += "s"
	}
	return name
}

// cost is packetCost of a contender, as it can take it.
func (f *field) cost(c Contender, t traffic, n int) (cost float64, err error) {
	under := c
	if t, ok := c.(named); ok {
		under = t.Contender
	}
	if p, ok := under.(preparer); ok {
		if err := p.prepare(); err != nil {
			return 0, err
		}
	}
	if s, ok := under.(shaper); ok {
		t, n = s.shape(t), max(n/20, 1)
	}
	if p, ok := under.(attended); ok {
		if err := p.keepProcesses([]int{packetCore}); err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, p.keepProcesses(everyCore())) }()
	}
	a, b := c.Workloads()
	return packetCost(a, b, t, n)
}

func (f *field) packets(ctx context.Context) ([]Series, error) {
	contenders, err := f.need(ctx, append(everyone(), uncheckedName)...)
	if err != nil {
		return nil, err
	}
	var out []Series
	for _, t := range f.cfg.kinds {
		s, err := f.compare(ctx, Series{Measure: packetMeasure(t.Length, t.Flows), Unit: "ns/packet"}, contenders, func(c Contender) (float64, error) {
			return f.cost(c, t, f.cfg.Frames)
		})
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// streams are one and four, in both modes. Within a mode all are measured before the mode changes.
func (f *field) streams(ctx context.Context) ([]Series, error) {
	contenders, err := f.need(ctx, everyone()...)
	if err != nil {
		return nil, err
	}
	counts := []int{1, 4}
	if f.cfg.Quick {
		counts = counts[:1]
	}
	var out []Series
	for _, wire := range []bool{false, true} {
		for _, n := range counts {
			name := streamWhole
			if wire {
				name = streamWire
			}
			if n > 1 {
				name = fmt.Sprintf("%d TCP streams%s", n, name[len("1 TCP stream"):])
			}
			s, err := f.stream(ctx, name, contenders, wire, n)
			if err != nil {
				return nil, err
			}
			out = append(out, s)
		}
	}
	return out, nil
}

func (f *field) stream(ctx context.Context, name string, contenders []Contender, wire bool, n int) (Series, error) {
	return f.streamTo(ctx, Series{Measure: name, Unit: "Gb/s", Higher: true}, contenders, wire, n)
}

func (f *field) streamTo(ctx context.Context, s Series, contenders []Contender, wire bool, n int) (Series, error) {
	return f.compare(ctx, s, contenders, func(c Contender) (float64, error) {
		if err := prepareStream(c, wire); err != nil {
			return 0, err
		}
		a, b := c.Workloads()
		return tcpStreams(a, b, n, f.cfg.Stream, 0)
	})
}

func (f *field) latency(ctx context.Context) ([]Series, error) {
	contenders, err := f.need(ctx, everyone()...)
	if err != nil {
		return nil, err
	}
	var out []Series
	for _, place := range []struct {
		name string
		core int
	}{{latencyOne, packetCore}, {latencyTwo, senderCore}} {
		var all []Series
		for _, p := range percentiles {
			all = append(all, Series{Measure: fmt.Sprintf("%s, p%g", place.name, p*100), Unit: "us"})
		}
		all, err := f.compareAll(ctx, all, contenders, func(c Contender) ([]float64, error) {
			n := f.cfg.Requests
			if err := c.SetWire(false); err != nil {
				return nil, err
			}
			if p, ok := c.(preparer); ok {
				if err := p.prepare(); err != nil {
					return nil, err
				}
				if _, ok := c.(shaper); ok {
					n /= 10
				}
			}
			a, b := c.Workloads()
			return requestResponse(a, b, n, place.core, packetCore)
		})
		if err != nil {
			return nil, err
		}
		out = append(out, all...)
	}
	return out, nil
}

func (f *field) load(ctx context.Context) ([]Series, error) {
	// Open vSwitch in user space does not carry it.
	contenders, err := f.need(ctx, slices.DeleteFunc(everyone(), func(name string) bool { return name == ovsName })...)
	if err != nil {
		return nil, err
	}
	s, err := f.compare(ctx, Series{Measure: fmt.Sprintf("CPU at %s 64-byte frames a second", grouped(loadRate)), Unit: "% of a core"}, contenders,
		func(c Contender) (float64, error) {
			if p, ok := c.(preparer); ok {
				if err := p.prepare(); err != nil {
					return 0, err
				}
			}
			a, b := c.Workloads()
			return cpuAtLoad(a, b, traffic{Length: frameOctets}, f.cfg.Stream)
		})
	return []Series{s}, err
}
