package netdev

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrNoPeer is what FindPeer gives, wrapped, for an interface that has no other end in another namespace.
var ErrNoPeer = errors.New("it is no veth whose other end is in another network namespace")

// Peer is the other end of a veth, in another namespace. Namespace is held open until Close: close it soon, for while it is open the
// namespace does not end, and neither do its interfaces.
type Peer struct {
	Namespace *Handle
	Link      Link
	// Path that led to the namespace: the quickest hint for the next time, as searching costs a look at every process.
	Path string
}

// Close lets go of the namespace.
func (p *Peer) Close() { p.Namespace.Close() }

// FindPeer looks for the other end of a veth: the kernel tells the peer's index and a number for its namespace (IFLA_LINK_NETNSID), and
// which namespace has that number (RTM_GETNSID) is asked of the paths given, then of every one under NamespaceDir, then of every
// process's. One that only a file descriptor keeps alive is not found (fs.ErrNotExist).
func (h *Handle) FindPeer(name string, first ...string) (*Peer, error) {
	l, err := h.LinkByName(name)
	if err != nil {
		return nil, err
	}
	if l.Kind != "veth" || l.PeerNamespaceID < 0 || l.Peer == 0 {
		return nil, fmt.Errorf("interface %s: %w", name, ErrNoPeer)
	}
	asked := map[uint64]bool{}
	for _, candidates := range []func() []string{
		func() []string { return first },
		func() []string { return glob(filepath.Join(NamespaceDir, "*")) },
		func() []string { return glob("/proc/[0-9]*/ns/net") },
	} {
		for _, path := range candidates() {
			ns := h.namespaceWithID(path, l.PeerNamespaceID, asked)
			if ns == nil {
				continue
			}
			far, err := ns.LinkByIndex(l.Peer)
			if err != nil {
				ns.Close()
				return nil, fmt.Errorf("the other end of %s in %s: %w", name, path, err)
			}
			return &Peer{Namespace: ns, Link: far, Path: path}, nil
		}
	}
	return nil, fmt.Errorf("the namespace of the other end of %s has no name under %s and no process: %w", name, NamespaceDir, fs.ErrNotExist)
}

// glob lists what is there; a pattern of ours is never malformed.
func glob(pattern string) []string {
	list, _ := filepath.Glob(pattern)
	return list
}

// namespaceWithID opens the namespace at path if h's own names it by that number; asked are those that were looked at, by inode.
func (h *Handle) namespaceWithID(path string, id int, asked map[uint64]bool) *Handle {
	if path == "" {
		return nil
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil // it ended meanwhile
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || asked[st.Ino] {
		return nil
	}
	asked[st.Ino] = true
	if have, err := h.nl.GetNetNsIdByFd(fd); err != nil || have != id {
		return nil
	}
	ns, err := OpenPath(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd))
	if err != nil {
		return nil
	}
	return ns
}
