package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/lab"
	"github.com/weftnet/weft/wire"
)

// The dhcp measure: so many clients lease their addresses, a few at once, each by DISCOVER, OFFER, REQUEST and ACK in frames on real interfaces. Weft's
// clients are the MACs of ports, sixteen each, which a real agent serves as it serves any; a port has a share of the agent's time (50 requests a
// second and 64 in reserve), and a round asks for 32. Those of dnsmasq, which has the same addresses as reservations, are all behind one interface.
//
//	weft     clients -> a veth for each 16 of them -> from_port -> ring buffer -> agent -> AF_PACKET -> veth
//	dnsmasq  clients -> one veth                   -> socket    -> dnsmasq               -> socket   -> veth

const (
	dhcpLab         = benchLab + "-dhcp"
	dhcpClientNetns = benchPrefix + "c-clients"
	dnsmasqNetns    = benchPrefix + "c-dnsmasq"
	dnsmasqName     = "dnsmasq"
	// dnsmasqShare: it looks for a client in a list, and all of them would take too long.
	dnsmasqShare = 10
	dnsmasqDir   = "/run/weft-bench/dnsmasq"
	// dhcpAtOnce clients ask at the same time.
	dhcpAtOnce = 16
	// macsOfPort is the most that a port has.
	macsOfPort = 16
	// dhcpPatience: who has no answer by then asks again.
	dhcpPatience = time.Second
	dhcpTries    = 5
)

var (
	dhcpNet       = netip.MustParsePrefix("10.104.0.0/16")
	dnsmasqServer = netip.MustParseAddr("10.104.0.1")
)

// dhcpClient is client i: its MAC, and the address that is reserved for it.
func dhcpClient(i int) (wire.MAC, netip.Addr) {
	n := binary.BigEndian.AppendUint16(nil, uint16(i))
	host := binary.BigEndian.AppendUint16(nil, uint16(i+256))
	return wire.MAC{0x02, 0x77, 0x65, 4, n[0], n[1]}, netip.AddrFrom4([4]byte{10, 104, host[0], host[1]})
}

// leaser is a server with its clients.
type leaser struct {
	name   string
	server netip.Addr
	netns  *netdev.Handle
	// ifindex of each client's interface.
	ifindex []int
	// ask has each client's two requests.
	ask   [][2][]byte
	close func() error
	// share: one client of so many leases its address in a round, each time others; 0 is all of them.
	share, round int
	// again is how many requests had to be repeated.
	again int
}

// prepare makes the requests beforehand: what the clients do is not measured.
func (l *leaser) prepare() error {
	for i := range l.ifindex {
		mac, ip := dhcpClient(i)
		var two [2][]byte
		for step := range two {
			edits := []dhcpv4.Modifier{dhcpv4.WithHwAddr(mac[:]), dhcpv4.WithBroadcast(true), dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover),
				dhcpv4.WithTransactionID(transaction(i, step)), dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer, dhcpv4.OptionHostName)}
			if step == 1 {
				edits = append(edits, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(ip.AsSlice())),
					dhcpv4.WithOption(dhcpv4.OptServerIdentifier(l.server.AsSlice())))
			}
			m, err := dhcpv4.New(edits...)
			if err != nil {
				return err
			}
			two[step] = wire.Flow{SrcMAC: mac, DstMAC: wire.BroadcastMAC, Src: netip.IPv4Unspecified(), Dst: netip.AddrFrom4([4]byte{255, 255, 255, 255})}.UDP(68, 67, m.ToBytes())
		}
		l.ask = append(l.ask, two)
	}
	return nil
}

// transaction is what a request's answer is known by.
func transaction(i, step int) dhcpv4.TransactionID {
	return dhcpv4.TransactionID(binary.BigEndian.AppendUint32(nil, uint32(i)<<1|uint32(step)))
}

// reply is an answer: of which client's which step, and what it says.
type reply struct {
	client, step int
	kind         dhcpv4.MessageType
	addr         netip.Addr
}

// readReply reads a frame as far as is needed; ok is false of what is no answer of a DHCP server.
func readReply(b []byte) (r reply, ok bool) {
	const ip, udp, dhcp, options = 14, 14 + 20, 14 + 20 + 8, 14 + 20 + 8 + 240
	if len(b) < options || b[ip] != 0x45 || b[ip+9] != unix.IPPROTO_UDP || binary.BigEndian.Uint16(b[udp+2:]) != 68 || b[dhcp] != 2 {
		return r, false
	}
	id := int(binary.BigEndian.Uint32(b[dhcp+4:]))
	r.client, r.step, r.addr = id>>1, id&1, netip.AddrFrom4([4]byte(b[dhcp+16:]))
	for at := options; at+2 < len(b) && b[at] != 255; at += 2 + int(b[at+1]) {
		if b[at] == 53 {
			r.kind = dhcpv4.MessageType(b[at+2])
			return r, true
		}
	}
	return r, false
}

// lease has every client lease its address, and gives how many answers came a second, and how long each took.
func (l *leaser) lease() (rate float64, took []time.Duration, err error) {
	err = l.netns.Run(func() error {
		runtime.LockOSThread()
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		soon := unix.NsecToTimeval((100 * time.Millisecond).Nanoseconds())
		if err := errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &soon), unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20), unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: 0x0008})); err != nil { // ETH_P_IP
			return err
		}
		if err := pin(senderCore); err != nil {
			return err
		}
		l.round++
		d := dance{leaser: l, fd: fd, every: max(1, l.share), step: make([]int, len(l.ask)), sent: make([]time.Time, len(l.ask)), tries: make([]int, len(l.ask))}
		d.next = l.round % d.every
		d.left = (len(l.ask) - d.next + d.every - 1) / d.every
		start := time.Now()
		if err := d.run(); err != nil {
			return err
		}
		rate, took = float64(len(d.took))/time.Since(start).Seconds(), d.took
		return nil
	})
	return rate, took, err
}

// dance is the clients at work.
type dance struct {
	*leaser
	fd          int
	step, tries []int
	sent        []time.Time
	// next client to begin, one of every so many; left are those who have no address yet.
	next, every, left int
	took              []time.Duration
}

func (d *dance) send(i int) error {
	d.sent[i] = time.Now()
	if err := unix.Sendto(d.fd, d.ask[i][d.step[i]], 0, &unix.SockaddrLinklayer{Ifindex: d.ifindex[i], Halen: 6}); err != nil {
		return fmt.Errorf("send a request of client %d: %w", i, err)
	}
	return nil
}

// begin has the next client look for a server; they are not neighbours at one port.
func (d *dance) begin() error {
	i := d.next
	if i >= len(d.ask) {
		return nil
	}
	d.next += d.every
	return d.send(i)
}

func (d *dance) run() error {
	for range dhcpAtOnce {
		if err := d.begin(); err != nil {
			return err
		}
	}
	buf := make([]byte, 2048)
	for d.left > 0 {
		n, _, err := unix.Recvfrom(d.fd, buf, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			if err := d.repeat(); err != nil {
				return err
			}
			continue
		case err != nil:
			return err
		}
		if r, ok := readReply(buf[:n]); ok {
			if err := d.hear(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// hear takes an answer in; one that comes late is nobody's.
func (d *dance) hear(r reply) error {
	i := r.client
	if i >= len(d.ask) || r.step != d.step[i] || d.sent[i].IsZero() {
		return nil
	}
	want := [2]dhcpv4.MessageType{dhcpv4.MessageTypeOffer, dhcpv4.MessageTypeAck}[r.step]
	if _, ip := dhcpClient(i); r.kind != want || r.addr != ip {
		return fmt.Errorf("client %d gets %s with %s, and not %s with %s", i, r.kind, r.addr, want, ip)
	}
	d.took = append(d.took, time.Since(d.sent[i]))
	if d.step[i]++; d.step[i] == 1 {
		return d.send(i)
	}
	d.left--
	return d.begin()
}

// repeat asks again for those who wait for long.
func (d *dance) repeat() error {
	for i := range d.ask {
		if d.sent[i].IsZero() || d.step[i] > 1 || time.Since(d.sent[i]) < dhcpPatience {
			continue
		}
		if d.tries[i]++; d.tries[i] == dhcpTries {
			return fmt.Errorf("client %d has asked %d times", i, dhcpTries)
		}
		d.again++
		if err := unix.Sendto(d.fd, d.ask[i][d.step[i]], 0, &unix.SockaddrLinklayer{Ifindex: d.ifindex[i], Halen: 6}); err != nil {
			return err
		}
	}
	return nil
}

// newDHCPClients makes the namespace of the clients, with interfaces for them unless somebody else makes those.
func newDHCPClients(name string) (*netdev.Handle, error) {
	if err := netdev.CreateNamespace(name); err != nil {
		return nil, err
	}
	return netdev.OpenName(name)
}

// newWeftLeaser is a lab whose first host has a port for each sixteen clients.
func newWeftLeaser(ctx context.Context, binary string, n int) (_ *leaser, err error) {
	l := &leaser{name: weftName, server: wire.DHCPServer4}
	var undo []func() error
	l.close = func() error {
		var errs []error
		for _, f := range slices.Backward(undo) {
			errs = append(errs, f())
		}
		return errors.Join(errs...)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("build weft's leases: %w", err), l.close())
		}
	}()
	cell, err := lab.Up(ctx, lab.Config{Name: dhcpLab, Direct: true, MTU: underlayMTU, Tables: "host", Binary: binary})
	if err != nil {
		return nil, err
	}
	undo = append(undo, func() error { return cell.Down(context.Background()) })
	if l.netns, err = newDHCPClients(dhcpClientNetns); err != nil {
		return nil, err
	}
	undo = append(undo, func() error { l.netns.Close(); return netdev.DeleteNamespace(dhcpClientNetns) })
	ports := (n + macsOfPort - 1) / macsOfPort
	if err := attachLeases(ctx, cell, ports, n); err != nil {
		return nil, err
	}
	// Client i is at port i modulo the ports, so that those who ask at once do not share one.
	for i := range n {
		link, err := l.netns.LinkByName(leaseIfname(i % ports))
		if err != nil {
			return nil, err
		}
		l.ifindex = append(l.ifindex, link.Index)
	}
	return l, l.prepare()
}

func leaseIfname(port int) string { return fmt.Sprintf("c%d", port) }

// attachLeases makes the ports and gives them their interfaces.
func attachLeases(ctx context.Context, cell *lab.Lab, ports, n int) error {
	api, err := cell.Client()
	if err != nil {
		return err
	}
	state, err := cell.State()
	if err != nil {
		return err
	}
	if _, err := api.Tenants.CreateTenant(ctx, connect.NewRequest(&weftv1.CreateTenantRequest{Name: "bench"})); err != nil {
		return err
	}
	if _, err := api.Networks.CreateNetwork(ctx, connect.NewRequest(&weftv1.CreateNetworkRequest{Tenant: "bench", Name: "leases",
		Spec: &weftv1.NetworkSpec{Subnets: []string{dhcpNet.String()}, Mtu: innerMTU}})); err != nil {
		return err
	}
	agent, err := cell.Agent(state.Hosts[0].Name)
	if err != nil {
		return err
	}
	defer agent.Close()
	return many(ports, func(p int) error {
		spec := &weftv1.PortSpec{Network: "leases"}
		for i := p; i < n; i += ports {
			mac, ip := dhcpClient(i)
			spec.Macs, spec.Ips = append(spec.Macs, mac.String()), append(spec.Ips, ip.String())
		}
		name := fmt.Sprintf("c%d", p)
		if _, err := api.Ports.CreatePort(ctx, connect.NewRequest(&weftv1.CreatePortRequest{Tenant: "bench", Name: name, Spec: spec})); err != nil {
			return err
		}
		_, err := agent.Attach(ctx, connect.NewRequest(&localv1.AttachRequest{Tenant: "bench", Port: name,
			Interface: &localv1.AttachRequest_Netns{Netns: &localv1.NetnsInterface{Netns: netdev.NamespacePath(dhcpClientNetns), Ifname: leaseIfname(p)}}}))
		return err
	})
}

func dnsmasqInstalled() bool {
	_, err := exec.LookPath("dnsmasq")
	return err == nil
}

// newDnsmasq is dnsmasq with the same addresses as reservations, and what makes it fast: no file of leases, no pings, no log.
func newDnsmasq(n int) (_ *leaser, err error) {
	l := &leaser{name: dnsmasqName, server: dnsmasqServer, share: dnsmasqShare}
	var cmd *exec.Cmd
	var host *netdev.Handle
	l.close = func() error {
		var errs []error
		if cmd != nil {
			errs = append(errs, endProcess(cmd))
		}
		for _, h := range []*netdev.Handle{host, l.netns} {
			if h != nil {
				h.Close()
			}
		}
		return errors.Join(append(errs, netdev.DeleteNamespace(dnsmasqNetns), netdev.DeleteNamespace(dnsmasqNetns+"-clients"), os.RemoveAll(dnsmasqDir))...)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("build dnsmasq: %w", err), l.close())
		}
	}()
	if host, err = newDHCPClients(dnsmasqNetns); err != nil {
		return nil, err
	}
	if l.netns, err = newDHCPClients(dnsmasqNetns + "-clients"); err != nil {
		return nil, err
	}
	_, far, err := host.EnsureVeth(netdev.Veth{Name: "srv0", MTU: innerMTU, Addresses: []netip.Prefix{netip.PrefixFrom(dnsmasqServer, 16)}, Peer: netdev.VethPeer{Namespace: l.netns, Name: "c0"}})
	if err != nil {
		return nil, err
	}
	if err := host.SetUp("lo"); err != nil {
		return nil, err
	}
	var hosts strings.Builder
	for i := range n {
		mac, ip := dhcpClient(i)
		fmt.Fprintf(&hosts, "%s,%s\n", mac, ip)
		l.ifindex = append(l.ifindex, far.Index)
	}
	if err := os.MkdirAll(dnsmasqDir, 0o755); err != nil {
		return nil, err
	}
	file := filepath.Join(dnsmasqDir, "hosts")
	if err := os.WriteFile(file, []byte(hosts.String()), 0o644); err != nil {
		return nil, err
	}
	cmd = exec.Command("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--port=0", "--interface=srv0", "--user=root", "--group=root",
		"--dhcp-range="+dhcpNet.Addr().String()+",static,255.255.0.0,1h", "--dhcp-hostsfile="+file, "--leasefile-ro", fmt.Sprintf("--dhcp-lease-max=%d", n+1), "--no-ping",
		"--dhcp-authoritative", "--quiet-dhcp", "--log-facility=/dev/null")
	if err := host.Start(cmd); err != nil {
		return nil, err
	}
	return l, l.prepare()
}

// ready waits until the first client gets its address.
func (l *leaser) ready(ctx context.Context) error {
	var err error
	one := &leaser{name: l.name, server: l.server, netns: l.netns, ifindex: l.ifindex[:1], ask: l.ask[:1]}
	if werr := waitFor(ctx, carryPatience, l.name+" to lease an address", func() bool { _, _, err = one.lease(); return err == nil }); werr != nil {
		return errors.Join(werr, err)
	}
	return nil
}

func leasesMeasure(n int) [2]string {
	name := fmt.Sprintf("%s DHCP leases, %d clients at once", grouped(n), dhcpAtOnce)
	return [2]string{name, name + ", p99 of an answer"}
}

// leases measures how fast clients get their addresses.
func (f *field) leases(ctx context.Context) (_ []Series, err error) {
	n := f.cfg.Leases
	weft, err := newWeftLeaser(ctx, f.cfg.Binary, n)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, weft.close()) }()
	by, names, reference := map[string]*leaser{weftName: weft}, []string{weftName}, weftName
	if dnsmasqInstalled() {
		d, err := newDnsmasq(n)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, d.close()) }()
		by[dnsmasqName], names, reference = d, append(names, dnsmasqName), dnsmasqName
		f.notes = append(f.notes, fmt.Sprintf("dnsmasq writes no file of leases and pings nobody; its clients are behind one interface, weft's behind one for each %d; "+
			"of its clients one of %d leases its address in a round, in turn, of weft's all", macsOfPort, dnsmasqShare))
	} else {
		f.notes = append(f.notes, "dnsmasq was not measured: it is not installed (scripts/deps installs it)")
	}
	for _, l := range by {
		if err := l.ready(ctx); err != nil {
			return nil, err
		}
	}
	measures := leasesMeasure(n)
	all := []Series{{Measure: measures[0], Unit: answersUnit, Higher: true, Reference: reference}, {Measure: measures[1], Unit: "us", Reference: reference}}
	all, err = CompareAll(all, names, f.cfg.Rounds, func(name string) ([]float64, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		rate, took, err := by[name].lease()
		if err != nil {
			return nil, err
		}
		slices.Sort(took)
		return []float64{rate, float64(took[len(took)*99/100]) / float64(time.Microsecond)}, nil
	}, f.sampled(&all[0]))
	for _, name := range names {
		f.notes = append(f.notes, fmt.Sprintf("%s: %d requests for leases had to be repeated", name, by[name].again))
	}
	return all, err
}
