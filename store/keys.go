package store

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/wire"
)

// keys are where things are. Under the prefix:
//
//	meta                              store id, base, format, restoring
//	head                              empty; every write puts it, so that its revision is that of the last one
//	ca                                the fingerprint of the deployment's CA
//	server/<id>                       a server that lives, under its lease; no part of a backup
//	v1/tenant/<tenant>                model.Tenant
//	v1/network/<tenant>/<network>     model.Network
//	v1/port/<tenant>/<port>           model.Port
//	v1/binding/<port uid>             model.Binding
//	v1/move/<port uid>                model.Move: the port's last one
//	v1/counters/<port uid>            model.Counters
//	v1/host/<host>                    model.Host
//	v1/facts/<host uid>               model.HostFacts
//	v1/vtep/<vtep>                    model.VTEP
//	v1/pool/<pool>                    model.VNIPool
//	v1/grouppool/<pool>               model.GroupPool
//	v1/vni/<vni>                      vniRecord: in use, or in quarantine
//	v1/tombstone/<uid>                model.Tombstone
//	v1/apitoken/<token>               model.APIToken
//	v1/jointoken/<id>                 model.JoinToken
//	v1/holder/<network uid>/<host uid>      the host was told of the network at some time
//	v1/quarantine/<vni>                     marks the VNIs that are in quarantine, so that looking for them is cheap
//	v1/audit/<time>-<random>                AuditRecord
//	v1/idx/mac/<network uid>/<mac>          ref of the port
//	v1/idx/ip/<network uid>/<ip>            ref of the port
//	v1/idx/network/<network uid>            ref
//	v1/idx/port/<port uid>                  ref
//	v1/idx/host/<host uid>                  ref
//	v1/idx/apitoken/<id>                    ref
//	v1/idx/in/<network uid>/<port uid>      ports of a network
//	v1/idx/on/<host uid>/<port uid>         ports that a host holds, in whatever role
//	v1/idx/with/<vtep>/<network uid>        networks that name a VTEP
//	v1/idx/from/<pool>/<network uid>        networks whose VNI came from a pool
//	v1/idx/group/<group>/<network uid>      networks that have a group of the underlay
//	v1/idx/groupfrom/<pool>/<network uid>   networks whose group comes from a group pool
//
// An index that stands for "X is used by Y" makes a refusal free of races: an empty range compares as created at revision
// 0, so one comparison in the deleting transaction says that nobody uses X.
type keys struct{ prefix string }

func (k keys) meta() string { return k.prefix + "/meta" }
func (k keys) head() string { return k.prefix + "/head" }
func (k keys) ca() string   { return k.prefix + "/ca" }
func (k keys) root() string { return k.prefix + "/v1/" }

// servers is the prefix of the servers that live.
func (k keys) servers() string { return k.prefix + "/server/" }

func (k keys) at(parts ...string) string { return k.prefix + "/v1/" + strings.Join(parts, "/") }

// in is the prefix of everything below a folder.
func (k keys) in(parts ...string) string { return k.at(parts...) + "/" }

func (k keys) tenant(name string) string          { return k.at("tenant", name) }
func (k keys) network(tenant, name string) string { return k.at("network", tenant, name) }
func (k keys) port(tenant, name string) string    { return k.at("port", tenant, name) }
func (k keys) binding(port model.UID) string      { return k.at("binding", string(port)) }
func (k keys) move(port model.UID) string         { return k.at("move", string(port)) }
func (k keys) counters(port model.UID) string     { return k.at("counters", string(port)) }
func (k keys) host(name string) string            { return k.at("host", name) }
func (k keys) facts(host model.UID) string        { return k.at("facts", string(host)) }
func (k keys) vtep(name string) string            { return k.at("vtep", name) }
func (k keys) pool(name string) string            { return k.at("pool", name) }
func (k keys) groupPool(name string) string       { return k.at("grouppool", name) }
func (k keys) vni(v wire.VNI) string              { return k.at("vni", fmt.Sprintf("%08d", v)) }
func (k keys) quarantine(v wire.VNI) string       { return k.at("quarantine", fmt.Sprintf("%08d", v)) }
func (k keys) tombstone(uid model.UID) string     { return k.at("tombstone", string(uid)) }
func (k keys) apiToken(name string) string        { return k.at("apitoken", name) }
func (k keys) joinToken(id string) string         { return k.at("jointoken", id) }

func (k keys) holder(network, host model.UID) string {
	return k.at("holder", string(network), string(host))
}

func (k keys) audit(now time.Time, random string) string {
	return k.at("audit", fmt.Sprintf("%020d-%s", now.UnixNano(), random))
}

func (k keys) idxMAC(network model.UID, m wire.MAC) string {
	return k.at("idx/mac", string(network), m.String())
}

func (k keys) idxIP(network model.UID, a netip.Addr) string {
	return k.at("idx/ip", string(network), a.Unmap().String())
}

func (k keys) idxUID(kind string, uid model.UID) string { return k.at("idx", kind, string(uid)) }
func (k keys) idxIn(network, port model.UID) string {
	return k.at("idx/in", string(network), string(port))
}
func (k keys) idxOn(host, port model.UID) string { return k.at("idx/on", string(host), string(port)) }
func (k keys) idxWith(vtep string, network model.UID) string {
	return k.at("idx/with", vtep, string(network))
}
func (k keys) idxFrom(pool string, network model.UID) string {
	return k.at("idx/from", pool, string(network))
}

func (k keys) idxGroup(group netip.Addr, network model.UID) string {
	return k.at("idx/group", group.String(), string(network))
}
func (k keys) idxGroupFrom(pool string, network model.UID) string {
	return k.at("idx/groupfrom", pool, string(network))
}

// last is what stands behind the last slash of a key.
func last(key []byte) string {
	s := string(key)
	return s[strings.LastIndexByte(s, '/')+1:]
}

// ref is the value of an index: who it is.
type ref struct {
	UID     model.UID `json:"uid"`
	Tenant  string    `json:"tenant,omitempty"`
	Name    string    `json:"name"`
	Network model.UID `json:"network,omitempty"`
	// Duty of a host.
	Duty model.HostDuty `json:"duty,omitempty"`
}

func (r ref) String() string {
	if r.Tenant == "" {
		return r.Name
	}
	return r.Tenant + "/" + r.Name
}

// vniRecord is a model.VNIUse as it is kept. Freed is written when the record is rewritten during the quarantine; until
// then the record's own revision says it.
type vniRecord struct {
	model.VNIUse
	Freed model.Revision `json:"freed,omitempty"`
}

// encode is the JSON of a value; the types of model always have one.
func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("store: encode %T: %v", v, err))
	}
	return string(b)
}
