package lab

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/weftnet/weft/datapath/netdev"
)

// leafOf is the leaf of a host's uplink k: its own, then the next one.
func (c Config) leafOf(host, k int) int { return (host-1+k)%c.Hosts + 1 }

// announce is what a routing protocol would do for the loopback of a host: each of its leaves leads to it by its own link, and the spines by all of
// those leaves. Uplinks that are away are in none of them: their leaves go by the spines.
func (t *topology) announce(host int, away []bool) error {
	for f := t.cfg.family(); f < 2; f++ {
		dst := loopback(host)[f]
		var leaves []int
		for k := range t.cfg.Uplinks {
			leaf := t.nodes[leafName(t.cfg.leafOf(host, k))]
			if away[k] {
				if err := leaf.DeleteRoute(dst); err != nil {
					return err
				}
				continue
			}
			leaves = append(leaves, t.cfg.leafOf(host, k))
			l, err := leaf.LinkByName("to-" + hostName(host))
			if err != nil {
				return err
			}
			_, node := edge(host, k)
			if err := leaf.ReplaceRoute(netdev.Route{Dst: dst, Hops: []netdev.Hop{{Gateway: node[f].Addr(), Index: l.Index}}}); err != nil {
				return err
			}
		}
		for s := 1; s <= t.cfg.Spines; s++ {
			if err := t.towards(s, leaves, f, netdev.Route{Dst: dst}); err != nil {
				return err
			}
		}
	}
	return nil
}

// towards has a spine send by these leaves; by none, nowhere.
func (t *topology) towards(s int, leaves []int, f int, r netdev.Route) error {
	spine := t.nodes[spineName(s)]
	for _, i := range leaves {
		l, err := spine.LinkByName("to-" + leafName(i))
		if err != nil {
			return err
		}
		low, _ := fabric(i, s)
		r.Hops = append(r.Hops, netdev.Hop{Gateway: low[f].Addr(), Index: l.Index})
	}
	if len(r.Hops) == 0 {
		return spine.DeleteRoute(r.Dst)
	}
	return spine.ReplaceRoute(r)
}

// PullUplink takes a host's uplink k away as a cable is pulled: first nothing passes and both ends have no carrier, then the routers
// send by the other one. PlugUplink ends it.
func (l *Lab) PullUplink(host string, k int) error { return l.cable(host, k, false) }

// PlugUplink ends what PullUplink did.
func (l *Lab) PlugUplink(host string, k int) error { return l.cable(host, k, true) }

func (l *Lab) cable(host string, k int, in bool) error {
	i, err := l.hostNumber(host)
	if err != nil {
		return err
	}
	if l.cfg.Uplinks < 2 || k < 0 || k >= l.cfg.Uplinks {
		return refuse("NUMBER", fmt.Sprintf("%s has no uplink %d that it could do without", host, k), "build the lab with --uplinks 2; they are 0 and 1")
	}
	t := topology{cfg: l.cfg, nodes: map[string]*netdev.Handle{}}
	for _, n := range l.cfg.infrastructure() {
		if t.nodes[n], err = l.Node(n); err != nil {
			return err
		}
	}
	leaf, name := t.nodes[leafName(l.cfg.leafOf(i, k))], "to-"+host
	if in {
		if err := l.plug(leaf, i, k); err != nil {
			return err
		}
	} else if err := leaf.SetDown(name); err != nil {
		return err
	}
	away := make([]bool, l.cfg.Uplinks)
	for j := range away {
		end, err := t.nodes[leafName(l.cfg.leafOf(i, j))].LinkByName(name)
		if err != nil {
			return err
		}
		away[j] = !end.Up
	}
	return t.announce(i, away)
}

func (l *Lab) hostNumber(host string) (int, error) {
	for i := 1; i <= l.cfg.Hosts; i++ {
		if hostName(i) == host {
			return i, nil
		}
	}
	return 0, refuse("HOST", host+" is no host of the lab", fmt.Sprintf("use one of h1 to h%d", l.cfg.Hosts))
}

func (a *app) uplinkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "uplink HOST NUMBER down|up",
		Short: "Pull one of a host's two uplinks (down), or plug it in again (up); the routers follow",
		Args:  cobra.ExactArgs(3),
		RunE: func(_ *cobra.Command, args []string) error {
			k, err := strconv.Atoi(args[1])
			if err != nil {
				return refuse("NUMBER", fmt.Sprintf("%q is no number", args[1]), "use 0 or 1")
			}
			l, err := a.open()
			if err != nil {
				return err
			}
			defer l.Close()
			switch args[2] {
			case "down":
				return l.PullUplink(args[0], k)
			case "up":
				return l.PlugUplink(args[0], k)
			}
			return refuse("down|up", fmt.Sprintf("%q is neither", args[2]), "use down or up")
		},
	}
}
