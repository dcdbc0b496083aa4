package conform

import (
	"errors"
	"time"

	"github.com/weftnet/weft/datapath"
)

// learnCases: in a network that learns, an answer goes where the question came from, alone.
func learnCases() []Case {
	learns := func(b *bed) error {
		n := b.network7(datapath.UnknownFlood)
		n.Learning = datapath.Learning{Ageing: time.Minute, VTEPLimit: 100, PortLimit: 100}
		return errors.Join(b.dp.PutNetwork(n), b.dp.PutTeachers([]datapath.Teacher{
			{Accept: datapath.Accept{VNI: vni7, Addr: b.addr.A}, VTEP: vtepA}, {Accept: datapath.Accept{VNI: vni7, Addr: b.addr.B}, VTEP: vtepB}}), settle())
	}
	key := datapath.FDBKey{VNI: vni7, MAC: macNowhere}
	question, answer := frame(mac1, macNowhere, 100), frame(macNowhere, mac1, 100)
	return []Case{
		{Rule: "3", Name: "a network that learns: the answer goes to the VTEP that the question came from, and nowhere else", do: func(b *bed) error {
			err := errors.Join(learns(b),
				b.try(arrives(b.in(question), question).passIn("xdp_learn").keeping()),
				b.try(b.leaves(answer).keeping()),
				b.try(arrives(b.in(question), question)))
			_, forgot := b.dp.Forget([]datapath.FDBKey{key})
			return errors.Join(err, forgot)
		}},
		{Rule: "3", Name: "a network that learns: a MAC that is heard from another VTEP is there from then on", do: func(b *bed) error {
			moved := b.in(question, func(p *tunnel) { p.src = b.addr.B })
			err := errors.Join(learns(b),
				b.try(arrives(b.in(question), question).passIn("xdp_learn").keeping()),
				b.try(arrives(moved, question).passIn("xdp_learn").keeping()),
				b.try(trial{fromW1: [][]byte{answer}, tunnels: []sent{b.to(b.addr.B, answer)}, lanedOut: 1}))
			_, forgot := b.dp.Forget([]datapath.FDBKey{key})
			return errors.Join(err, forgot)
		}},
		{Rule: "3", Name: "a network that learns: nothing from an address that is no VTEP of the VNI", do: func(b *bed) error {
			forged := b.in(question, func(p *tunnel) { p.src = b.addr.Rogue })
			return errors.Join(learns(b), b.try(refused(forged, "source_not_accepted")),
				b.try(trial{fromW1: [][]byte{answer}, at: b.members("w1", answer), tunnels: []sent{b.to(b.addr.A, answer), b.to(b.addr.B, answer)}, lanedOut: 2}.passOut("xdp_several")))
		}},
	}
}
