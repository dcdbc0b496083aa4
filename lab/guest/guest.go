package guest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/lab/probe"
)

// Verbs of a Request. Each may be said again without doing anything twice: names tell what is there already.
const (
	// Send begins to send numbered datagrams to Address, Rate a second, with Tag.
	Send = "send"
	// Receive begins to take the datagrams with Tag at Port.
	Receive = "receive"
	// Echo answers TCP connections at Port; Session is one to Address, where something echoes, with an exchange each Interval.
	Echo    = "echo"
	Session = "session"
	// Stop ends the Send or Session of a name; the report keeps what it counted.
	Stop = "stop"
	// Forget has all receivers begin anew with what is the longest.
	Forget = "forget"
	// Tell asks for the report and nothing else; every answer carries it.
	Tell = "tell"
)

// Request is one line to the guest.
type Request struct {
	ID       int               `json:"id"`
	Do       string            `json:"do"`
	Name     string            `json:"name,omitempty"`
	Address  netip.AddrPort    `json:"address,omitzero"`
	Port     int               `json:"port,omitempty"`
	Rate     int               `json:"rate,omitempty"`
	Tag      probe.SequenceTag `json:"tag,omitzero"`
	Interval time.Duration     `json:"interval,omitempty"`
	IPv6     bool              `json:"ipv6,omitempty"`
}

// Answer is the line that comes back.
type Answer struct {
	ID     int    `json:"answer"` // of the request; a port that echoes what it gets makes no answer of it
	Error  string `json:"error,omitempty"`
	Report Report `json:"report"`
}

// Report is what the guest counted, by the names of what it was asked to do.
type Report struct {
	// Interface is eth0 as the guest's kernel sees it: Rx is what came to the guest.
	Interface netdev.Stats                    `json:"interface"`
	MTU       int                             `json:"mtu"`
	Senders   map[string]probe.SequenceResult `json:"senders,omitempty"`
	Receivers map[string]probe.SequenceResult `json:"receivers,omitempty"`
	Sessions  map[string]SessionReport        `json:"sessions,omitempty"`
}

// SessionReport is a probe.SessionResult, with its error as text: empty is none.
type SessionReport struct {
	Exchanges   uint64        `json:"exchanges"`
	LongestWait time.Duration `json:"longest_wait"`
	Error       string        `json:"error,omitempty"`
}

// server is the guest's end.
type server struct {
	ns        *netdev.Handle
	senders   map[string]*probe.SequenceSender
	receivers map[string]*probe.SequenceReceiver
	sessions  map[string]*probe.Session
	echoes    map[int]*probe.Echo
	stopped   map[any]bool
}

// Iface is the guest's only network interface.
const Iface = "eth0"

// Serve does what it is told, in the network namespace of the caller, until the input ends. What is no Request is ignored: a serial port
// may have had another user before.
func Serve(ctx context.Context, in io.Reader, out io.Writer) error {
	ns, err := netdev.Current()
	if err != nil {
		return err
	}
	defer ns.Close()
	s := &server{ns: ns, senders: map[string]*probe.SequenceSender{}, stopped: map[any]bool{},
		receivers: map[string]*probe.SequenceReceiver{}, sessions: map[string]*probe.Session{}, echoes: map[int]*probe.Echo{}}
	defer s.close()
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read what to do: %w", err)
		}
		var r Request
		if json.Unmarshal(line, &r) != nil || r.ID == 0 {
			continue
		}
		if err := s.answer(ctx, out, r); err != nil {
			return err
		}
	}
}

func (s *server) answer(ctx context.Context, out io.Writer, r Request) error {
	a := Answer{ID: r.ID}
	err := s.do(ctx, r)
	if err == nil {
		a.Report, err = s.report()
	}
	if err != nil {
		a.Error = err.Error()
	}
	b, err := json.Marshal(a)
	if err == nil {
		_, err = out.Write(append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	return nil
}

func (s *server) do(ctx context.Context, r Request) (err error) {
	switch r.Do {
	case Send:
		err = once(s.senders, r.Name, func() (*probe.SequenceSender, error) {
			return probe.StartSequenceSender(ctx, s.ns, r.Address, r.Rate, r.Tag)
		})
	case Stop:
		s.stop(r.Name)
	case Receive:
		err = once(s.receivers, r.Name, func() (*probe.SequenceReceiver, error) {
			return probe.StartSequenceReceiver(ctx, s.ns, r.IPv6, r.Port, r.Tag)
		})
	case Echo:
		err = once(s.echoes, r.Port, func() (*probe.Echo, error) { return probe.StartEcho(ctx, s.ns, r.Port) })
	case Session:
		err = once(s.sessions, r.Name, func() (*probe.Session, error) {
			return probe.StartSession(ctx, s.ns, r.Address.Addr(), int(r.Address.Port()), r.Interval)
		})
	case Forget:
		for _, q := range s.receivers {
			q.Forget()
		}
	case Tell:
	default:
		err = fmt.Errorf("%q is nothing that the guest can do", r.Do)
	}
	return err
}

func (s *server) stop(name string) {
	if q, ok := s.senders[name]; ok && !s.stopped[q] {
		q.Stop()
		s.stopped[q] = true
	}
	if c, ok := s.sessions[name]; ok && !s.stopped[c] {
		c.Stop()
		s.stopped[c] = true
	}
}

// once starts what is not there yet.
func once[K comparable, V any](all map[K]V, name K, start func() (V, error)) error {
	if _, ok := all[name]; ok {
		return nil
	}
	v, err := start()
	if err == nil {
		all[name] = v
	}
	return err
}

func (s *server) report() (r Report, err error) {
	r = Report{Senders: map[string]probe.SequenceResult{}, Receivers: map[string]probe.SequenceResult{}, Sessions: map[string]SessionReport{}}
	for name, q := range s.senders {
		r.Senders[name] = q.Result()
	}
	for name, q := range s.receivers {
		r.Receivers[name] = q.Result()
	}
	for name, c := range s.sessions {
		got := c.Result()
		text := ""
		if got.Err != nil {
			text = got.Err.Error()
		}
		r.Sessions[name] = SessionReport{Exchanges: got.Exchanges, LongestWait: got.LongestWait, Error: text}
	}
	link, err := s.ns.LinkByName(Iface)
	if err != nil {
		return r, err
	}
	r.MTU = link.MTU
	r.Interface, err = s.ns.Stats(Iface)
	return r, err
}

func (s *server) close() {
	for name := range s.senders {
		s.stop(name)
	}
	for name := range s.sessions {
		s.stop(name)
	}
	for _, q := range s.receivers {
		q.Stop()
	}
	for _, e := range s.echoes {
		e.Close()
	}
}
