package cli

import (
	"encoding/xml"
	"fmt"
	"strings"

	"github.com/weftnet/weft/wire"
)

// libvirtNamespace is the XML namespace in which a machine's ports are named.
const libvirtNamespace = "https://github.com/weftnet/weft/libvirt"

// domain is what concerns us of libvirt's description of a machine (https://libvirt.org/formatdomain.html).
type domain struct {
	XMLName  xml.Name `xml:"domain"`
	Metadata struct {
		Ports []struct {
			Ports []domainPort `xml:"https://github.com/weftnet/weft/libvirt port"`
		} `xml:"https://github.com/weftnet/weft/libvirt ports"`
		Others []struct {
			XMLName xml.Name
		} `xml:",any"`
	} `xml:"metadata"`
	Interfaces []domainInterface `xml:"devices>interface"`
}

type domainPort struct {
	Tenant string `xml:"tenant,attr"`
	Name   string `xml:"name,attr"`
	Dev    string `xml:"dev,attr"`
}

type domainInterface struct {
	Type string `xml:"type,attr"`
	MAC  struct {
		Address string `xml:"address,attr"`
	} `xml:"mac"`
	Target struct {
		Dev     string `xml:"dev,attr"`
		Managed string `xml:"managed,attr"`
	} `xml:"target"`
	MTU struct {
		Size uint32 `xml:"size,attr"`
	} `xml:"mtu"`
	Driver struct {
		Queues uint32 `xml:"queues,attr"`
	} `xml:"driver"`
}

// guestPort is a port of a machine and the network card it belongs to.
type guestPort struct {
	tenant, name, dev string
	mac               string
	mtu, queues       uint32
}

// guestPorts are the ports that a machine's description names; none is no error.
func guestPorts(description []byte, tenant string) ([]guestPort, error) {
	var d domain
	if err := xml.Unmarshal(description, &d); err != nil {
		return nil, refusef("domain", "give the XML that `virsh dumpxml` prints", "it is not a machine's description: %s", err)
	}
	for _, o := range d.Metadata.Others {
		if o.XMLName.Local == "ports" && strings.Contains(o.XMLName.Space, "weft") {
			return nil, refusef("metadata", "write xmlns:weft='"+libvirtNamespace+"'", "<ports> is of the namespace %q, which is not weft's", o.XMLName.Space)
		}
	}
	var ports []guestPort
	taken := map[string]string{}
	for _, list := range d.Metadata.Ports {
		for _, p := range list.Ports {
			g, err := d.guestPort(p, tenant, len(list.Ports))
			if err != nil {
				return nil, err
			}
			if other, twice := taken[g.dev]; twice {
				return nil, refusef("metadata", "name another interface with dev='…'", "ports %s and %s/%s are both of interface %s", other, g.tenant, g.name, g.dev)
			}
			taken[g.dev] = g.tenant + "/" + g.name
			ports = append(ports, g)
		}
	}
	return ports, nil
}

// guestPort finds the interface of a port: the one it names, else the one of its own name, else the only one there is.
func (d *domain) guestPort(p domainPort, tenant string, ports int) (guestPort, error) {
	if p.Tenant != "" {
		tenant = p.Tenant
	}
	switch {
	case p.Name == "":
		return guestPort{}, refusef("metadata", "write <weft:port tenant='…' name='…'/>", "a port has no name")
	case tenant == "":
		return guestPort{}, refusef("metadata", "write tenant='…' into it, or TENANT=… into /etc/weft/hook.conf", "port %s has no tenant", p.Name)
	}
	want := p.Dev
	if want == "" {
		want = p.Name
	}
	var ours []domainInterface
	found := -1
	for _, i := range d.Interfaces {
		if i.Type != "ethernet" {
			continue
		}
		if i.Target.Dev == want {
			found = len(ours)
		}
		ours = append(ours, i)
	}
	if found < 0 && p.Dev == "" && ports == 1 && len(ours) == 1 {
		found = 0
	}
	fix := fmt.Sprintf("write <interface type='ethernet'> with <target dev='%s' managed='no'/>", want)
	if found < 0 {
		return guestPort{}, refusef("metadata", fix, "port %s/%s is of interface %s, and the machine has no such <interface type='ethernet'>", tenant, p.Name, want)
	}
	i := ours[found]
	switch {
	case i.Target.Dev == "":
		return guestPort{}, refusef("interface", fix, "that of port %s/%s names no device", tenant, p.Name)
	case i.Target.Managed != "no":
		return guestPort{}, refusef("interface", fix, "libvirt would make %s itself, which is port %s/%s's", i.Target.Dev, tenant, p.Name)
	}
	return guestPort{tenant: tenant, name: p.Name, dev: i.Target.Dev, mac: i.MAC.Address, mtu: i.MTU.Size, queues: max(i.Driver.Queues, 1)}, nil
}

// sameMAC compares what two writings mean.
func sameMAC(a, b string) bool {
	x, xerr := wire.ParseMAC(a)
	y, yerr := wire.ParseMAC(b)
	return xerr == nil && yerr == nil && x == y
}
