package bench

import (
	"errors"
	"time"
)

// flow is frames of one kind, from a workload to where they are counted.
type flow struct {
	from  Workload
	frame []byte
	// length of the frames as they are counted.
	length int
	at     end
	// rate of frames a second, and the core that they are sent on; what they cause goes on there, too.
	rate, core int
}

// steadyBurst of frames are sent at once.
const steadyBurst = 32

// steady is a flow at its rate, until it is stopped.
type steady struct {
	quit chan struct{}
	done chan error
	s    sending
	// offered is how many frames the rate comes to.
	offered int
}

// start sends, and counts. What the sender could not send in time it sends late, so that all are sent where the machine carries them.
func (f flow) start() (*steady, error) {
	st := &steady{quit: make(chan struct{}), done: make(chan error, 1)}
	var sink *counter
	if err := f.at.netns.Run(func() (err error) {
		sink, err = newCounter(f.at.ifindex, f.length, f.at.where)
		return err
	}); err != nil {
		return nil, err
	}
	ready := make(chan error, 1)
	go func() {
		err := f.from.run(func() error {
			t := traffic{Length: f.length, Frame: f.frame}
			g, err := newGenerator(f.from.Ifindex, t)
			if err != nil {
				return err
			}
			defer g.Close()
			if err := errors.Join(pin(f.core), undisturbed()); err != nil {
				return err
			}
			st.s = sending{generator: g, sink: sink, frame: f.frame, traffic: t}
			ready <- nil
			return st.run(f.rate)
		})
		select {
		case ready <- err:
		default:
		}
		st.done <- err
	}()
	if err := <-ready; err != nil {
		sink.Close()
		return nil, err
	}
	return st, nil
}

func (st *steady) run(rate int) error {
	every := time.Second * steadyBurst / time.Duration(rate)
	start := time.Now()
	for i := 1; ; i++ {
		if err := st.s.push(steadyBurst); err != nil { // once at least: of nothing sent there is no part that arrived
			return err
		}
		select {
		case <-st.quit:
			st.offered = max(st.s.sent, int(time.Since(start)/every)*steadyBurst)
			return nil
		default:
		}
		if wait := time.Until(start.Add(time.Duration(i) * every)); wait > 0 {
			nap(wait)
		}
	}
}

// stop ends the flow, and says how many frames its rate came to, and how many of those sent have arrived when no more do.
func (st *steady) stop() (offered, sent, arrived int, err error) {
	close(st.quit)
	err = <-st.done
	defer st.s.sink.Close()
	if aerr := st.s.arrived(); aerr != nil && !errors.Is(aerr, errLost) {
		err = errors.Join(err, aerr)
	}
	n, rerr := st.s.sink.read()
	return st.offered, st.s.sent, int(n), errors.Join(err, rerr)
}
