package accept_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/internal/testenv"
	"github.com/weftnet/weft/lab"
	"github.com/weftnet/weft/wire"
)

// routed is a network that floods by a group in a lab whose leaves and spines route multicast.
type routed struct {
	*fixture
	group netip.Addr
	// members are the workloads, by the number of their host.
	members map[int]*workload
	hosts   int
	// rounds tells the floods of one count from those of another.
	rounds int
}

// TestRoutedMulticastFlood: floods to a group cross a routed underlay, by IGMP to the leaves and PIM between them and the spines (FRR). Each is one packet
// that leaves its sender, and arrives once at each host with a member and nowhere else: with all agents, with a dead one whose leaf
// even lost its own memory of who is a member, after a member has moved, and after one has left.
//
//	       spine1 (rendezvous point)    spine2
//	      /      |        |       \
//	 leaf1    leaf2    leaf3    leaf4
//	   |        |        |        |
//	  h1       h2       h3       h4
//	pim-1    pim-2    pim-3 ----> moves here
//
// What is counted is sent when the kernels of leaves and spines have the whole tree: see settles.
// Goes red when groupRequest gives its address the scope of the link (the group is the source of the host's IGMP reports, and routers ignore them),
// when an agent leaves no group (h3 gets floods after its member has moved), or when pimd is not told of the rendezvous point.
func TestRoutedMulticastFlood(t *testing.T) {
	t.Parallel() // with the others that wait for joins, in labs of their own
	requireFRR(t)
	f := &routed{fixture: ownLab(t, lab.Config{Name: "pim", Hosts: 4, Multicast: true}), group: netip.MustParseAddr("239.129.8.1"), members: map[int]*workload{}, hosts: 4}
	f.explainTrees(t)
	const tenant = "pim"
	f.tenant(t, tenant)
	f.network(t, tenant, "blue", &weftv1.NetworkSpec{Subnets: []string{"10.1.0.0/24"}, Flood: weftv1.FloodMethod_FLOOD_METHOD_MULTICAST, Group: f.group.String(),
		Neighbours: weftv1.Neighbours_NEIGHBOURS_FLOOD})
	spec := func(i int) lab.WorkloadSpec {
		return lab.WorkloadSpec{Name: fmt.Sprintf("pim-%d", i), Host: fmt.Sprintf("h%d", i), Tenant: tenant, Network: "blue"}
	}
	for _, i := range []int{1, 3} {
		f.members[i] = f.workload(t, spec(i))
	}
	w, err := f.AddWorkload(limited(t), spec(2)) // which leaves before the test ends
	if err != nil {
		t.Fatal(err)
	}
	f.members[2] = &workload{Workload: w, ns: f.node(t, w.Name)}
	f.settles(t, "three hosts are members")
	f.exact(t)
	for _, to := range []int{2, 3} {
		reaches(t, f.members[1].ns, f.members[to].v4()) // ARP requests are floods here
	}

	if err := f.KillAgent(limited(t), "h2"); err != nil {
		t.Fatal(err)
	}
	f.exact(t)
	f.forgets(t, 2)
	f.exact(t)
	f.agentBack(t, "h2")

	f.moves(t, 3, 4)
	f.settles(t, "a member has moved")
	f.exact(t)

	ctx, cancel := context.WithTimeout(context.Background(), inTime)
	defer cancel()
	if err := f.RemoveWorkload(ctx, f.members[2].Name); err != nil {
		t.Fatal(err)
	}
	delete(f.members, 2)
	f.settles(t, "a member has left")
	f.exact(t)
}

// TestRoutedLabLeavesNothing: a lab whose routers run FRR is taken away whole, also after its `weft lab up` was killed, or a router's daemon.
// Goes red when isDaemon finds none (what a killed `weft lab up` has not recorded yet stays), or when daemons are started like any other process (a
// killed one's folder stays in /var/tmp).
func TestRoutedLabLeavesNothing(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.BPF)
	requireFRR(t)
	const name = "pimdown"
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(weft(t), append(args, "--name", name)...)
		cmd.Env = clean()
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("weft %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	atEnd(t, func() error { return lab.Down(context.Background(), lab.Config{Name: name, Binary: weft(t)}) })
	before := buffers(t)
	up := []string{"lab", "up", "--multicast", "--hosts", "2"}
	nothing := func() {
		t.Helper()
		if here := traces(t, name); len(here) == 0 {
			t.Fatal("there was nothing to leave")
		}
		run("lab", "down")
		left := traces(t, name)
		if left = append(left, slices.DeleteFunc(buffers(t), func(b string) bool { return slices.Contains(before, b) })...); len(left) > 0 {
			t.Errorf("left behind: %s", strings.Join(left, ", "))
		}
	}

	cmd := exec.Command(weft(t), append(up, "--name", name)...)
	cmd.Env = clean()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	runTo(t, cmd, "starting the server", syscall.SIGKILL)
	unrecord(t, name)
	nothing()

	run(append(up, "--detach")...)
	if out := run("lab", "status"); strings.Count(out, "2 of 2 PIM neighbours") != 4 {
		t.Errorf("four routers have two neighbours each, but:\n%s", out)
	}
	l, err := lab.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, err := l.State()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range s.Routers[:2] {
		if err := syscall.Kill(r.PIM.PID, syscall.SIGKILL); err != nil {
			t.Error(err)
		}
	}
	nothing()
}

// unrecord has a lab's record be of the moment before its routers' daemons were written down.
func unrecord(t *testing.T, name string) {
	t.Helper()
	path := filepath.Join("/run/weft-lab-"+name, "lab.json")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var s lab.State
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	for i := range s.Routers {
		if !s.Routers[i].PIM.Alive() {
			t.Errorf("pimd of %s is not alive", s.Routers[i].Name)
		}
		s.Routers[i].Zebra, s.Routers[i].PIM = lab.Process{}, lab.Process{}
	}
	if b, err = json.Marshal(s); err == nil {
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// requireFRR is for pimd, which is in no PATH; the package has vtysh, too.
func requireFRR(t *testing.T) {
	t.Helper()
	testenv.RequireTool(t, "vtysh")
}

// buffers are what FRR's daemons keep in the machine's temporary folder.
func buffers(t *testing.T) []string {
	t.Helper()
	list, err := filepath.Glob("/var/tmp/frr/*")
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// forgets has a host's leaf forget who is a member and ask. The host answers from its own address.
func (f *routed) forgets(t *testing.T, host int) {
	t.Helper()
	leaf, vtep := fmt.Sprintf("leaf%d", host), f.vtep(t, host)
	in := startInbox(t, f.node(t, leaf), fmt.Sprintf("to-h%d", host))
	if _, err := f.AskRouter(limited(t), leaf, "pimd", "clear ip igmp interfaces"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the host has told its leaf its groups", func() (bool, string) {
		reports := 0
		for _, frame := range in.frames() {
			ip, _, err := wire.ParseIPv4(frame[min(len(frame), wire.EthernetLen):])
			if err == nil && ip.Protocol == 2 && ip.Src == vtep && bytes.Contains(frame, f.group.AsSlice()) {
				reports++
			}
		}
		return reports > 0, fmt.Sprintf("%d IGMP reports from %s", reports, vtep)
	})
	f.settles(t, "a leaf has asked a host for its groups")
}

// vtep is the address of a host.
func (f *routed) vtep(t *testing.T, host int) netip.Addr {
	t.Helper()
	s, err := f.State()
	if err != nil {
		t.Fatal(err)
	}
	return netip.MustParseAddr(s.Hosts[host-1].VTEPAddress)
}

// moves moves a member to another host while one sends floods a hundred times a second. None may come twice. What comes while the workload hangs at
// neither host, as such a move has it, is lost.
func (f *routed) moves(t *testing.T, from, to int) {
	t.Helper()
	w := f.members[from]
	in := startInbox(t, w.ns, "") // it gets another interface
	stop, done := make(chan struct{}), make(chan struct{})
	out := packetSocket(t, f.members[1].ns, "eth0")
	defer out.Close()
	f.rounds++
	frame := f.flood(t, 1)
	go func() {
		defer close(done)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			case <-tick.C:
				_, _ = out.Write(frame(n)) // what is not sent does not come twice
			}
		}
	}()
	_, err := f.MoveWorkload(limited(t), w.Name, fmt.Sprintf("h%d", to))
	if err != nil {
		t.Fatal(err)
	}
	f.members[to] = &workload{Workload: w.Workload, ns: f.node(t, w.Name)}
	delete(f.members, from)
	before := len(f.floods(in.frames()))
	eventually(t, "floods reach the member where it is now", func() (bool, string) {
		n := len(f.floods(in.frames()))
		return n >= before+20, fmt.Sprintf("%d floods, %d of them after the move", n, n-before)
	})
	close(stop)
	<-done
	for what, times := range f.floods(in.stop()) {
		if times != 1 {
			t.Errorf("%q came %d times while its receiver moved", what, times)
		}
	}
}

const floodText = "weft pim "

// flood makes the frames of floods of a member in this round.
func (f *routed) flood(t testing.TB, sender int) func(n int) []byte {
	t.Helper()
	w, round := f.members[sender], f.rounds
	flow := wire.Flow{SrcMAC: mac(t, w.MACs[0]), DstMAC: wire.BroadcastMAC, Src: w.v4(), Dst: netip.MustParseAddr("10.1.0.255")}
	return func(n int) []byte {
		return flow.UDP(uint16(20000+n), 9, []byte(fmt.Sprintf("%s%02d %02d %05d", floodText, round, sender, n)))
	}
}

// floods are the texts of this round's floods among frames, and how often each is there.
func (f *routed) floods(frames [][]byte) map[string]int {
	found := map[string]int{}
	this := []byte(fmt.Sprintf("%s%02d ", floodText, f.rounds))
	for _, frame := range frames {
		if i := bytes.Index(frame, this); i >= 0 {
			found[string(frame[i:min(len(frame), i+len(floodText)+len("00 00 00000"))])]++
		}
	}
	return found
}

// exact has every member flood a hundred frames, and wants of each: one packet on the uplink of every host with a member, its sender's among them, none
// on any other's, and one frame at every other member.
func (f *routed) exact(t *testing.T) {
	t.Helper()
	const each = 100
	f.rounds++
	inboxes, uplinks := map[int]*capture{}, map[int]*capture{}
	for i := 1; i <= f.hosts; i++ {
		uplinks[i] = startCapture(t, f.node(t, fmt.Sprintf("h%d", i)), "uplink0")
	}
	for i, w := range f.members {
		inboxes[i] = startInbox(t, w.ns, "eth0")
	}
	for i, w := range f.members {
		frame, all := f.flood(t, i), make([][]byte, each)
		for n := range all {
			all[n] = frame(n)
		}
		inject(t, w.ns, "eth0", all...) // by one socket: the kernel takes a while to close each
	}
	eventually(t, "every flood is everywhere", func() (bool, string) {
		ok, now := true, ""
		for i, in := range inboxes {
			n, up := len(f.floods(in.frames())), len(f.floods(uplinks[i].frames()))
			ok, now = ok && n == each*(len(f.members)-1) && up == each*len(f.members), fmt.Sprintf("%s; %d at host %d, %d on its uplink", now, n, i, up)
		}
		return ok, now
	})
	time.Sleep(quiet) // for what ought not to come
	for i := 1; i <= f.hosts; i++ {
		w, member := f.members[i]
		want := 0
		if member {
			want = each * len(f.members)
			f.once(t, fmt.Sprintf("%s on h%d", w.Name, i), inboxes[i].stop(), want-each)
		}
		f.once(t, fmt.Sprintf("the uplink of h%d", i), uplinks[i].stop(), want)
	}
}

// once wants so many floods of this round, each once.
func (f *routed) once(t *testing.T, where string, frames [][]byte, want int) {
	t.Helper()
	got := f.floods(frames)
	more := 0
	for _, times := range got {
		more += times - 1
	}
	if len(got) != want || more != 0 {
		t.Errorf("%s: %d floods, %d more than once, want %d", where, len(got), more, want)
	}
}

// mroute is one of a router's kernel: what came by an interface for a group is sent by others.
type mroute struct {
	// origin is 0.0.0.0 for what any source sends.
	origin, group netip.Addr
	in            string
	out           []string
}

func (m mroute) String() string {
	return fmt.Sprintf("(%s, %s) %s -> %s", m.origin, m.group, m.in, m.out)
}

// settles has every member flood until the kernels of leaves and spines say that its floods go to all the others, without the rendezvous point's
// help (pimreg), and to nobody else.
func (f *routed) settles(t *testing.T, what string) {
	t.Helper()
	f.rounds++
	sent := 0
	eventually(t, what+", and the tree is whole", func() (bool, string) {
		for i, w := range f.members {
			inject(t, w.ns, "eth0", f.flood(t, i)(sent))
		}
		sent++
		spine := f.mroutes(t, "spine1")
		for i := 1; i <= f.hosts; i++ {
			leaf, below := f.mroutes(t, fmt.Sprintf("leaf%d", i)), fmt.Sprintf("to-h%d", i)
			vtep := f.vtep(t, i)
			any, have := find(leaf, netip.IPv4Unspecified(), f.group)
			if _, member := f.members[i]; !member {
				if slices.Contains(any.out, below) {
					return false, fmt.Sprintf("leaf%d sends the group to h%d", i, i)
				}
				continue
			}
			var others []string
			for o := range f.members {
				if o != i {
					others = append(others, fmt.Sprintf("to-leaf%d", o))
				}
			}
			slices.Sort(others)
			own, _ := find(leaf, vtep, f.group)
			down, _ := find(spine, vtep, f.group)
			if !have || any.in != "to-spine1" || !slices.Contains(any.out, below) || own.in != below || !slices.Equal(own.out, []string{"to-spine1"}) ||
				down.in != fmt.Sprintf("to-leaf%d", i) || !slices.Equal(down.out, others) {
				return false, fmt.Sprintf("leaf%d has %v, spine1 %v", i, leaf, spine)
			}
		}
		return true, ""
	})
}

func find(all []mroute, origin, group netip.Addr) (mroute, bool) {
	i := slices.IndexFunc(all, func(m mroute) bool { return m.origin == origin && m.group == group })
	if i < 0 {
		return mroute{}, false
	}
	return all[i], true
}

// mroutes are a router's, by its kernel: of /proc/net/ip_mr_vif and ip_mr_cache.
func (f *routed) mroutes(t *testing.T, router string) (list []mroute) {
	t.Helper()
	interfaces := map[string]string{"-1": "nowhere yet"}
	for _, line := range procNet(t, f.node(t, router), "ip_mr_vif") {
		interfaces[line[0]] = line[1]
	}
	for _, line := range procNet(t, f.node(t, router), "ip_mr_cache") {
		m := mroute{group: hexAddr(t, line[0]), origin: hexAddr(t, line[1]), in: interfaces[line[2]]}
		for _, o := range line[min(len(line), 6):] {
			vif, _, _ := strings.Cut(o, ":")
			m.out = append(m.out, interfaces[vif])
		}
		slices.Sort(m.out)
		list = append(list, m)
	}
	return list
}

// procNet is a table of a namespace's kernel: lines of fields, without the first one, which names them.
func procNet(t *testing.T, ns *netdev.Handle, name string) (lines [][]string) {
	t.Helper()
	var b []byte
	err := ns.Run(func() (err error) {
		b, err = os.ReadFile("/proc/thread-self/net/" + name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		if i > 0 {
			lines = append(lines, strings.Fields(line))
		}
	}
	return lines
}

func hexAddr(t *testing.T, s string) netip.Addr {
	t.Helper()
	n, err := strconv.ParseUint(s, 16, 32)
	if err != nil {
		t.Fatal(err)
	}
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], uint32(n))
	return netip.AddrFrom4(b)
}

// explainTrees shows, when the test has failed, what the routers think.
func (f *routed) explainTrees(t *testing.T) {
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		s, err := f.State()
		if err != nil {
			return
		}
		for _, r := range s.Routers {
			for _, command := range []string{"show ip igmp groups", "show ip pim upstream"} {
				out, err := f.AskRouter(context.Background(), r.Name, "pimd", command)
				t.Logf("%s: %s:\n%s%v", r.Name, command, out, err)
			}
			t.Logf("%s: its kernel: %v", r.Name, f.mroutes(t, r.Name))
		}
	})
}
