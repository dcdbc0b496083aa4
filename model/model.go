package model

import (
	"net/netip"
	"time"

	"github.com/weftnet/weft/wire"
)

// UID identifies one life of an object. Server-made, never reused, 26 characters of lower-case base32 (128 bits).
type UID string

// Revision is a store revision: of the transaction that last wrote a spec. 0 is none.
type Revision int64

// Epoch is the store revision of the transaction that last changed a binding. 0 is none; it only grows, across deletes too.
type Epoch int64

// Meta is what the server adds to every object.
type Meta struct {
	UID     UID       `json:"uid"`
	Created time.Time `json:"created"`
	// Revision is not stored with the object: the store fills it in from the transaction that wrote it.
	Revision Revision `json:"-"`
}

// Tenant owns networks and ports.
type Tenant struct {
	Meta
	Name string     `json:"name"`
	Spec TenantSpec `json:"spec"`
}

// TenantSpec is what a user says of a tenant.
type TenantSpec struct {
	Description string `json:"description,omitempty"`
}

// DSCP says what becomes of the DSCP field across the tunnel (RFC 2983).
type DSCP string

// The two models; the empty one is DSCPPipe.
const (
	// DSCPPipe: 0 outside, and the inner field is left alone.
	DSCPPipe DSCP = "pipe"
	// DSCPUniform: the inner field outside, and the outer one is written back at the far end.
	DSCPUniform DSCP = "uniform"
)

// UnknownUnicast says where a frame to a MAC that is not in the FDB goes.
type UnknownUnicast string

// The three answers; the empty one is UnknownUnicastExternal.
const (
	UnknownUnicastExternal UnknownUnicast = "external"
	UnknownUnicastFlood    UnknownUnicast = "flood"
	UnknownUnicastDrop     UnknownUnicast = "drop"
)

// Neighbours says what becomes of ARP requests and neighbour solicitations.
type Neighbours string

// The two settings; the empty one is NeighboursAnswer.
const (
	NeighboursAnswer Neighbours = "answer"
	NeighboursFlood  Neighbours = "flood"
)

// Network is one L2 segment of a tenant.
type Network struct {
	Meta
	Tenant string       `json:"tenant"`
	Name   string       `json:"name"`
	Spec   NetworkSpec  `json:"spec"`
	Alloc  NetworkAlloc `json:"alloc"`
}

// NetworkSpec is what a user says of a network.
type NetworkSpec struct {
	// VNI 0 is allocated from VNIPool, whose empty name is DefaultPool.
	VNI     wire.VNI       `json:"vni,omitempty"`
	VNIPool string         `json:"vni_pool,omitempty"`
	Subnets []netip.Prefix `json:"subnets,omitempty"`
	// MTU in octets of an inner IP packet; 0 is whatever fits.
	MTU            int            `json:"mtu,omitempty"`
	UnknownUnicast UnknownUnicast `json:"unknown_unicast,omitempty"`
	DSCP           DSCP           `json:"dscp,omitempty"`
	Neighbours     Neighbours     `json:"neighbours,omitempty"`
	// BUMLimit: see EffectiveBUMLimit.
	BUMLimit uint32        `json:"bum_limit,omitempty"`
	VTEPs    []NetworkVTEP `json:"vteps,omitempty"`
	Flood    FloodMethod   `json:"flood,omitempty"`
	// Group is a multicast address of the underlay, GroupPool where it is taken from instead.
	Group       netip.Addr `json:"group,omitzero"`
	GroupPool   string     `json:"group_pool,omitempty"`
	Description string     `json:"description,omitempty"`
	// DHCP nil is the default: see EffectiveDHCP.
	DHCP *DHCP `json:"dhcp,omitempty"`
	// Learning is nil where none is.
	Learning *Learning `json:"learning,omitempty"`
}

// NetworkVTEP is an external VTEP's part in a network.
type NetworkVTEP struct {
	VTEP  string     `json:"vtep"`
	MACs  []wire.MAC `json:"macs,omitempty"`
	Flood VTEPFlood  `json:"flood,omitempty"`
}

// NetworkAlloc is what the server allocated for a network.
type NetworkAlloc struct {
	VNI   wire.VNI   `json:"vni"`
	Flood FloodAlloc `json:"flood,omitzero"`
}

// Port is a workload's attachment to a network: an identity. Where it is stands in its Binding.
type Port struct {
	Meta
	Tenant string    `json:"tenant"`
	Name   string    `json:"name"`
	Spec   PortSpec  `json:"spec"`
	Alloc  PortAlloc `json:"alloc"`
}

// FastPath says by which lane a port's frames go where they can.
type FastPath string

// The two lanes to choose from; the empty one is FastPathNone.
const (
	FastPathNone FastPath = "none"
	FastPathXDP  FastPath = "xdp"
)

// PortSpec is what a user says of a port.
type PortSpec struct {
	Network string       `json:"network"`
	MACs    []wire.MAC   `json:"macs,omitempty"`
	IPs     []netip.Addr `json:"ips,omitempty"`
	// Unguarded lets the port send from any source MAC.
	Unguarded bool `json:"unguarded,omitempty"`
	// Forwarding says that the workload forwards traffic on, so that aggregates reach it through the kernel lane.
	Forwarding bool     `json:"forwarding,omitempty"`
	FastPath   FastPath `json:"fast_path,omitempty"`
	// BUMLimit: see EffectiveBUMLimit.
	BUMLimit            uint32        `json:"bum_limit,omitempty"`
	AllowedAddressPairs []AddressPair `json:"allowed_address_pairs,omitempty"`
	Description         string        `json:"description,omitempty"`
	// DHCPServer and Router let the workload answer as one.
	DHCPServer bool `json:"dhcp_server,omitempty"`
	Router     bool `json:"router,omitempty"`
	// Hostname is what DHCP says; empty is the port's name.
	Hostname string `json:"hostname,omitempty"`
}

// AddressPair is a further source that a port may use.
type AddressPair struct {
	MAC wire.MAC   `json:"mac"`
	IP  netip.Addr `json:"ip,omitzero"`
}

// PortAlloc holds the effective addresses: those given, or else those allocated.
type PortAlloc struct {
	NetworkUID UID        `json:"network_uid"`
	MACs       []wire.MAC `json:"macs"`
	// IPs carry the length of their subnet.
	IPs []netip.Prefix `json:"ips"`
}

// Binding is a port's location: uids of hosts, or empty.
type Binding struct {
	Port UID `json:"port"`
	// Network of the port, so that a binding can be understood without it.
	Network UID `json:"network"`
	// Epoch is filled in by the store.
	Epoch    Epoch `json:"-"`
	Active   UID   `json:"active,omitempty"`
	Incoming UID   `json:"incoming,omitempty"`
	Draining UID   `json:"draining,omitempty"`
}

// Host is a Linux machine that runs the weft agent.
type Host struct {
	Meta
	Name string   `json:"name"`
	Spec HostSpec `json:"spec"`
	// Duty is changed by commands of its own, never with the spec.
	Duty HostDuty `json:"duty,omitempty"`
	// DutyMessage says why it is not DutyActive.
	DutyMessage string `json:"duty_message,omitempty"`
}

// HostDuty says whether a host is given ports.
type HostDuty string

// The duties.
const (
	DutyActive HostDuty = ""
	// DutyDrained: its ports stay until they are moved, and it gets no more.
	DutyDrained HostDuty = "drained"
	// DutyFailed: declared dead. It has no ports, and gets none.
	DutyFailed HostDuty = "failed"
)

// WhenSilent is what is done about a host that nobody hears of.
type WhenSilent string

// The answers; the empty one shows it.
const (
	WhenSilentShow WhenSilent = ""
	// WhenSilentFail: it is declared dead.
	WhenSilentFail WhenSilent = "fail"
)

// HostSpec is what a user says of a host.
type HostSpec struct {
	Description string `json:"description,omitempty"`
	// OuterChecksum: peers send the host's VTEP a correct outer UDP checksum instead of zero.
	OuterChecksum bool `json:"outer_checksum,omitempty"`
	// Migrates: its agent may take over ports from other hosts that may too.
	Migrates bool `json:"migrates,omitempty"`
	// WhenSilent is about a host whose VTEP answers nobody and whose agent has no stream.
	WhenSilent WhenSilent `json:"when_silent,omitempty"`
}

// HostFacts is what a host's agent says of it and other hosts' plans depend on.
type HostFacts struct {
	Host          UID          `json:"host"`
	VTEPAddresses []netip.Addr `json:"vtep_addresses"`
	UDPPort       uint16       `json:"udp_port"`
	UplinkMTU     int          `json:"uplink_mtu"`
	Uplink        string       `json:"uplink"`
	Kernel        string       `json:"kernel"`
	Version       string       `json:"version"`
	Features      []string     `json:"features,omitempty"`
}

// VTEP is an external tunnel end point.
type VTEP struct {
	Meta
	Name string   `json:"name"`
	Spec VTEPSpec `json:"spec"`
}

// VTEPSpec is what a user says of an external VTEP.
type VTEPSpec struct {
	Address netip.Addr `json:"address"`
	// UDPPort 0 is wire.VXLANPort.
	UDPPort       uint16 `json:"udp_port,omitempty"`
	OuterChecksum bool   `json:"outer_checksum,omitempty"`
	Description   string `json:"description,omitempty"`
}

// DefaultPool is the VNI pool that exists from the first start.
const DefaultPool = "default"

// VNIPool is a range of VNIs to allocate from.
type VNIPool struct {
	Meta
	Name string      `json:"name"`
	Spec VNIPoolSpec `json:"spec"`
}

// VNIPoolSpec is the range, both ends included.
type VNIPoolSpec struct {
	First       wire.VNI `json:"first"`
	Last        wire.VNI `json:"last"`
	Description string   `json:"description,omitempty"`
}

// VNIUse is who has a VNI. A quarantined one is free again when Holders is empty.
type VNIUse struct {
	VNI     wire.VNI `json:"vni"`
	Network UID      `json:"network"`
	// Quarantined since Freed: the network is gone, and Holders have not acknowledged that revision.
	Quarantined bool     `json:"quarantined,omitempty"`
	Freed       Revision `json:"-"`
	Holders     []UID    `json:"holders,omitempty"`
}

// Tombstone remembers a deleted port, network, VTEP or host for as long as a host may still hold it.
type Tombstone struct {
	Kind string `json:"kind"`
	UID  UID    `json:"uid"`
	// Network of a deleted port.
	Network UID       `json:"network,omitempty"`
	Name    string    `json:"name"`
	Deleted time.Time `json:"deleted"`
	// Revision of the deletion, filled in by the store.
	Revision Revision `json:"-"`
}

// JoinToken lets one host of one name join, once, until it expires. Only the secret's hash is kept.
type JoinToken struct {
	ID      string    `json:"id"`
	Host    string    `json:"host"`
	Hash    []byte    `json:"hash"`
	Expires time.Time `json:"expires"`
	// Used is the uid of the host that joined with it. A retry with the same CSR (CSRHash) is answered again.
	Used    UID    `json:"used,omitempty"`
	CSRHash []byte `json:"csr_hash,omitempty"`
}

// TokenScope is what an API token may do.
type TokenScope string

// The scopes.
const (
	ScopeAdmin    TokenScope = "admin"
	ScopeTenant   TokenScope = "tenant"
	ScopeReadOnly TokenScope = "read-only"
)

// APIToken is a credential of an API client. Only the secret's hash is kept.
type APIToken struct {
	Name    string     `json:"name"`
	ID      string     `json:"id"`
	Scope   TokenScope `json:"scope"`
	Tenant  string     `json:"tenant,omitempty"`
	Hash    []byte     `json:"hash"`
	Created time.Time  `json:"created"`
	Expires time.Time  `json:"expires,omitzero"`
}
