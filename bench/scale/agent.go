package scale

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weftnet/weft/agent"
	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/plan"
	"github.com/weftnet/weft/trust"
)

// simulated is one agent without a kernel: the agent's own Speaker and Staging, and reports of ports that carry nothing.
type simulated struct {
	fleet   *fleet
	index   int
	name    string
	id      *trust.HostIdentity
	speaker *agent.Speaker

	// place in fleet.agents, and the revision that it stands at.
	place  int
	stands atomic.Int64

	mu      sync.Mutex
	staging *plan.Staging
	mine    map[string]int64 // ports bound here, to their epochs
	live    bool
	// saidHello is when the last stream began; took is when the last update was taken as a whole.
	saidHello, took time.Time
	// octets of bodies that came, and how many updates.
	octets  int64
	updates int
	packets uint64
	refused error
}

func (f *fleet) newAgent(index int, name string, id *trust.HostIdentity) *simulated {
	a := &simulated{fleet: f, index: index, name: name, id: id}
	a.forget()
	a.speaker = agent.NewSpeaker([]string{f.server.address}, func(server string) *tls.Config {
		return id.ClientTLS(server, time.Now)
	}, a, slog.New(slog.DiscardHandler))
	return a
}

// forget takes away everything that the agent holds, as a new disk does.
func (a *simulated) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stands.Store(0)
	a.staging = plan.NewStaging(string(a.id.UID), plan.NewSet(), "", 0)
	a.staging.Decode = a.fleet.shared.decode
	a.mine = map[string]int64{}
}

// Hello implements the Speaker's listener.
func (a *simulated) Hello(context.Context) (*planv1.Hello, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.saidHello = time.Now()
	return a.staging.Hello("simulated", &planv1.Facts{
		VtepAddresses: []string{a.address().String()}, UdpPort: 4789, UplinkMtu: 1500, Uplink: "eth0", Kernel: "simulated",
	}), nil
}

// address of the VTEP: of 198.18.0.0/15, which is for benchmarks (RFC 2544). Nothing is ever sent there.
func (a *simulated) address() netip.Addr {
	n := a.index + 1
	return netip.AddrFrom4([4]byte{198, 18 + byte(n>>16), byte(n >> 8), byte(n)})
}

// Receive implements the Speaker's listener.
func (a *simulated) Receive(_ context.Context, u *planv1.Update) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range u.GetUpserts() {
		a.octets += int64(len(r.GetBody()))
	}
	step, err := a.staging.Receive(u)
	if err != nil {
		a.refused = err
		a.speaker.Say(&planv1.Applied{StoreId: a.staging.StoreID(), Revision: a.staging.Revision(), Refused: err.Error()}, nil, nil)
		return err
	}
	if step == nil {
		return nil
	}
	a.note(step)
	a.acknowledge()
	a.updates++
	a.took = time.Now()
	a.stands.Store(step.Revision)
	a.fleet.applied(a, step.Revision)
	return nil
}

// note keeps which ports are bound here.
func (a *simulated) note(step *plan.Step) {
	for _, r := range step.Removed {
		delete(a.mine, r.UID)
	}
	for _, r := range step.Upserts {
		if r.Kind != planv1.Kind_KIND_PORT {
			continue
		}
		if active, epoch := a.fleet.shared.place(r); active == string(a.id.UID) {
			a.mine[r.UID] = epoch
		} else {
			delete(a.mine, r.UID)
		}
	}
}

func (a *simulated) acknowledge() {
	a.speaker.Say(&planv1.Applied{StoreId: a.staging.StoreID(), Revision: a.staging.Revision()}, nil, nil)
}

// Connection implements the Speaker's listener.
func (a *simulated) Connection(_ context.Context, server string, _ error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.live = server != ""
	if a.live && a.staging.StoreID() != "" {
		a.acknowledge()
	}
}

// run speaks, and reports now and then, until the context ends.
func (a *simulated) run(ctx context.Context, every time.Duration) {
	var reporter sync.WaitGroup
	defer reporter.Wait()
	reporter.Go(func() {
		// Agents do not start together, and do not report together.
		first := time.NewTimer(time.Duration(a.index%1000) * every / 1000)
		defer first.Stop()
		select {
		case <-ctx.Done():
			return
		case <-first.C:
		}
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			a.report()
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
	a.speaker.Run(ctx)
}

// packetsPerReport is what each port carries each way between two reports.
const packetsPerReport = 1000

// report says of each port here what a busy one's agent would, if somebody listens.
func (a *simulated) report() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.live || a.fleet.quiet.Load() {
		return
	}
	a.packets += packetsPerReport
	a.speaker.Say(nil, nil, a.said())
}

// said is the report as it is now.
func (a *simulated) said() *planv1.Report {
	rep := &planv1.Report{Ports: make([]*planv1.PortReport, 0, len(a.mine))}
	for _, uid := range slices.Sorted(maps.Keys(a.mine)) { // as an agent's report is
		rep.Ports = append(rep.Ports, &planv1.PortReport{Uid: uid, Epoch: a.mine[uid], State: planv1.PortState_PORT_STATE_ACTIVE, Interface: "wp" + uid[:10],
			IngressPackets: a.packets, IngressOctets: a.packets * 700, EgressPackets: a.packets, EgressOctets: a.packets * 700})
	}
	for _, program := range []string{"from_port", "from_uplink", "to_uplink", "from_vxlan"} {
		rep.Books = append(rep.Books, &planv1.ProgramBooks{Program: program, In: a.packets, Delivered: a.packets})
	}
	return rep
}

// state is a copy of what others ask.
func (a *simulated) state() (s simulatedState) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return simulatedState{live: a.live, revision: a.staging.Revision(), resources: a.staging.Set().Len(), ports: len(a.mine),
		saidHello: a.saidHello, took: a.took, octets: a.octets, updates: a.updates, refused: a.refused}
}

type simulatedState struct {
	live             bool
	revision         int64
	resources, ports int
	saidHello, took  time.Time
	octets           int64
	updates          int
	refused          error
}

// String is for messages.
func (s simulatedState) String() string {
	return fmt.Sprintf("live %t, revision %d, %d resources, refused %v", s.live, s.revision, s.resources, s.refused)
}
