package accept_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/lab"
)

// TestEpochs cuts h1 from the server, restarts its agent there, moves its port to h3 by command, and heals. A sender on h2, and one
// on h1 itself, send numbered datagrams to the port all the time; there is a namespace for it on h1 and one on h3, and each
// number may be delivered in one of them, once.
//
// Red when the agent's evict returns at once: the copy on h1 stays.
func TestEpochs(t *testing.T) {
	f := ownLab(t, lab.Config{Name: "epochs"})
	f.tenant(t, "acme")
	f.network(t, "acme", "blue", &weftv1.NetworkSpec{Subnets: []string{"10.1.0.0/24"}})
	far := f.workload(t, lab.WorkloadSpec{Name: "far", Host: "h2", Tenant: "acme", Network: "blue"})
	beside := f.workload(t, lab.WorkloadSpec{Name: "beside", Host: "h1", Tenant: "acme", Network: "blue"})
	f.must(t, "port", "create", "wanderer", "--tenant", "acme", "--network", "blue", "--ip", "10.1.0.99")
	to := netip.MustParseAddr("10.1.0.99")
	places := map[string]*netdev.Handle{"h1": namespace(t, "wanderer-h1"), "h3": namespace(t, "wanderer-h3")}
	attach := func(host string) {
		t.Helper()
		if r := f.weftOn(t, host, "port", "attach", "wanderer", "--tenant", "acme", "--netns", places[host].String()); r.status != 0 {
			t.Fatalf("attach on %s: %s%s", host, r.out, r.err)
		}
	}
	attach("h1")
	sinks := startSinks(t, places)
	fromFar := startNumbers(t, sinks, far.ns, to)
	fromBeside := startNumbers(t, sinks, beside.ns, to)
	both := []*numbers{fromFar, fromBeside}
	arrive(t, both, "h1")

	// The cut, and a new agent on the host that is cut off: nothing changes.
	began := marks(both)
	if err := f.Cut("h1"); err != nil {
		t.Fatal(err)
	}
	restartHeadless(t, f, "h1")
	arrive(t, both, "h1")
	moved := marks(both)
	for i, n := range both {
		n.want(t, "h1 is cut off and its agent is a new one", began[i], moved[i], "h1")
	}

	// The move. From the moment when h2 knows, h3 alone gets what h2 sends; h1 goes on with itself, which is the price.
	f.must(t, "port", "move", "wanderer", "--tenant", "acme", "--host", "h3")
	attach("h3")
	arrive(t, both[:1], "h3")
	there := marks(both)
	restartHeadless(t, f, "h1")
	arrive(t, both[:1], "h3")
	arrive(t, both[1:], "h1")
	healing := marks(both)
	fromFar.nowhereTwice(t, "the port is moved", moved[0], there[0])
	fromFar.want(t, "the port is on h3, h1 is cut off", there[0], healing[0], "h3")
	fromBeside.want(t, "h1 is cut off and goes on as it was", moved[1], healing[1], "h1")

	// The heal: h1 lets go.
	if err := f.Heal("h1"); err != nil {
		t.Fatal(err)
	}
	f.caughtUp(t, "h1")
	eventually(t, "h1 has taken its copy of the port away", func() (bool, string) {
		_, err := places["h1"].LinkByName("eth0")
		return errors.Is(err, netdev.ErrNotFound), fmt.Sprint(err)
	})
	arrive(t, both, "h3")
	healed := marks(both)
	arrive(t, both, "h3")
	last := marks(both)
	for i, n := range both {
		n.nowhereTwice(t, "h1 is healed", healing[i], healed[i])
		n.want(t, "h1 is healed", healed[i], last[i], "h3")
	}

	// Cut off again and restarted, h1 does not remember an older epoch.
	if err := f.Cut("h1"); err != nil {
		t.Fatal(err)
	}
	restartHeadless(t, f, "h1")
	arrive(t, both, "h3")
	again := marks(both)
	for i, n := range both {
		n.want(t, "h1 is cut off again", last[i], again[i], "h3")
	}
	if err := f.Heal("h1"); err != nil {
		t.Fatal(err)
	}
	for _, h := range []string{"h1", "h2", "h3"} {
		f.caughtUp(t, h)
	}
	for _, n := range both {
		n.end()
		t.Log(n)
	}
	f.settled(t)
}

// restartHeadless kills a host's agent and starts it where it reaches no server, and waits until it has looked at what is there.
func restartHeadless(t *testing.T, f *fixture, host string) {
	t.Helper()
	if err := f.KillAgent(limited(t), host); err != nil {
		t.Fatal(err)
	}
	if err := f.StartAgent(host); err != nil {
		t.Fatal(err)
	}
	a, err := f.Agent(host)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	ctx := limited(t)
	eventually(t, host+"'s new agent answers, and has no server", func() (bool, string) {
		st, err := a.GetStatus(ctx, connect.NewRequest(&localv1.GetStatusRequest{}))
		if err != nil {
			return false, err.Error()
		}
		var said []string
		for _, c := range st.Msg.GetConditions() {
			said = append(said, c.GetName())
		}
		return !st.Msg.GetConnected() && slices.Contains(said, "no server"), fmt.Sprintf("connected %t, says %v", st.Msg.GetConnected(), said)
	})
}

// namespace makes one for the test.
func namespace(t *testing.T, name string) *netdev.Handle {
	t.Helper()
	name = "wefttest-accept-" + name
	err := netdev.DeleteNamespace(name)
	if err == nil {
		err = netdev.CreateNamespace(name)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netdev.DeleteNamespace(name); err != nil {
			t.Error(err)
		}
	})
	h, err := netdev.OpenName(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

const numbersPort = 7002

// sinks receive numbered datagrams in several places.
type sinks struct {
	wg    sync.WaitGroup
	conns []net.PacketConn
	mu    sync.Mutex
	// got counts by sender, place and number.
	got map[uint32]map[string]map[uint32]int
}

func startSinks(t *testing.T, places map[string]*netdev.Handle) *sinks {
	t.Helper()
	s := &sinks{got: map[uint32]map[string]map[uint32]int{}}
	t.Cleanup(func() {
		for _, c := range s.conns {
			c.Close()
		}
		s.wg.Wait()
	})
	for name, ns := range places {
		c, err := ns.ListenPacket(context.Background(), "udp4", fmt.Sprintf(":%d", numbersPort))
		if err != nil {
			t.Fatal(err)
		}
		s.conns = append(s.conns, c)
		raw, err := c.(*net.UDPConn).SyscallConn()
		if err == nil { // for seconds in which nobody reads
			cerr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20) })
			err = errors.Join(err, cerr)
		}
		if err != nil {
			t.Fatal(err)
		}
		s.wg.Go(func() { s.receive(c, name) })
	}
	return s
}

func (s *sinks) receive(c net.PacketConn, place string) {
	b := make([]byte, 64)
	for {
		n, _, err := c.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n != 8 {
			continue
		}
		sender, number := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
		s.mu.Lock()
		if s.got[sender] == nil {
			s.got[sender] = map[string]map[uint32]int{}
		}
		if s.got[sender][place] == nil {
			s.got[sender][place] = map[uint32]int{}
		}
		s.got[sender][place][number]++
		s.mu.Unlock()
	}
}

// numbers is a sender: a thousand datagrams a second.
type numbers struct {
	sinks *sinks
	id    uint32
	conn  net.Conn
	stop  chan struct{}
	once  sync.Once
	wg    sync.WaitGroup
	mu    sync.Mutex
	next  uint32
	fails map[string]int
}

func startNumbers(t *testing.T, s *sinks, from *netdev.Handle, to netip.Addr) *numbers {
	t.Helper()
	c, err := from.Dial(context.Background(), nil, "udp4", netip.AddrPortFrom(to, numbersPort).String())
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	n := &numbers{sinks: s, id: uint32(len(s.got)), conn: c, stop: make(chan struct{}), fails: map[string]int{}}
	s.got[n.id] = map[string]map[uint32]int{}
	s.mu.Unlock()
	n.wg.Go(n.send)
	t.Cleanup(n.end)
	return n
}

func (n *numbers) send() {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	b := make([]byte, 8)
	binary.BigEndian.PutUint32(b, n.id)
	for {
		n.mu.Lock()
		binary.BigEndian.PutUint32(b[4:], n.next)
		// A number that the sender's own kernel did not take is sent again.
		if _, err := n.conn.Write(b); err != nil {
			n.fails[err.Error()]++
		} else {
			n.next++
		}
		n.mu.Unlock()
		select {
		case <-n.stop:
			return
		case <-tick.C:
		}
	}
}

func (n *numbers) end() {
	n.once.Do(func() {
		close(n.stop)
		n.wg.Wait()
		n.conn.Close()
	})
}

// mark is the number that is sent next.
func (n *numbers) mark() uint32 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.next
}

func marks(list []*numbers) (m []uint32) {
	for _, n := range list {
		m = append(m, n.mark())
	}
	return m
}

// count says how often the numbers of [from, to) were delivered: by place, and how many nowhere and more than once.
func (n *numbers) count(from, to uint32) (in map[string]int, lost, twice int) {
	n.sinks.mu.Lock()
	defer n.sinks.mu.Unlock()
	in = map[string]int{}
	for i := from; i < to; i++ {
		times := 0
		for place, got := range n.sinks.got[n.id] {
			times += got[i]
			in[place] += got[i]
		}
		if times == 0 {
			lost++
		} else if times > 1 {
			twice++
		}
	}
	return in, lost, twice
}

// arrive waits until 300 numbers in a row that are sent from now on have arrived in a place, of each sender.
func arrive(t *testing.T, list []*numbers, place string) {
	t.Helper()
	for _, n := range list {
		since := n.mark()
		eventually(t, fmt.Sprintf("300 numbers in a row of sender %d arrive on %s", n.id, place), func() (bool, string) {
			sent := n.mark()
			n.sinks.mu.Lock()
			defer n.sinks.mu.Unlock()
			row := 0
			for i := since; i < sent && row < 300; i++ {
				if row++; n.sinks.got[n.id][place][i] != 1 {
					row = 0
				}
			}
			return row == 300, fmt.Sprintf("%d since number %d", len(n.sinks.got[n.id][place]), since)
		})
	}
}

// onTheWay is how long a number may be held up by a machine that stands still, and is not lost.
const onTheWay = 5 * time.Second

// want wants every number of [from, to) in one place, once.
func (n *numbers) want(t *testing.T, phase string, from, to uint32, place string) {
	t.Helper()
	var in map[string]int
	var lost, twice int
	until := time.Now().Add(onTheWay)
	eventually(t, "the last numbers arrive", func() (bool, string) {
		in, lost, twice = n.count(from, to)
		return lost == 0 || time.Now().After(until), "under way"
	})
	t.Logf("%s: sender %d: %d sent, %d on %s, %d lost, %d twice", phase, n.id, to-from, in[place], place, lost, twice)
	if lost > 0 || twice > 0 || in[place] != int(to-from) {
		t.Errorf("%s: of %d numbers of sender %d, %v arrived, %d nowhere, %d twice; want all on %s, once", phase, to-from, n.id, in, lost, twice, place)
	}
}

// nowhereTwice wants no number of [from, to) delivered more than once.
func (n *numbers) nowhereTwice(t *testing.T, phase string, from, to uint32) {
	t.Helper()
	in, lost, twice := n.count(from, to)
	t.Logf("%s, while it changes: sender %d: %d sent, %v arrived, %d lost, %d twice", phase, n.id, to-from, in, lost, twice)
	if twice > 0 {
		t.Errorf("%s: %d numbers of sender %d were delivered twice", phase, twice, n.id)
	}
}

// String is the sum.
func (n *numbers) String() string {
	in, lost, twice := n.count(0, n.mark())
	return fmt.Sprintf("sender %d: %d sent, %v arrived, %d lost, %d twice; sending failed: %v", n.id, n.mark(), in, lost, twice, n.fails)
}
