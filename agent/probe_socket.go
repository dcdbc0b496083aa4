package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/wire"
)

// packetSocket is a probeSocket: AF_PACKET with the virtio header, which says how a frame is to be cut and checksummed.
type packetSocket struct {
	file *os.File
	buf  []byte
}

const (
	// The virtio_net_hdr that goes before every frame, 10 octets in host order.
	vnetHeader    = 10
	vnetNeedsCsum = 1
	vnetGSOTCPv4  = 1
	tcpChecksumAt = 16
)

// openProbeSocket opens one on an interface of the namespace that the caller's thread is in.
func openProbeSocket(index int) (*packetSocket, error) {
	// Protocol 0 receives nothing before the bind says which interface.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	for _, option := range []int{unix.PACKET_VNET_HDR, unix.PACKET_IGNORE_OUTGOING} {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, option, 1); err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("set packet option %d: %w", option, err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: index}); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &packetSocket{file: os.NewFile(uintptr(fd), "oam probes"), buf: make([]byte, 1<<17)}, nil
}

func htons(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

func (s *packetSocket) Close() error { return s.file.Close() }

func (s *packetSocket) Receive() ([]byte, error) {
	for {
		n, err := s.file.Read(s.buf)
		if err != nil {
			// The interface going down is no end: it comes back, or the agent stops.
			if errors.Is(err, unix.ENETDOWN) {
				continue
			}
			return nil, err
		}
		if n > vnetHeader {
			return s.buf[vnetHeader:n], nil
		}
	}
}

func (s *packetSocket) Send(frame []byte, segment int) error {
	b := make([]byte, vnetHeader, vnetHeader+len(frame))
	if segment > 0 {
		const headers = 14 + 20 + 20
		b[0], b[1] = vnetNeedsCsum, vnetGSOTCPv4
		binary.NativeEndian.PutUint16(b[2:], headers)
		binary.NativeEndian.PutUint16(b[4:], uint16(segment))
		binary.NativeEndian.PutUint16(b[6:], 14+20)
		binary.NativeEndian.PutUint16(b[8:], tcpChecksumAt)
	}
	b = append(b, frame...)
	if segment > 0 {
		partial(b[vnetHeader:])
	}
	_, err := s.file.Write(b)
	return err
}

// partial puts the sum of the pseudo header alone where the TCP checksum belongs, as CHECKSUM_PARTIAL wants it.
func partial(frame []byte) {
	ip, tcp := frame[14:34], frame[34:]
	pseudo := append([]byte{}, ip[12:20]...)
	pseudo = append(pseudo, 0, unix.IPPROTO_TCP)
	pseudo = binary.BigEndian.AppendUint16(pseudo, uint16(len(tcp)))
	binary.BigEndian.PutUint16(tcp[tcpChecksumAt:], ^wire.Checksum(pseudo))
}
