package lab

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/client"
	"github.com/weftnet/weft/datapath/netdev"
)

// WorkloadSpec asks for a workload.
type WorkloadSpec struct {
	Name, Host string
	// Tenant and Network must exist.
	Tenant, Network string
	// Port is the port's name; empty is the workload's. One that exists is used as it is, and stays when the workload goes.
	Port string
	// Interface inside; empty is eth0.
	Interface string
	// IPs and MACs for a port that does not exist; empty: the server chooses.
	IPs, MACs []string
}

// handover is how long the old host's agent may take to let go of a workload's interface, and the new one's to make it work.
const handover = 30 * time.Second

// AddWorkload makes a namespace, and a port if there is none, and attaches the one to the other through the host's agent. When
// it returns, the port is active. On an error what was made is taken away again.
func (l *Lab) AddWorkload(ctx context.Context, spec WorkloadSpec) (Workload, error) {
	fill(&spec.Port, spec.Name)
	fill(&spec.Interface, "eth0")
	w := Workload{Name: spec.Name, Namespace: l.cfg.namespace(spec.Name), Host: spec.Host, Tenant: spec.Tenant, Network: spec.Network,
		Port: spec.Port, Interface: spec.Interface}
	if err := l.recordWorkload(w); err != nil {
		return Workload{}, err
	}
	err := netdev.CreateNamespace(w.Namespace)
	if err == nil {
		err = l.attachNew(ctx, &w, spec)
	}
	if err != nil {
		return Workload{}, errors.Join(fmt.Errorf("add workload %s: %w", w.Name, err), l.dropWorkload(context.WithoutCancel(ctx), w))
	}
	return w, nil
}

// recordWorkload reserves the name.
func (l *Lab) recordWorkload(w Workload) error {
	if !nameForm.MatchString(w.Name) || len(w.Name) > 63 {
		return refuse("name", fmt.Sprintf("%q is not a name", w.Name), "use at most 63 of a-z, 0-9 and -")
	}
	if infraNames.MatchString(w.Name) {
		return refuse("name", w.Name+" is a name of the lab's own", "use another, such as web1")
	}
	return l.update(func(s *State) error {
		if o, ok := s.Workload(w.Name); ok {
			return refuse("name", fmt.Sprintf("there is a workload %s already, on %s", o.Name, o.Host), "use another name, or `weft lab workload remove "+o.Name+"`")
		}
		if _, ok := s.Host(w.Host); !ok {
			return refuse("--host", fmt.Sprintf("%s is no host of the lab", w.Host), fmt.Sprintf("use one of h1 to h%d", len(s.Hosts)))
		}
		if netdev.NamespaceExists(w.Namespace) {
			return refuse("name", "the network namespace "+w.Namespace+" is there already", "use another name")
		}
		s.setWorkload(w)
		return nil
	})
}

// refuse is an error that the command line shows as a wrong field, with exit status 2.
func refuse(field, reason, fix string) error {
	return &client.Error{Code: connect.CodeInvalidArgument, Field: field, Reason: reason, Fix: fix}
}

func (l *Lab) attachNew(ctx context.Context, w *Workload, spec WorkloadSpec) error {
	owned, err := l.ensurePort(ctx, w.Tenant, w.Port, &weftv1.PortSpec{Network: w.Network, Ips: spec.IPs, Macs: spec.MACs})
	if err != nil {
		return err
	}
	w.Owned = owned
	if err := l.update(func(s *State) error { s.setWorkload(*w); return nil }); err != nil {
		return err
	}
	return l.attach(ctx, w)
}

// ensurePort makes a port if there is none of that name, and tells whether it did.
func (l *Lab) ensurePort(ctx context.Context, tenant, port string, spec *weftv1.PortSpec) (made bool, err error) {
	c, err := l.Client()
	if err != nil {
		return false, err
	}
	_, err = c.Ports.GetPort(ctx, connect.NewRequest(&weftv1.GetPortRequest{Tenant: tenant, Name: port}))
	if client.Explain(err) == nil || client.Explain(err).Code != connect.CodeNotFound {
		return false, err
	}
	_, err = c.Ports.CreatePort(ctx, connect.NewRequest(&weftv1.CreatePortRequest{Tenant: tenant, Name: port, Spec: spec}))
	return err == nil, err
}

// attach asks the agent of w.Host for the interface, waits until the port is active, and records what it has.
func (l *Lab) attach(ctx context.Context, w *Workload) error {
	ctx, cancel := context.WithTimeout(ctx, handover)
	defer cancel()
	a, err := l.Agent(w.Host)
	if err != nil {
		return err
	}
	defer a.Close()
	res, err := a.Attach(ctx, connect.NewRequest(&localv1.AttachRequest{Tenant: w.Tenant, Port: w.Port,
		Interface: &localv1.AttachRequest_Netns{Netns: &localv1.NetnsInterface{Netns: netdev.NamespacePath(w.Namespace), Ifname: w.Interface}}}))
	if err != nil {
		return err
	}
	if err := l.waitActive(ctx, w.Tenant, w.Port, w.Host); err != nil {
		return err
	}
	w.MACs, w.IPs = res.Msg.GetAttachment().GetMacs(), res.Msg.GetAttachment().GetIps()
	return l.update(func(s *State) error { s.setWorkload(*w); return nil })
}

// waitActive waits until the server has heard from the host that the port is active there.
func (l *Lab) waitActive(ctx context.Context, tenant, port, host string) error {
	c, err := l.Client()
	if err != nil {
		return err
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		res, err := c.Ports.GetPort(ctx, connect.NewRequest(&weftv1.GetPortRequest{Tenant: tenant, Name: port}))
		var st *weftv1.PortStatus
		if err == nil {
			st = res.Msg.GetStatus()
		}
		if st.GetState() == weftv1.PortState_PORT_STATE_ACTIVE && st.GetBinding().GetActive() == host {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until port %s is active on %s: %w (it is %s: %s)", port, host, ctx.Err(), st.GetState(), st.GetMessage())
		case <-tick.C:
		}
	}
}

// MoveWorkload moves the port to another host and the workload's interface with it; the namespace, and with it every
// process and connection of the workload, stays as it is.
func (l *Lab) MoveWorkload(ctx context.Context, name, host string) (Workload, error) {
	s, err := l.State()
	if err != nil {
		return Workload{}, err
	}
	w, ok := s.Workload(name)
	if !ok {
		return Workload{}, refuse("name", "there is no workload "+name, "see `weft lab workload list`")
	}
	if _, ok := s.Host(host); !ok {
		return Workload{}, refuse("--host", host+" is no host of the lab", fmt.Sprintf("use one of h1 to h%d", len(s.Hosts)))
	}
	if w.Host == host {
		return w, nil
	}
	c, err := l.Client()
	if err != nil {
		return Workload{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, handover)
	defer cancel()
	if _, err := c.Ports.MovePort(ctx, connect.NewRequest(&weftv1.MovePortRequest{Tenant: w.Tenant, Name: w.Port, Host: host})); err != nil {
		return Workload{}, fmt.Errorf("move workload %s: %w", name, err)
	}
	if err := l.waitDetached(ctx, w); err != nil {
		return Workload{}, fmt.Errorf("move workload %s: %w", name, err)
	}
	w.Host = host
	if err := l.attach(ctx, &w); err != nil {
		return Workload{}, fmt.Errorf("move workload %s to %s: %w", name, host, err)
	}
	return w, nil
}

// waitDetached waits until the old host's agent has taken its interface out of the workload.
func (l *Lab) waitDetached(ctx context.Context, w Workload) error {
	h, err := l.Node(w.Name)
	if err != nil {
		return err
	}
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := h.LinkByName(w.Interface); errors.Is(err, netdev.ErrNotFound) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s takes %s out of %s: %w", w.Host, w.Interface, w.Namespace, ctx.Err())
		case <-tick.C:
		}
	}
}

// RemoveWorkload detaches the port, deletes it if it was made for the workload, and deletes the namespace.
func (l *Lab) RemoveWorkload(ctx context.Context, name string) error {
	s, err := l.State()
	if err != nil {
		return err
	}
	w, ok := s.Workload(name)
	if !ok {
		return refuse("name", "there is no workload "+name, "see `weft lab workload list`")
	}
	if err := l.dropWorkload(ctx, w); err != nil {
		return fmt.Errorf("remove workload %s: %w", name, err)
	}
	return nil
}

func (l *Lab) dropWorkload(ctx context.Context, w Workload) error {
	ctx, cancel := context.WithTimeout(ctx, handover)
	defer cancel()
	a, err := l.Agent(w.Host)
	if err != nil {
		return err
	}
	defer a.Close()
	_, err = a.Detach(ctx, connect.NewRequest(&localv1.DetachRequest{Tenant: w.Tenant, Port: w.Port}))
	if notThere(err) {
		err = nil
	}
	if err == nil && w.Owned {
		c, cerr := l.Client()
		if cerr != nil {
			return cerr
		}
		_, err = c.Ports.DeletePort(ctx, connect.NewRequest(&weftv1.DeletePortRequest{Tenant: w.Tenant, Name: w.Port}))
		if notThere(err) {
			err = nil
		}
	}
	if err != nil {
		return err
	}
	l.forget(w.Name)
	if err := netdev.DeleteNamespace(w.Namespace); err != nil {
		return err
	}
	return l.update(func(s *State) error { s.removeWorkload(w.Name); return nil })
}

// notThere reports an answer that there is nothing of that name, or that the port is not bound here.
func notThere(err error) bool {
	e := client.Explain(err)
	return e != nil && (e.Code == connect.CodeNotFound || e.Code == connect.CodeFailedPrecondition)
}
