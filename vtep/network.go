package vtep

import (
	"fmt"
	"net/netip"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/wire"
)

// Parse reads a file. path is how messages name it. All that is wrong is said, up to twenty mistakes.
func Parse(path string, octets []byte) (*File, error) {
	if len(octets) > MaxOctets {
		return nil, model.Errorf(model.Invalid, path, "spread the networks over several machines", "%d octets are more than %d", len(octets), MaxOctets)
	}
	doc, err := document(path, octets)
	if err != nil {
		return nil, err
	}
	r := &reader{path: path}
	f := &File{Name: "vtep", Underlay: Underlay{UDPPort: wire.VXLANPort}, lines: map[string]int{}, path: path}
	known := &known{names: map[string]int{}, vnis: map[wire.VNI]int{}, interfaces: map[string]int{}, ports: map[string]int{}}
	var networks *yaml.Node
	r.keys(doc, "", []string{"name", "underlay", "networks"}, func(key, field string, n *yaml.Node) {
		switch key {
		case "name":
			f.Name = r.name(n, field)
		case "underlay":
			r.underlay(n, field, &f.Underlay, known)
		case "networks":
			networks = n
		}
	})
	if networks != nil { // after the underlay, whose UDP port is the remotes' too
		r.list(networks, "networks", MaxNetworks, func(field string, n *yaml.Node) {
			f.Networks = append(f.Networks, r.network(n, field, f, known))
		})
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	return f, nil
}

// known are what may be there once in a file, with the lines where it is.
type known struct {
	names      map[string]int
	vnis       map[wire.VNI]int
	interfaces map[string]int
	ports      map[string]int
}

// once refuses what is there a second time.
func once[K comparable](r *reader, seen map[K]int, n *yaml.Node, field string, k K, fix string) {
	if line, twice := seen[k]; twice {
		r.refuse(n, field, fix, "%v is on line %d already", k, line)
		return
	}
	seen[k] = n.Line
}

func onceAddress(r *reader, seen map[netip.Addr]int, n *yaml.Node, field string, a netip.Addr) {
	if a.IsValid() {
		once(r, seen, n, field, a, "list a remote once, with all its MACs")
	}
}

func (r *reader) name(n *yaml.Node, field string) string {
	s := r.text(n, field)
	if n.Kind == yaml.ScalarNode {
		r.add(n, model.ValidateName(field, s))
	}
	return s
}

func (r *reader) underlay(n *yaml.Node, field string, u *Underlay, k *known) {
	r.keys(n, field, []string{"uplink", "address", "udp_port", "xdp"}, func(key, field string, n *yaml.Node) {
		switch key {
		case "uplink":
			u.Uplink = r.text(n, field)
			for _, name := range strings.Split(u.Uplink, ",") {
				r.ifname(n, field, name)
				once(r, k.interfaces, n, field, name, "name each interface once")
			}
		case "address":
			u.Address = r.address(n, field)
		case "udp_port":
			u.UDPPort = r.udpPort(n, field)
		case "xdp":
			u.XDP = r.truth(n, field)
		}
	})
}

func (r *reader) udpPort(n *yaml.Node, field string) uint16 {
	return uint16(r.number(n, field, 1, 65535, "choose one in that range, or leave it out for 4789"))
}

// ifname refuses what Linux takes for no name of an interface, and weft's own.
func (r *reader) ifname(n *yaml.Node, field, s string) {
	switch {
	case n.Kind != yaml.ScalarNode: // said already
	case s == "" || len(s) > 15 || s == "." || s == ".." || strings.ContainsAny(s, "/: \t\n"):
		r.refuse(n, field, "Linux takes 1 to 15 characters without / : and space", "%q is not an interface name", s)
	case strings.HasPrefix(s, "weft-"):
		r.refuse(n, field, "choose another interface", "names that begin with weft- are weft's own")
	}
}

// address is one of a VTEP.
func (r *reader) address(n *yaml.Node, field string) netip.Addr {
	s := r.text(n, field)
	if n.Kind != yaml.ScalarNode {
		return netip.Addr{}
	}
	a, e := model.ParseAddr(field, s)
	switch {
	case e != nil:
		r.add(n, e)
	case a.IsMulticast():
		r.refuse(n, field, "give the address of one machine", "%s is a multicast address", a)
	case a.IsUnspecified() || a.IsLoopback() || a.IsLinkLocalUnicast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		r.refuse(n, field, "give an address that leads to the machine from everywhere on the underlay", "%s cannot be the address of a VTEP", a)
	}
	return a
}

func (r *reader) macs(n *yaml.Node, field string, most int, seen map[wire.MAC]int) (macs []wire.MAC) {
	r.list(n, field, most, func(field string, n *yaml.Node) {
		s := r.text(n, field)
		if n.Kind != yaml.ScalarNode {
			return
		}
		m, e := model.ParseMAC(field, s)
		if e != nil {
			e.Fix = "choose a unicast MAC such as 02:00:00:00:00:01"
			r.add(n, e)
			return
		}
		once(r, seen, n, field, m, "a MAC is in one place of a network")
		macs = append(macs, m)
	})
	return macs
}

func (r *reader) network(n *yaml.Node, field string, f *File, k *known) (net Network) {
	macs, remotes, ports := map[wire.MAC]int{}, map[netip.Addr]int{}, []*yaml.Node(nil)
	portsField := ""
	r.keys(n, field, []string{"name", "vni", "mtu", "unknown_unicast", "dscp", "group", "learning", "remotes", "ports"}, func(key, field string, n *yaml.Node) {
		switch key {
		case "name":
			net.Name = r.name(n, field)
			once(r, k.names, n, field, net.Name, "give each network a name of its own")
		case "vni":
			net.VNI = wire.VNI(r.number(n, field, 1, int64(wire.MaxVNI), "choose one in that range, the same on every VTEP of the network"))
			once(r, k.vnis, n, field, net.VNI, "a VNI is of one network")
		case "mtu":
			net.MTU = int(r.number(n, field, model.MinMTU, model.MaxMTU, "choose one in that range, or leave it out for what the uplink carries"))
		case "unknown_unicast":
			net.DropUnknown = r.choice(n, field, "flood", "drop") == "drop"
		case "dscp":
			net.DSCPUniform = r.choice(n, field, "pipe", "uniform") == "uniform"
		case "group":
			net.Group = r.group(n, field)
		case "learning":
			net.Learning = r.learning(n, field)
		case "remotes":
			r.list(n, field, MaxRemotes, func(field string, n *yaml.Node) {
				net.Remotes = append(net.Remotes, r.remote(n, field, f, remotes, macs))
			})
		case "ports":
			ports, portsField = []*yaml.Node{n}, field
		}
	})
	f.lines[net.Name] = n.Line
	if net.Name == "" {
		r.refuse(n, field+".name", "give the network a name", "it is missing")
	}
	if net.VNI == 0 {
		r.refuse(n, field+".vni", "write vni: and a number from 1 to 16777215", "it is missing")
	}
	r.reach(n, field, net)
	for _, n := range ports { // after the name, which is part of theirs
		r.list(n, portsField, MaxPorts, func(field string, n *yaml.Node) {
			net.Ports = append(net.Ports, r.port(n, field, k, macs))
		})
	}
	return net
}

func (r *reader) remote(n *yaml.Node, field string, f *File, seen map[netip.Addr]int, macs map[wire.MAC]int) Remote {
	rem := Remote{UDPPort: f.Underlay.UDPPort}
	if n.Kind == yaml.ScalarNode { // "- 192.0.2.2" alone
		rem.Address = r.address(n, field)
		onceAddress(r, seen, n, field, rem.Address)
		return rem
	}
	r.keys(n, field, []string{"address", "udp_port", "outer_checksum", "flood", "macs"}, func(key, field string, n *yaml.Node) {
		switch key {
		case "address":
			rem.Address = r.address(n, field)
			onceAddress(r, seen, n, field, rem.Address)
		case "udp_port":
			rem.UDPPort = r.udpPort(n, field)
		case "outer_checksum":
			rem.OuterChecksum = r.truth(n, field)
		case "flood":
			rem.Group = r.choice(n, field, "copy", "group") == "group"
		case "macs":
			rem.MACs = r.macs(n, field, MaxRemoteMACs, macs)
		}
	})
	if !rem.Address.IsValid() && n.Kind == yaml.MappingNode {
		r.refuse(n, field+".address", "give its underlay address", "it is missing or wrong")
	}
	return rem
}

func (r *reader) port(n *yaml.Node, field string, k *known, macs map[wire.MAC]int) (p Port) {
	if n.Kind == yaml.ScalarNode { // "- tap0" alone
		p.Interface = n.Value
		r.ifname(n, field, p.Interface)
		once(r, k.interfaces, n, field, p.Interface, "an interface is in one network, and an uplink in none")
	} else {
		r.keys(n, field, []string{"name", "interface", "macs", "forwarding"}, func(key, field string, n *yaml.Node) {
			switch key {
			case "name":
				p.Name = r.name(n, field)
			case "interface":
				p.Interface = r.text(n, field)
				r.ifname(n, field, p.Interface)
				once(r, k.interfaces, n, field, p.Interface, "an interface is in one network, and an uplink in none")
			case "macs":
				p.MACs = r.macs(n, field, MaxPortMACs, macs)
			case "forwarding":
				p.Forwarding = r.truth(n, field)
			}
		})
	}
	if p.Interface == "" && n.Kind == yaml.MappingNode {
		r.refuse(n, field+".interface", "name the interface that is to be in the network", "it is missing")
	}
	if p.Name == "" {
		p.Name = p.Interface
	}
	once(r, k.ports, n, field, p.Name, "give each port a name of its own")
	return p
}

// place is a line of the file for what is found wrong later.
func (f *File) place(network, field string) string {
	return at(f.path, f.lines[network], fmt.Sprintf("network %s, %s", network, field))
}
