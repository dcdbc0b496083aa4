package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"

	"github.com/weftnet/weft/wire"
)

// The storm measure: a workload sends broadcasts as fast as a core lets it. Two flows of others, one in its network and one in another, go at a rate
// that fits the machine, on the other core. Of each frame that their rate comes to it is counted whether it arrived: frames that could not be sent
// in time count as well. The same without the storm.
//
//	s1, host 1, network storm: broadcasts
//	s2, host 1, network storm: steady flow -> s3, host 2
//	c1, host 1, network calm:  steady flow -> c2, host 2
const (
	// stormRate is offered; nobody's core makes so many floods of it.
	stormRate = 1_000_000
	// othersRate of each flow: together they take half of a core of the slower contender.
	othersRate = 200_000
	stormUnit  = "% of what was offered"
)

var stormSegments = [2]segment{{name: "storm", number: 4}, {name: "calm", number: 5}}

func stormMember(network, i, host int) member {
	s := stormSegments[network]
	return member{segment: s, name: fmt.Sprintf("%c%d", s.name[0], i), host: host, mac: wire.MAC{0x02, 0x77, 0x65, 3, byte(network), byte(i)},
		addr: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(101 + network), 0, byte(10 + i)}), 24)}}
}

// weather is a contender's storm, and those who are to notice nothing.
type weather struct {
	storm  flow
	others [2]flow
}

func newWeather(ctx context.Context, j joiner) (*weather, error) {
	var w [5]Workload
	for i, m := range []member{stormMember(0, 1, 0), stormMember(0, 2, 0), stormMember(0, 3, 1), stormMember(1, 1, 0), stormMember(1, 2, 1)} {
		var err error
		if w[i], err = j.member(ctx, m); err != nil {
			return nil, err
		}
	}
	to := func(w Workload) end { return end{w.Netns, w.Ifindex, ebpf.AttachTCXIngress} }
	broadcast := udpFrame(w[0], w[1], knownLength)
	copy(broadcast, wire.BroadcastMAC[:])
	x := &weather{storm: flow{from: w[0], frame: broadcast, length: knownLength, at: to(w[2]), rate: stormRate, core: senderCore}}
	for i, ends := range [2][2]Workload{{w[1], w[2]}, {w[3], w[4]}} {
		x.others[i] = flow{from: ends[0], frame: udpFrame(ends[0], ends[1], frameOctets), length: frameOctets, at: to(ends[1]), rate: othersRate, core: packetCore}
	}
	return x, nil
}

// watch is what part of each of the others' flows arrives, in percent, and how many broadcasts a second reached another host.
func (x *weather) watch(stormy bool, length time.Duration) (others [2]float64, copies float64, err error) {
	var flows []*steady
	stop := func() {
		for i, st := range flows {
			offered, _, arrived, serr := st.stop()
			err = errors.Join(err, serr)
			if i < len(others) {
				others[i] = min(100, 100*float64(arrived)/float64(offered))
			} else {
				copies = float64(arrived) / length.Seconds()
			}
		}
	}
	all := x.others[:]
	if stormy {
		all = append(all[:len(all):len(all)], x.storm)
	}
	for _, f := range all {
		st, serr := f.start()
		if serr != nil {
			err = serr
			break
		}
		flows = append(flows, st)
	}
	if err == nil {
		time.Sleep(length)
	}
	stop()
	return others, copies, err
}

func stormy(name string) string { return name + ", in a storm" }

func stormMeasure(network int) string {
	return fmt.Sprintf("%s frames/s of others in the %s network", grouped(othersRate), [2]string{"same", "other"}[network])
}

// storms measures what others lose by a storm.
func (f *field) storms(ctx context.Context) ([]Series, error) {
	contenders, err := f.need(ctx, weftName, tunedName)
	if err != nil {
		return nil, err
	}
	weathers, copies := map[string]*weather{}, map[string][]float64{}
	var all []Contender
	for _, c := range contenders {
		x, err := newWeather(ctx, c.(joiner))
		if err != nil {
			return nil, fmt.Errorf("build the storm for %s: %w", c.Name(), err)
		}
		for _, fl := range x.others {
			if werr := waitFor(ctx, carryPatience, c.Name()+" to carry the others' frames", func() bool { err = carries(fl); return err == nil }); werr != nil {
				return nil, errors.Join(werr, err)
			}
		}
		weathers[c.Name()], weathers[stormy(c.Name())] = x, x
		all = append(all, c, named{c, stormy(c.Name())})
	}
	var series []Series
	for i := range stormSegments {
		series = append(series, Series{Measure: stormMeasure(i), Unit: stormUnit, Higher: true, Reference: weftName})
	}
	series, err = f.compareAll(ctx, series, all, func(c Contender) ([]float64, error) {
		_, in := c.(named)
		others, n, err := weathers[c.Name()].watch(in, f.cfg.Stream)
		if in {
			copies[c.Name()] = append(copies[c.Name()], n)
		}
		return others[:], err
	})
	for _, c := range contenders {
		f.notes = append(f.notes, fmt.Sprintf("%s: of %s broadcasts offered a second, %.0f a second reached the other host (median)", stormy(c.Name()), grouped(stormRate),
			median(copies[stormy(c.Name())])))
	}
	return series, err
}

// carries is whether a burst of a flow arrives.
func carries(f flow) error {
	st, err := f.start()
	if err != nil {
		return err
	}
	time.Sleep(time.Millisecond)
	_, sent, arrived, err := st.stop()
	if err == nil && (sent == 0 || arrived != sent) {
		err = fmt.Errorf("%d of %d frames arrive", arrived, sent)
	}
	return err
}
