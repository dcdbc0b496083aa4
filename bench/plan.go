package bench

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/cilium/ebpf"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/lab"
)

// The plan measure: a real server holds networks with many MACs behind a VTEP, and a real agent that knows nothing of them comes.
// The clock runs from the plan's first message, by the agent's log, until every entry was read back from the kernel's table.
//
//	server -> plan stream (TLS) -> agent: stage, check, compare -> FDB -> read back

const (
	planNetworks  = 100
	planVNI       = 20_000
	planUnit      = "entries/s"
	planPatience  = 2 * time.Minute
	planBegins    = "the plan stream is up"
	planIsApplied = "the kernel was compared with the plan"
)

func planMeasure(entries int) string {
	return fmt.Sprintf("plan of %s entries, received to read back", grouped(entries))
}

// planner is a lab whose first host has a large plan.
type planner struct {
	lab     *lab.Lab
	host    lab.Host
	entries int
}

func newPlanner(ctx context.Context, binary string, entries int) (_ *planner, err error) {
	p := &planner{entries: entries / planNetworks * planNetworks}
	if p.lab, err = lab.Up(ctx, lab.Config{Name: benchLab + "-plan", Direct: true, MTU: underlayMTU, Tables: "host", Binary: binary}); err != nil {
		return nil, fmt.Errorf("build the plan: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("build the plan: %w", err), p.Close())
		}
	}()
	state, err := p.lab.State()
	if err != nil {
		return nil, err
	}
	p.host = state.Hosts[0]
	// Networks that come while the agent is there would come one by one.
	if err := p.lab.StopAgent(ctx, p.host.Name); err != nil {
		return nil, err
	}
	return p, p.fill(ctx)
}

// fill makes the networks. A port of each is bound to the host, which makes the host hold it.
func (p *planner) fill(ctx context.Context) error {
	api, err := p.lab.Client()
	if err != nil {
		return err
	}
	if _, err := api.Tenants.CreateTenant(ctx, connect.NewRequest(&weftv1.CreateTenantRequest{Name: "bench"})); err != nil {
		return err
	}
	addr := floodVTEPs(1)[0].String()
	if _, err := api.VTEPs.CreateVTEP(ctx, connect.NewRequest(&weftv1.CreateVTEPRequest{Name: "far", Spec: &weftv1.VTEPSpec{Address: addr}})); err != nil {
		return err
	}
	each := p.entries / planNetworks
	for i := range planNetworks {
		behind := &weftv1.NetworkVTEP{Vtep: "far"}
		for j := range each {
			behind.Macs = append(behind.Macs, spreadMAC(i*each+j).String())
		}
		name := fmt.Sprintf("n%d", i)
		if _, err := api.Networks.CreateNetwork(ctx, connect.NewRequest(&weftv1.CreateNetworkRequest{Tenant: "bench", Name: name,
			Spec: &weftv1.NetworkSpec{Vni: uint32(planVNI + i), Mtu: innerMTU, Vteps: []*weftv1.NetworkVTEP{behind}}})); err != nil {
			return err
		}
		if _, err := api.Ports.CreatePort(ctx, connect.NewRequest(&weftv1.CreatePortRequest{Tenant: "bench", Name: name,
			Spec: &weftv1.PortSpec{Network: name}})); err != nil {
			return err
		}
		if _, err := api.Ports.BindPort(ctx, connect.NewRequest(&weftv1.BindPortRequest{Tenant: "bench", Name: name, Host: p.host.Name})); err != nil {
			return err
		}
	}
	return nil
}

// take starts the agent without memory, and gives entries a second.
func (p *planner) take(ctx context.Context) (rate float64, err error) {
	if err := p.forget(); err != nil {
		return 0, err
	}
	began, err := os.Stat(p.lab.AgentLog(p.host.Name))
	if err != nil {
		return 0, err
	}
	if err := p.lab.StartAgent(p.host.Name); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, p.lab.StopAgent(ctx, p.host.Name)) }()
	var log string
	if err := waitFor(ctx, planPatience, "the agent to have the plan in the kernel", func() bool {
		log, err = tail(p.lab.AgentLog(p.host.Name), began.Size())
		return err != nil || strings.Contains(log, planIsApplied)
	}); err != nil {
		return 0, fmt.Errorf("%w: it says: %s", err, log)
	}
	if err != nil {
		return 0, err
	}
	got, err := p.readBack()
	end := time.Now()
	if err == nil && got != p.entries {
		err = fmt.Errorf("the table holds %d entries of the plan's %d", got, p.entries)
	}
	if err != nil {
		return 0, err
	}
	start, err := timeOf(log, planBegins)
	return float64(p.entries) / end.Sub(start).Seconds(), err
}

// tail is what was appended to a file since it had that length.
func tail(path string, from int64) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil || int64(len(b)) < from {
		return "", err
	}
	return string(b[from:]), nil
}

// timeOf is when the log says something for the first time.
func timeOf(log, what string) (time.Time, error) {
	for line := range strings.Lines(log) {
		if !strings.Contains(line, what) {
			continue
		}
		stamp, _, _ := strings.Cut(strings.TrimPrefix(line, "time="), " ")
		return time.Parse(time.RFC3339Nano, stamp)
	}
	return time.Time{}, fmt.Errorf("the agent's log does not say %q", what)
}

// forget takes the plan away from the agent that is not there now: from its directory and from the kernel's table.
func (p *planner) forget() error {
	for _, name := range []string{"plan.snapshot", "plan.recent"} {
		if err := os.Remove(filepath.Join(p.lab.AgentDir(p.host.Name), name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return p.eachEntry(func(m *ebpf.Map, keys []fdbKey) error {
		_, err := m.BatchDelete(keys, nil)
		return err
	})
}

// readBack counts the plan's entries in the kernel's table.
func (p *planner) readBack() (n int, err error) {
	err = p.eachEntry(func(_ *ebpf.Map, keys []fdbKey) error {
		n += len(keys)
		return nil
	})
	return n, err
}

// eachEntry dumps the plan's entries, each once if nobody writes meanwhile.
func (p *planner) eachEntry(do func(*ebpf.Map, []fdbKey) error) error {
	m, err := openPinned(p.host.PinRoot, "fdb")
	if err != nil {
		return err
	}
	defer m.Close()
	const batch = 1 << 14
	keys, values := make([]fdbKey, batch), make([][16]byte, batch)
	var all []fdbKey
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		for i, k := range keys[:n] {
			if k.VNI >= planVNI && k.VNI < planVNI+planNetworks && k.MAC[0] == 0x02 && k.MAC[1] == 0x99 && values[i] != [16]byte{} {
				all = append(all, k)
			}
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			break
		}
		if err != nil {
			return err
		}
	}
	if len(all) == 0 {
		return nil
	}
	return do(m, all)
}

// Close takes the lab down.
func (p *planner) Close() error { return p.lab.Down(context.Background()) }

// plans measures how fast a plan is in the kernel.
func (f *field) plans(ctx context.Context) (_ []Series, err error) {
	p, err := newPlanner(ctx, f.cfg.Binary, f.cfg.PlanEntries)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	f.say(fmt.Sprintf("built: a plan of %s entries in %d networks", grouped(p.entries), planNetworks))
	s := Series{Measure: planMeasure(p.entries), Unit: planUnit, Higher: true, Reference: weftName}
	s, err = Compare(s, []string{weftName}, f.cfg.Rounds, func(string) (float64, error) { return p.take(ctx) }, f.sampled(&s))
	return []Series{s}, err
}
