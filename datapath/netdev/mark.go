package netdev

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"
)

const (
	// NamePrefix begins the name of every interface that weft makes on a host.
	NamePrefix = "weft"
	// RouteProtocol marks every route that weft makes (rtm_protocol; 119 is nobody's in /etc/iproute2/rt_protos).
	RouteProtocol = 119
)

// ErrNotOwned is the error of an attempt to change or remove what carries no mark of ours.
var ErrNotOwned = errors.New("it is not weft's own")

// Mark says whose an interface is. It is kept in the interface's alias as "weft:<instance>:<port uid>", beside the name
// prefix, so that a restarted agent knows its own and no other instance's.
type Mark struct {
	// Instance is the agent's: two agents on one kernel have two.
	Instance string
	// Port is the uid of the port that the interface serves; or a word for what serves the host as a whole.
	Port string
}

// String is the alias.
func (m Mark) String() string { return NamePrefix + ":" + m.Instance + ":" + m.Port }

// ParseMark reads a mark from an interface's name and alias. Both must be weft's.
func ParseMark(name, alias string) (m Mark, ok bool) {
	rest, ok := strings.CutPrefix(alias, NamePrefix+":")
	if !ok || !strings.HasPrefix(name, NamePrefix) {
		return Mark{}, false
	}
	m.Instance, m.Port, ok = strings.Cut(rest, ":")
	return m, ok
}

// PortInterface is the name of the host side of a port's veth: the prefix and 10 hex digits of the uid's hash, as Linux
// allows 15 characters. 40 bits: two of 10,000 ports on a host meet once in 20,000 hosts, and then creation fails by name.
func PortInterface(uid string) string {
	sum := sha256.Sum256([]byte(uid))
	return NamePrefix + hex.EncodeToString(sum[:5])
}

// SetMark marks an interface. Its name must begin with NamePrefix, and it must carry no other mark.
func (h *Handle) SetMark(name string, m Mark) error {
	l, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("mark: %w", err)
	}
	if !strings.HasPrefix(name, NamePrefix) || l.Alias != "" && l.Alias != m.String() {
		return fmt.Errorf("mark interface %s (alias %q): %w", name, l.Alias, ErrNotOwned)
	}
	if l.Alias == m.String() {
		return nil
	}
	if err := h.nl.LinkSetAlias(ref(l.Index), m.String()); err != nil {
		return fmt.Errorf("mark interface %s: %w", name, err)
	}
	return nil
}

// group is the number that an instance's veths are made with, as the kernel takes no alias when it makes one: a veth whose maker was
// killed before it could mark it is known by this.
func group(instance string) uint32 {
	sum := sha256.Sum256([]byte("group of " + instance))
	return binary.BigEndian.Uint32(sum[:]) | 1<<31 // 0 is everybody's, and users choose small ones
}

// unfinished reports a veth that the instance made and did not come to mark.
func (l Link) unfinished(instance string) bool {
	return l.Kind == "veth" && l.Alias == "" && l.group == group(instance) && strings.HasPrefix(l.Name, NamePrefix)
}

// Owned lists the interfaces that carry a mark of the instance, and those that it was killed at making.
func (h *Handle) Owned(instance string) ([]Link, error) {
	all, err := h.Links()
	if err != nil {
		return nil, err
	}
	var own []Link
	for _, l := range all {
		if m, ok := l.Mark(); ok && m.Instance == instance || l.unfinished(instance) {
			own = append(own, l)
		}
	}
	return own, nil
}

// DeleteOwned removes an interface that carries a mark of the instance. One without is ErrNotOwned, a missing one no
// error.
func (h *Handle) DeleteOwned(name, instance string) error {
	l, err := h.LinkByName(name)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if m, ok := l.Mark(); (!ok || m.Instance != instance) && !l.unfinished(instance) {
		return fmt.Errorf("delete interface %s (alias %q): %w", name, l.Alias, ErrNotOwned)
	}
	// By index: should the name have gone to something else meanwhile, that is not deleted.
	if err := h.nl.LinkDel(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: l.Index}}); err != nil && !errors.Is(notFound(err), ErrNotFound) {
		return fmt.Errorf("delete interface %s: %w", name, err)
	}
	return nil
}
