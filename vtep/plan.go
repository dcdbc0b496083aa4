package vtep

import (
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/plan"
	"github.com/weftnet/weft/wire"
)

// End is what a plan depends on of the machine: its own end of the underlay.
type End struct {
	// Addresses of the tunnels' end, one a family.
	Addresses []netip.Addr
	// UplinkMTU in octets of an underlay IP packet.
	UplinkMTU int
}

func (e End) has(four bool) bool {
	for _, a := range e.Addresses {
		if a.Is4() == four {
			return true
		}
	}
	return false
}

var uidEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// uid is made from a name, so that an object of the file is the same after every reload and restart.
func uid(kind, name string) string {
	sum := sha256.Sum256([]byte("vtep.yaml " + kind + " " + name))
	return uidEncoding.EncodeToString(sum[:16])
}

// HostUID is that of the machine. It does not depend on the file, which may give the VTEP another name.
func HostUID() string { return uid("host", "self") }

// NetworkUID and PortUID are those of a network, and of a port, by name.
func NetworkUID(name string) string { return uid("network", name) }
func PortUID(name string) string    { return uid("port", name) }

func remoteUID(r Remote) string {
	return uid("remote", fmt.Sprintf("%s %d %t", r.Address, r.UDPPort, r.OuterChecksum))
}

// Plan is what an agent must hold: the host, each network with its ports, each remote. Equal files on equal machines give equal octets; a change of
// one object of the file changes the resources of that object alone. An error says what of the file does not fit the machine.
func (f *File) Plan(end End) ([]*plan.Resource, error) {
	host := &planv1.Host{Uid: HostUID(), Name: f.Name}
	var list []*plan.Resource
	var wrong []error
	remotes := map[string]bool{}
	for _, n := range f.Networks {
		mtu, err := f.mtu(n, end)
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		host.Networks = append(host.Networks, NetworkUID(n.Name))
		for _, r := range n.Remotes {
			if id := remoteUID(r); !remotes[id] {
				remotes[id] = true
				host.Vteps = append(host.Vteps, id)
				list = append(list, plan.NewVTEP(0, remoteOf(r)))
			}
		}
		list = append(list, plan.NewNetwork(0, networkOf(n, mtu)))
		for _, p := range n.Ports {
			list = append(list, plan.NewPort(0, portOf(n, p)))
		}
	}
	if len(wrong) > 0 {
		return nil, errors.Join(wrong...)
	}
	slices.Sort(host.Networks) // their order in the file means nothing
	slices.Sort(host.Vteps)
	return append(list, plan.NewHost(0, host)), nil
}

// mtu of a network: what it says, if the uplink carries that, or what the uplink carries to all its remotes.
func (f *File) mtu(n Network, end End) (int, error) {
	outer := 50 // inner Ethernet, VXLAN, UDP, IPv4
	if !end.has(true) {
		outer = 70
	}
	if n.Group.IsValid() && !end.has(n.Group.Is4()) {
		family := map[bool]string{true: "IPv4", false: "IPv6"}[n.Group.Is4()]
		return 0, model.Errorf(model.Invalid, f.place(n.Name, "group"), "give the uplink an "+family+" address, or choose a group of the other version",
			"%s is a group of %s, and this end of the underlay has no %s address", n.Group, family, family)
	}
	if n.Group.Is6() {
		outer = 70
	}
	for _, r := range n.Remotes {
		if r.Address.Is6() {
			outer = 70
		}
		if slices.Contains(end.Addresses, r.Address) {
			return 0, model.Errorf(model.Invalid, f.place(n.Name, "remotes"), "leave it out: a VTEP is no remote of its own", "%s is this machine's own address", r.Address)
		}
		if !end.has(r.Address.Is4()) {
			family := map[bool]string{true: "IPv4", false: "IPv6"}[r.Address.Is4()]
			return 0, model.Errorf(model.Invalid, f.place(n.Name, "remotes"), "give the uplink an "+family+" address, or leave the remote out",
				"remote %s is reached by %s, and this end of the underlay has no %s address", r.Address, family, family)
		}
	}
	room := min(end.UplinkMTU-outer, model.MaxMTU)
	switch {
	case room < model.MinMTU:
		return 0, model.Errorf(model.Invalid, f.place(n.Name, "mtu"), fmt.Sprintf("raise the uplink's MTU to %d or more", model.MinMTU+outer),
			"the uplink's MTU of %d leaves %d octets for a packet in the tunnel", end.UplinkMTU, room)
	case n.MTU > room:
		return 0, model.Errorf(model.Invalid, f.place(n.Name, "mtu"), fmt.Sprintf("raise the uplink's MTU to %d, or write %d or less here", n.MTU+outer, room),
			"the uplink's MTU of %d leaves %d octets for a packet in the tunnel, and the network's is %d", end.UplinkMTU, room, n.MTU)
	case n.MTU != 0:
		return n.MTU, nil
	}
	return room, nil
}

func remoteOf(r Remote) *planv1.Vtep {
	return &planv1.Vtep{Uid: remoteUID(r), Name: r.Address.String(), Addresses: [][]byte{r.Address.AsSlice()}, UdpPort: uint32(r.UDPPort),
		OuterChecksum: r.OuterChecksum, External: true}
}

func networkOf(n Network, mtu int) *planv1.Network {
	// No address of anybody is known: nobody is answered for, and no request is held back.
	m := &planv1.Network{Uid: NetworkUID(n.Name), Vni: uint32(n.VNI), Mtu: uint32(mtu), Display: n.Name, DscpUniform: n.DSCPUniform,
		UnknownUnicast: planv1.UnknownUnicast_UNKNOWN_UNICAST_FLOOD, Neighbours: planv1.Neighbours_NEIGHBOURS_FLOOD}
	if n.DropUnknown {
		m.UnknownUnicast = planv1.UnknownUnicast_UNKNOWN_UNICAST_DROP
	}
	for _, r := range n.Remotes {
		m.External = append(m.External, &planv1.ExternalVtep{Vtep: remoteUID(r), Macs: octets(r.MACs)})
		if n.Group.IsValid() && !r.Group {
			m.Copies = append(m.Copies, remoteUID(r))
		}
	}
	if n.Group.IsValid() {
		m.Group, m.JoinedGroups = n.Group.AsSlice(), [][]byte{n.Group.AsSlice()}
	}
	if n.Learning != nil {
		m.Learning = learningOf(n.Learning.Effective())
	}
	return m
}

func learningOf(l model.Learning) *planv1.Learning {
	m := &planv1.Learning{AgeingSeconds: uint32(l.Ageing / time.Second), VtepLimit: uint32(l.VTEPLimit), PortLimit: uint32(l.PortLimit)}
	for _, p := range l.Sources {
		m.Sources = append(m.Sources, p.String())
	}
	return m
}

// portOf is bound here in all its life: epoch 1.
func portOf(n Network, p Port) *planv1.Port {
	return &planv1.Port{Uid: PortUID(p.Name), Network: NetworkUID(n.Name), Macs: octets(p.MACs), Epoch: 1, Active: HostUID(),
		Unguarded: len(p.MACs) == 0, Forwarding: p.Forwarding, TenantName: n.Name, Name: p.Name}
}

func octets(macs []wire.MAC) (list [][]byte) {
	for _, m := range macs {
		list = append(list, m[:])
	}
	return list
}
