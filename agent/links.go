package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/wire"
)

// Links is what the agent asks of the host's network interfaces. Making is idempotent; what weft did not make is never
// changed, but for being set up and a TAP device's MTU. *hostLinks is the real one.
type Links interface {
	// Link looks one up; netdev.ErrNotFound.
	Link(name string) (netdev.Link, error)
	// MakeVeth makes or adopts a pair to another namespace, the far end up; the near one is brought up when its program is
	// attached: a frame that came before would reach the host's own stack.
	MakeVeth(veth) (netdev.Link, error)
	// MakeOAM makes or adopts the probes' pair and returns the end that carries programs.
	MakeOAM(near, far wire.MAC, mtu int) (netdev.Link, error)
	// MakeTAP makes a persistent TAP device with virtio headers, or takes that over which is there. Owner and group may be -1.
	MakeTAP(name string, queues, owner, group int) (netdev.Link, error)
	// RemoveTAP removes one, unless somebody has it open. A missing one is no error.
	RemoveTAP(name string) error
	// SetUp brings an interface up, SetDown down.
	SetUp(name string) error
	SetDown(name string) error
	SetMTU(name string, mtu int) error
	// Delete removes an interface made here. A missing one is no error.
	Delete(name string) error
	// Owned lists the interfaces made here, by any earlier agent of this instance.
	Owned() ([]netdev.Link, error)

	// PeerFeatures reads those features of a veth's other end that the XDP lane depends on. netns is where to look for it first, or "".
	PeerFeatures(name, netns string) (map[netdev.Feature]bool, error)
	// SetPeerFeatures switches features there. An error may leave some switched.
	SetPeerFeatures(name, netns string, want map[netdev.Feature]bool) error
	// XDPFeatures is what an interface can do with XDP now; WatchXDP tells of changes, 0 for any.
	XDPFeatures(index int) (netdev.XDPFeatures, error)
	WatchXDP(ctx context.Context) (<-chan int, error)

	// JoinGroup makes an interface a member of a multicast group, for as long as it is there and nobody calls LeaveGroup: the process may end.
	JoinGroup(name string, group netip.Addr) error
	LeaveGroup(netdev.Group) error
	// Groups lists the memberships made by JoinGroup, by any earlier agent.
	Groups() ([]netdev.Group, error)

	Links() ([]netdev.Link, error)
	Addresses(name string) ([]netdev.Address, error)
	Routes() ([]netdev.Route, error)
	ManageNeighbour(index int, ip netip.Addr) error
	ReleaseNeighbour(index int, ip netip.Addr) error
	Subscribe(ctx context.Context) (<-chan netdev.Event, error)
}

// veth is a port's interface as the agent makes it.
type veth struct {
	uid string
	// near is its name on the host; netns and far are the place and the name of the other end.
	near, netns, far string
	mac              wire.MAC
	ips              []netip.Prefix
	mtu              int
	// gone are addresses that it had and is to lose.
	gone []netip.Prefix
}

// hostLinks is Links in the namespace the agent runs in.
type hostLinks struct {
	*netdev.Handle
	instance string
	// peers are the paths by which the other ends of veths were found last, by interface. Only the loop has them.
	peers map[string]string
}

// peer finds a veth's other end, where it was the last time first: whoever looks every two seconds must not search every process.
func (h *hostLinks) peer(name, netns string) (*netdev.Peer, error) {
	p, err := h.FindPeer(name, netns, h.peers[name])
	if err != nil {
		delete(h.peers, name)
		return nil, err
	}
	if netns == "" {
		h.peers[name] = p.Path
	}
	return p, nil
}

func (h *hostLinks) Link(name string) (netdev.Link, error) { return h.LinkByName(name) }

func (h *hostLinks) MakeVeth(v veth) (netdev.Link, error) {
	ns, err := netdev.OpenPath(v.netns)
	if err != nil {
		return netdev.Link{}, fmt.Errorf("open network namespace %s: %w", v.netns, err)
	}
	defer ns.Close()
	if ns.Same(h.Handle) {
		return netdev.Link{}, fmt.Errorf("network namespace %s is the host's own: a workload needs one of its own", v.netns)
	}
	near, _, err := h.EnsureVeth(netdev.Veth{
		Name: v.near, Mark: netdev.Mark{Instance: h.instance, Port: v.uid}, MTU: v.mtu, Quiet: true, Down: true,
		Peer: netdev.VethPeer{Namespace: ns, Name: v.far, MAC: v.mac, Addresses: v.ips},
	})
	for _, ip := range v.gone {
		if err == nil {
			err = ns.DeleteAddress(v.far, ip)
		}
	}
	return near, err
}

func (h *hostLinks) MakeOAM(near, far wire.MAC, mtu int) (netdev.Link, error) {
	link, _, err := h.EnsureVeth(netdev.Veth{
		Name: oamInterface, Mark: netdev.Mark{Instance: h.instance, Port: "oam"}, MTU: mtu, MAC: near, Quiet: true,
		Peer: netdev.VethPeer{Name: oamSocket, MAC: far},
	})
	if err != nil {
		return link, err
	}
	return link, h.Quiet(oamSocket)
}

func (h *hostLinks) PeerFeatures(name, netns string) (map[netdev.Feature]bool, error) {
	p, err := h.peer(name, netns)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	have := netdev.FeaturesForXDP()
	for f := range have {
		if have[f], err = p.Namespace.Feature(p.Link.Name, f); err != nil {
			return nil, err
		}
	}
	return have, nil
}

func (h *hostLinks) SetPeerFeatures(name, netns string, want map[netdev.Feature]bool) error {
	p, err := h.peer(name, netns)
	if err != nil {
		return err
	}
	defer p.Close()
	delete(h.peers, name) // it may be the last that is asked of it
	for f, on := range want {
		err = errors.Join(err, p.Namespace.SetFeature(p.Link.Name, f, on))
	}
	return err
}

func (h *hostLinks) Delete(name string) error { return h.DeleteOwned(name, h.instance) }

func (h *hostLinks) Owned() ([]netdev.Link, error) { return h.Handle.Owned(h.instance) }

// isNotFound reports that an interface is not there.
func isNotFound(err error) bool { return errors.Is(err, netdev.ErrNotFound) }
