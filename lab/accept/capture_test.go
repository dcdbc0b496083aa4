package accept_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/internal/testenv"
)

// capture takes every frame that crosses an interface, in both directions.
type capture struct {
	raw  *os.File
	done chan struct{}
	mu   sync.Mutex
	list [][]byte
}

func hostToNetwork(v uint16) uint16 { return v<<8 | v>>8 }

// packetSocket sends and receives whole frames on an interface; without a name it receives from all, those that are yet to come among them.
func packetSocket(t testing.TB, ns *netdev.Handle, iface string) *os.File {
	t.Helper()
	index := 0
	if iface != "" {
		l, err := ns.LinkByName(iface)
		if err != nil {
			t.Fatal(err)
		}
		index = l.Index
	}
	all := hostToNetwork(unix.ETH_P_ALL)
	fd := -1
	err := ns.Run(func() (err error) {
		// Without a protocol it receives nothing until it is bound, and so nothing from other interfaces.
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		return err
	})
	if err == nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20) // more is only safer
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index})
	}
	if err != nil {
		t.Fatalf("open a packet socket on %s in %s: %v", iface, ns, err)
	}
	return os.NewFile(uintptr(fd), "packet socket")
}

// startCapture begins at once; it ends with stop, or with the test.
func startCapture(t testing.TB, ns *netdev.Handle, iface string) *capture {
	t.Helper()
	return captureFrom(t, packetSocket(t, ns, iface))
}

// startInbox is startCapture of what arrives, without what leaves: an ICMP error quotes what it is about.
func startInbox(t testing.TB, ns *netdev.Handle, iface string) *capture {
	t.Helper()
	s := packetSocket(t, ns, iface)
	raw, err := s.SyscallConn()
	if err == nil {
		cerr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1) })
		err = errors.Join(err, cerr)
	}
	if err != nil {
		t.Fatal(err)
	}
	return captureFrom(t, s)
}

func captureFrom(t testing.TB, s *os.File) *capture {
	c := &capture{raw: s, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		buf := make([]byte, 1<<17)
		for {
			n, err := c.raw.Read(buf)
			if err != nil {
				return
			}
			c.mu.Lock()
			c.list = append(c.list, bytes.Clone(buf[:n]))
			c.mu.Unlock()
		}
	}()
	t.Cleanup(func() { c.stop() })
	return c
}

// stop ends it and gives what was taken; again is no harm.
func (c *capture) stop() [][]byte {
	c.raw.Close()
	<-c.done
	return c.frames()
}

func (c *capture) frames() [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([][]byte(nil), c.list...)
}

// count is how many frames hold the octets.
func (c *capture) count(octets []byte) (n int) {
	for _, f := range c.frames() {
		if bytes.Contains(f, octets) {
			n++
		}
	}
	return n
}

// inject sends a frame as it is out of an interface.
func inject(t testing.TB, ns *netdev.Handle, iface string, frames ...[]byte) {
	t.Helper()
	s := packetSocket(t, ns, iface)
	defer s.Close()
	for _, f := range frames {
		if _, err := s.Write(f); err != nil {
			t.Fatalf("send a frame of %d octets on %s in %s: %v", len(f), iface, ns, err)
		}
	}
}

// writePcap writes frames as a capture file of Ethernet.
func writePcap(t testing.TB, frames [][]byte) string {
	t.Helper()
	var b bytes.Buffer
	le := binary.LittleEndian
	b.Write(le.AppendUint32(nil, 0xa1b2c3d4))
	b.Write([]byte{2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	b.Write(le.AppendUint32(le.AppendUint32(nil, 1<<18), 1))
	for i, f := range frames {
		h := le.AppendUint32(nil, uint32(time.Now().Unix()))
		h = le.AppendUint32(h, uint32(i%1e6))
		h = le.AppendUint32(le.AppendUint32(h, uint32(len(f))), uint32(len(f)))
		b.Write(append(h, f...))
	}
	path := filepath.Join(t.TempDir(), "underlay.pcap")
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// row is what tshark says about one frame: of each field all occurrences, outermost first.
type row map[string][]string

// at is an occurrence of a field, -1 the innermost; empty if there is none.
func (r row) at(field string, i int) string {
	list := r[field]
	if i < 0 {
		i += len(list)
	}
	if i < 0 || i >= len(list) {
		return ""
	}
	return list[i]
}

// decode has tshark read frames: one row a frame, in their order. UDP ports 4789 and 8472 are VXLAN, and every checksum is verified.
func decode(t testing.TB, frames [][]byte, fields ...string) []row {
	t.Helper()
	args := []string{"-r", writePcap(t, frames), "-n", "-d", "udp.port==4789,vxlan", "-d", "udp.port==8472,vxlan", "-o", "ip.check_checksum:TRUE",
		"-o", "udp.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE", "-T", "fields", "-E", "occurrence=a", "-E", "aggregator=|"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	cmd := exec.Command(testenv.RequireTool(t, "tshark"), args...)
	r := finish(t, cmd, (*exec.Cmd).Start)
	if r.status != 0 {
		t.Fatalf("tshark: status %d: %s", r.status, r.err)
	}
	var rows []row
	for _, line := range strings.Split(strings.TrimSuffix(r.out, "\n"), "\n") {
		row := row{}
		for i, v := range strings.Split(line, "\t") {
			if v != "" {
				row[fields[i]] = strings.Split(v, "|")
			}
		}
		rows = append(rows, row)
	}
	if len(rows) != len(frames) {
		t.Fatalf("tshark read %d of %d frames", len(rows), len(frames))
	}
	return rows
}
