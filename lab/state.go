package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// State is what lab.json says: enough to use the lab, and to take it away.
type State struct {
	Name    string `json:"name"`
	Prefix  string `json:"prefix"`
	Dir     string `json:"dir"`
	PinRoot string `json:"pin_root"`
	Binary  string `json:"binary"`
	Spines  int    `json:"spines"`
	Direct  bool   `json:"direct,omitempty"`
	Flat    bool   `json:"flat,omitempty"`
	// Underlay is the IP version, 4 or 6.
	Underlay int    `json:"underlay,omitempty"`
	Uplinks  int    `json:"uplinks,omitempty"`
	FindVTEP bool   `json:"find_vtep,omitempty"`
	UDPPort  uint16 `json:"udp_port,omitempty"`
	MTU      int    `json:"mtu"`
	Tables   string `json:"tables,omitempty"`
	XDP      bool   `json:"xdp,omitempty"`
	// Ready is false while it is being built.
	Ready bool `json:"ready"`
	// Leaving is true while it is being taken away.
	Leaving      bool    `json:"leaving,omitempty"`
	ServerSocket string  `json:"server_socket"`
	Server       Process `json:"server"`
	Hosts        []Host  `json:"hosts"`
	// Routers are the leaves and spines that route multicast; none if the lab does not.
	Routers []Router `json:"routers,omitempty"`
	// Workloads are recorded before they are made.
	Workloads []Workload `json:"workloads"`
	VMs       []VM       `json:"vms,omitempty"`
	// Namespaces beyond those of hosts, routers and workloads.
	Extra []string `json:"extra,omitempty"`
	// Backlog is the machine's net.core.netdev_max_backlog before the lab raised it; 0 if it did not.
	Backlog int `json:"netdev_max_backlog,omitempty"`
}

// Host is one of the lab's.
type Host struct {
	Name        string  `json:"name"`
	Namespace   string  `json:"netns"`
	VTEPAddress string  `json:"vtep_address"`
	AgentSocket string  `json:"agent_socket"`
	PinRoot     string  `json:"pin_root"`
	Agent       Process `json:"agent"`
}

// Workload is a namespace with a port of a network.
type Workload struct {
	Name      string `json:"name"`
	Namespace string `json:"netns"`
	Host      string `json:"host"`
	Tenant    string `json:"tenant"`
	Network   string `json:"network"`
	// Port is the port's name, by default the workload's; Interface is its name inside.
	Port      string `json:"port"`
	Interface string `json:"interface"`
	// Owned: the port was created for the workload, and goes with it.
	Owned bool     `json:"owned"`
	MACs  []string `json:"macs,omitempty"`
	IPs   []string `json:"ips,omitempty"`
}

// Host finds a host by name.
func (s *State) Host(name string) (Host, bool) {
	i := slices.IndexFunc(s.Hosts, func(h Host) bool { return h.Name == name })
	if i < 0 {
		return Host{}, false
	}
	return s.Hosts[i], true
}

// process finds the process of the server, of a host (its agent), or of a router: ROUTER/zebra, ROUTER/pimd.
func (s *State) process(name string) *Process {
	if name == "server" {
		return &s.Server
	}
	for i := range s.Hosts {
		if s.Hosts[i].Name == name {
			return &s.Hosts[i].Agent
		}
	}
	for i := range s.Routers {
		switch name {
		case s.Routers[i].Name + "/" + zebra:
			return &s.Routers[i].Zebra
		case s.Routers[i].Name + "/" + pimd:
			return &s.Routers[i].PIM
		}
	}
	return nil
}

// Workload finds a workload by name.
func (s *State) Workload(name string) (Workload, bool) {
	i := slices.IndexFunc(s.Workloads, func(w Workload) bool { return w.Name == name })
	if i < 0 {
		return Workload{}, false
	}
	return s.Workloads[i], true
}

func (s *State) setWorkload(w Workload) {
	if i := slices.IndexFunc(s.Workloads, func(o Workload) bool { return o.Name == w.Name }); i >= 0 {
		s.Workloads[i] = w
		return
	}
	s.Workloads = append(s.Workloads, w)
}

func (s *State) removeWorkload(name string) {
	s.Workloads = slices.DeleteFunc(s.Workloads, func(w Workload) bool { return w.Name == name })
}

// VM finds a virtual machine by name.
func (s *State) VM(name string) (VM, bool) {
	i := slices.IndexFunc(s.VMs, func(v VM) bool { return v.Name == name })
	if i < 0 {
		return VM{}, false
	}
	return s.VMs[i], true
}

func (s *State) setVM(vm VM) {
	if i := slices.IndexFunc(s.VMs, func(o VM) bool { return o.Name == vm.Name }); i >= 0 {
		s.VMs[i] = vm
		return
	}
	s.VMs = append(s.VMs, vm)
}

func (s *State) removeVM(name string) {
	s.VMs = slices.DeleteFunc(s.VMs, func(v VM) bool { return v.Name == name })
}

// config is the Config that the state was made from.
func (s *State) config() Config {
	return Config{Name: s.Name, Prefix: s.Prefix, Dir: s.Dir, PinRoot: s.PinRoot, Hosts: len(s.Hosts), Spines: s.Spines, Direct: s.Direct, Flat: s.Flat, Underlay: s.Underlay, Uplinks: s.Uplinks, FindVTEP: s.FindVTEP, UDPPort: s.UDPPort, MTU: s.MTU, Tables: s.Tables, XDP: s.XDP, Multicast: len(s.Routers) > 0, Binary: s.Binary}
}

// errNoLab is wrapped by the error of reading a state that is not there.
var errNoLab = errors.New("no lab is up")

func readState(path string) (State, error) {
	var s State
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return s, fmt.Errorf("%w (there is no %s): start one with `weft lab up`", errNoLab, path)
	}
	if err != nil {
		return s, fmt.Errorf("read the lab's state: %w", err)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("read the lab's state %s: %w; take the lab away with `weft lab down`", path, err)
	}
	return s, nil
}

// createState writes the first state; one that is there is os.ErrExist.
func createState(path string, s State) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	err = json.NewEncoder(f).Encode(s)
	return errors.Join(err, f.Close())
}

// updateState changes the state on disk under a lock between processes, and returns what it is then.
func updateState(path string, change func(*State) error) (State, error) {
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if errors.Is(err, os.ErrNotExist) {
		return readState(path)
	}
	if err != nil {
		return State{}, fmt.Errorf("lock the lab's state: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return State{}, fmt.Errorf("lock the lab's state: %w", err)
	}
	s, err := readState(path)
	if err != nil {
		return s, err
	}
	if err := change(&s); err != nil {
		return s, err
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return s, err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return s, fmt.Errorf("write the lab's state: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return s, fmt.Errorf("write the lab's state: %w", err)
	}
	return s, nil
}
