package oracle

// Packet is what a hook sees.
type Packet struct {
	// Data from the Ethernet header on.
	Data []byte
	// Tagged: the kernel has moved a VLAN tag into the packet's metadata.
	Tagged bool
	// SegmentSize of an aggregate (GSO); 0 if it is a single packet.
	SegmentSize int
}

// Verdict is what becomes of a packet as a whole.
type Verdict uint8

// The verdicts, as the books have them.
const (
	// Passed to the kernel as it came, or, with a Lane, marked for the kernel lane.
	Passed Verdict = iota
	Dropped
	Delivered
	Encapsulated
	// Flooded: to every receiver that the lists name. In the books it is delivered or encapsulated.
	Flooded
	// Handed to the agent. In the books it is passed.
	Handed
	// Answered: turned into the answer, which goes back to the port.
	Answered
)

func (v Verdict) String() string {
	return [...]string{"passed", "dropped", "delivered", "encapsulated", "flooded", "handed", "answered"}[v]
}

// Result is what must become of a packet.
type Result struct {
	Verdict Verdict
	// Reason of a drop, as docs/drops.md has it.
	Reason string
	// Lane is why the packet is left to the kernel lane: docs/drops.md; empty if it is not. A flood's copies say it each.
	Lane string
	// Data is what a Passed packet has become.
	Data []byte
	// Key and Inner are what comes out at FromVXLAN, if the kernel takes a Passed packet with a Lane.
	Key   Key
	Inner []byte
	// Deliveries and Tunnels are every copy that goes somewhere.
	Deliveries []Delivery
	Tunnels    []Tunnel
	// CopyDrops are the reasons for which copies went nowhere.
	CopyDrops []string
}

// Delivery is a frame for a local interface.
type Delivery struct {
	Ifindex uint32
	Frame   []byte
}

// Tunnel is a packet for a VTEP.
type Tunnel struct {
	VTEP uint32
	// Kernel: the kernel lane writes the outer headers. Packet is then the same but for what its vxlan device chooses: source
	// port, flow label and identification.
	Kernel bool
	// Checksum: the outer UDP checksum is computed; Packet has none.
	Checksum bool
	// Packet from the outer Ethernet header on.
	Packet []byte
}

func drop(reason string) Result { return Result{Verdict: Dropped, Reason: reason} }
