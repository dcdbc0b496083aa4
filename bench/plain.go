package bench

import (
	"errors"
	"fmt"

	"github.com/weftnet/weft/datapath/netdev"
)

const (
	vethName  = "direct veth"
	plainName = "bridge without overlay"
)

// plainBridge joins two workloads of one host by a Linux bridge, tuned as the one with an overlay is.
type plainBridge struct{ *bridgeVXLAN }

func newPlainBridge(prefix string) (_ Contender, err error) {
	c := &plainBridge{&bridgeVXLAN{name: plainName, prefix: prefix, tuned: true}}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("build %s: %w", plainName, err), c.Close())
		}
	}()
	h, err := c.namespace("h1")
	if err != nil {
		return nil, err
	}
	if err = h.AddBridge("br0", innerMTU); err != nil {
		return nil, err
	}
	for i := range c.workloads {
		if err = c.portNamed(h, i, portName(i)); err != nil {
			return nil, err
		}
		if err = errors.Join(h.SetMaster(portName(i), "br0"), h.SetBridgePortLearning(portName(i), false), h.AddBridgeFDB(portName(i), workloadMACs[i])); err != nil {
			return nil, err
		}
		c.uplinks = append(c.uplinks, uplink{h, portName(i)})
	}
	return c, errors.Join(setBridgeNF(h, "0"), h.SetUp("br0"))
}

func portName(i int) string { return fmt.Sprintf("port%d", i) }

// SetWire implements Contender: the hop towards each workload is the wire. The ports keep GRO on, for the generator.
func (c *plainBridge) SetWire(on bool) error {
	for _, u := range c.uplinks {
		for _, f := range []netdev.Feature{netdev.TX, netdev.TSO, netdev.GSO} {
			if err := ensureFeature(u, f, !on); err != nil {
				return err
			}
		}
	}
	return c.prepare()
}

// prepare implements preparer.
func (c *plainBridge) prepare() error {
	var errs []error
	for _, u := range c.uplinks {
		errs = append(errs, ensureFeature(u, netdev.GRO, true))
	}
	return errors.Join(errs...)
}

// prepare implements preparer.
func (c *directVeth) prepare() error {
	return ensureFeature(uplink{c.handles[1], "eth0"}, netdev.GRO, true)
}
