package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/netdev"
)

// With Config.Multicast every leaf and spine runs two daemons of FRR: pimd, which routes multicast by PIM sparse mode, and zebra, which tells it of
// the kernel's interfaces and routes. Hosts join groups by IGMPv3 at their leaf. Trees grow from the rendezvous point and stay there:
//
//	          spine1 (198.19.1.1)      the rendezvous point
//	         /       |       \
//	    leaf1      leaf2      leaf3    a flood of h1 goes up by leaf1 and down to the leaves of members
//	      |          |          |
//	     h1         h2         h3
//
// A leaf sends the first packets of a source to the rendezvous point inside unicast ones (PIM registers), until that has joined the source.

// rendezvous is the rendezvous point's address, on the loopback of spine 1.
var rendezvous = netip.MustParsePrefix("198.19.1.1/32")

const (
	zebra, pimd = "zebra", "pimd"
	// maxRouted hosts: the kernel routes multicast between 32 interfaces of a spine, and two of them are its loopback and the one for registers.
	maxRouted = 30
	// answering is how long a daemon may take to answer.
	answering = 5 * time.Second
)

// frrFolders are where distributions have FRR's daemons.
var frrFolders = []string{"/usr/lib/frr", "/usr/libexec/frr", "/usr/sbin"}

// Router is a leaf or spine that routes multicast.
type Router struct {
	Name  string  `json:"name"`
	Zebra Process `json:"zebra"`
	PIM   Process `json:"pimd"`
}

// refuseMulticast says what of a Config cannot be routed multicast.
func (c Config) refuseMulticast() error {
	switch {
	case !c.Multicast:
		return nil
	case c.Underlay == 6:
		return refuse("--multicast", "the routers route multicast of IPv4 alone: FRR's pimd does", "use --underlay 4; a group of IPv6 works where all hosts are on one link")
	case c.Direct:
		return refuse("--multicast", "hosts on one link have no routers", "leave it out: groups work on a link as they are")
	case c.Bare:
		return refuse("--multicast", "a bare lab has no processes", "leave it out")
	case c.Uplinks > 1:
		return refuse("--multicast", "FRR's pimd takes multicast from addresses of a host's link alone, and with two uplinks it comes from a loopback", "use --uplinks 1")
	case c.Hosts > maxRouted:
		return refuse("--multicast", fmt.Sprintf("%d hosts are too many: Linux routes multicast between 32 interfaces of a router", c.Hosts), fmt.Sprintf("use --hosts 1 to %d", maxRouted))
	}
	return nil
}

// frr finds FRR's daemons.
func frr() (folder string, err error) {
	for _, folder := range frrFolders {
		if _, err := exec.LookPath(filepath.Join(folder, pimd)); err == nil {
			return folder, nil
		}
	}
	return "", refuse("--multicast", "there is no pimd on this machine", "install the package frr (apt-get install frr); its service need not run")
}

// routers are the leaves and spines that route multicast.
func (c Config) routers() (list []Router) {
	if !c.Multicast {
		return nil
	}
	for i := range c.Hosts {
		list = append(list, Router{Name: leafName(i + 1)})
	}
	for s := range c.Spines {
		list = append(list, Router{Name: spineName(s + 1)})
	}
	return list
}

// meet gives the rendezvous point its address, and every router the way to it.
func (t *topology) meet() error {
	if err := t.nodes[spineName(1)].AddAddress("lo", rendezvous); err != nil {
		return err
	}
	var leaves []int
	for i := 1; i <= t.cfg.Hosts; i++ {
		leaves = append(leaves, i)
		up, err := t.nodes[leafName(i)].LinkByName("to-" + spineName(1))
		if err != nil {
			return err
		}
		_, high := fabric(i, 1)
		r := netdev.Route{Dst: rendezvous, Hops: []netdev.Hop{{Gateway: high[0].Addr(), Index: up.Index}}}
		if err := t.nodes[leafName(i)].ReplaceRoute(r); err != nil {
			return err
		}
	}
	for s := 2; s <= t.cfg.Spines; s++ {
		if err := t.towards(s, leaves, 0, netdev.Route{Dst: rendezvous}); err != nil {
			return err
		}
	}
	return nil
}

// pimConfig is what pimd of a router is told.
func (c Config) pimConfig(router string) string {
	var b strings.Builder
	// A leaf that left the rendezvous point's tree for a shortest path would lose or double floods meanwhile, and gain nothing: each is as long.
	fmt.Fprintf(&b, "ip pim rp %s 224.0.0.0/4\nip pim spt-switchover infinity-and-beyond\n", rendezvous.Addr())
	for _, ifname := range c.fabricLinks(router) {
		fmt.Fprintf(&b, "interface %s\n ip pim\n ip pim hello 5 30\n", ifname)
	}
	if router == spineName(1) {
		b.WriteString("interface lo\n ip pim\n")
	}
	for i := 1; i <= c.Hosts; i++ {
		if router == leafName(i) {
			for _, below := range []string{hostName(i), guestName(i)} {
				fmt.Fprintf(&b, "interface to-%s\n ip pim\n ip igmp\n ip igmp version 3\n ip igmp query-max-response-time 10\n", below)
			}
		}
	}
	return b.String()
}

// fabricLinks are a router's interfaces to other routers: on each is one, its PIM neighbour.
func (c Config) fabricLinks(router string) (names []string) {
	for i := 1; i <= c.Hosts; i++ {
		for s := 1; s <= c.Spines; s++ {
			switch router {
			case leafName(i):
				names = append(names, "to-"+spineName(s))
			case spineName(s):
				names = append(names, "to-"+leafName(i))
			}
		}
	}
	return names
}

func (c Config) routerDir(router string) string { return filepath.Join(c.Dir, router) }

// RouterSockets is the folder of a router's sockets, for FRR's vtysh --vty_socket.
func (l *Lab) RouterSockets(router string) string { return l.cfg.routerDir(router) }

// startRouters starts the daemons of every router: pimd when zebra listens, as it tries again after ten seconds only.
func (l *Lab) startRouters(ctx context.Context) error {
	for _, daemon := range []string{zebra, pimd} {
		for _, r := range l.cfg.routers() {
			if err := l.startDaemon(r.Name + "/" + daemon); err != nil {
				return err
			}
		}
		for _, r := range l.cfg.routers() {
			name := r.Name + "/" + daemon
			err := l.await(ctx, daemon+" of "+r.Name+" answers", name, func(ctx context.Context) (bool, error) {
				_, err := l.AskRouter(ctx, r.Name, daemon, "show version")
				return err == nil, err
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// startDaemon starts zebra or pimd of a router, by the name of its process: ROUTER/DAEMON.
func (l *Lab) startDaemon(name string) error {
	folder, err := frr()
	if err != nil {
		return err
	}
	router, daemon, _ := strings.Cut(name, "/")
	dir, text := l.cfg.routerDir(router), ""
	if daemon == pimd {
		text = l.cfg.pimConfig(router)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	in := func(file string) string { return filepath.Join(dir, file) }
	if err := os.WriteFile(in(daemon+".conf"), []byte(text), 0o600); err != nil {
		return err
	}
	// As root, in the group that FRR wants to give its sockets to; no terminal on a TCP port.
	return l.start(name, startAside, nil, filepath.Join(folder, daemon), "-u", "root", "-g", "frrvty", "-f", in(daemon+".conf"), "-i", in(daemon+".pid"),
		"-z", in("zserv.api"), "--vty_socket", dir, "-P", "0", "--log", "stdout")
}

// startAside is Handle.Start with a /var/tmp of the process's own, which goes with it: FRR keeps buffers there, and a kill would leave them.
func startAside(h *netdev.Handle, cmd *exec.Cmd) error {
	started := make(chan error, 1)
	go func() { // on a thread of its own, which has its own mounts from here on and ends with the goroutine
		started <- func() error {
			if err := h.Lock(); err != nil {
				return err
			}
			if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
				return fmt.Errorf("unshare mounts: %w", err)
			}
			if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
				return fmt.Errorf("keep mounts apart: %w", err)
			}
			if err := unix.Mount("tmpfs", "/var/tmp", "tmpfs", 0, "mode=1777"); err != nil {
				return fmt.Errorf("mount /var/tmp: %w", err)
			}
			return cmd.Start()
		}()
	}()
	return <-started
}

// waitRouters waits until every router and all its neighbours know each other.
func (l *Lab) waitRouters(ctx context.Context) error {
	for _, r := range l.cfg.routers() {
		want := len(l.cfg.fabricLinks(r.Name))
		err := l.await(ctx, r.Name+" has its PIM neighbours", r.Name+"/"+pimd, func(ctx context.Context) (bool, error) {
			n, err := l.Neighbours(ctx, r.Name)
			if err == nil && n < want {
				err = fmt.Errorf("it has %d of %d", n, want)
			}
			return err == nil, err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Neighbours is how many PIM neighbours a router has.
func (l *Lab) Neighbours(ctx context.Context, router string) (n int, err error) {
	answer, err := l.AskRouter(ctx, router, pimd, "show ip pim neighbor json")
	if err != nil {
		return 0, err
	}
	var links map[string]map[string]json.RawMessage
	if err := json.Unmarshal(answer, &links); err != nil {
		return 0, fmt.Errorf("the PIM neighbours of %s: %w", router, err)
	}
	for _, ifname := range l.cfg.fabricLinks(router) {
		n += len(links[ifname])
	}
	return n, nil
}

// AskRouter gives a daemon's (zebra, pimd) answer to one of FRR's commands, show or clear.
func (l *Lab) AskRouter(ctx context.Context, router, daemon, command string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, answering)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "unix", filepath.Join(l.cfg.routerDir(router), daemon+".vty"))
	if err != nil {
		return nil, fmt.Errorf("ask %s of %s: %w", daemon, router, err)
	}
	defer c.Close()
	until, _ := ctx.Deadline()
	err = c.SetDeadline(until)
	var answer []byte
	for _, line := range []string{"enable", command} {
		if err == nil {
			answer, err = tell(c, line)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("ask %s of %s: %s: %w", daemon, router, command, err)
	}
	return answer, nil
}

// tell says a command as vtysh does, and gives the answer: text, three zeros and a status.
func tell(c net.Conn, command string) (answer []byte, err error) {
	if _, err := c.Write(append([]byte(command), 0)); err != nil {
		return nil, err
	}
	buf := make([]byte, 1<<14)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return nil, err
		}
		answer = append(answer, buf[:n]...)
		text, status, whole := bytes.Cut(answer, []byte{0, 0, 0})
		if !whole || len(status) == 0 {
			continue
		}
		if status[0] != 0 {
			return nil, fmt.Errorf("status %d: %s", status[0], bytes.TrimSpace(text))
		}
		return text, nil
	}
}

// daemons are the processes of all routers.
func daemons(s State) (all []Process) {
	for _, r := range s.Routers {
		all = append(all, r.Zebra, r.PIM)
	}
	return all
}

// isDaemon reports whether a command is one of a router's.
func isDaemon(args []string) bool {
	return slices.Contains([]string{zebra, pimd}, filepath.Base(args[0])) && slices.Contains(frrFolders, filepath.Dir(args[0]))
}
