package server

import (
	"fmt"
	"net/netip"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/wire"
)

// Conversion only reads and writes notation: text to addresses, enums to words. Whether a value is allowed is for model
// to say, once, in the handler.

func metaOut(m model.Meta) *weftv1.Meta {
	return &weftv1.Meta{Uid: string(m.UID), Revision: int64(m.Revision), Created: timeOut(m.Created)}
}

// timeOut leaves out a time that is not known.
func timeOut(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func macsIn(field string, in []string) ([]wire.MAC, error) {
	var out []wire.MAC
	for i, s := range in {
		mac, err := wire.ParseMAC(s)
		if err != nil {
			return nil, model.Errorf(model.Invalid, item(field, i), "write six octets: 02:00:5e:10:00:01", "%v", err)
		}
		out = append(out, mac)
	}
	return out, nil
}

func macsOut(in []wire.MAC) []string {
	var out []string
	for _, m := range in {
		out = append(out, m.String())
	}
	return out
}

func addrIn(field, s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, model.Errorf(model.Invalid, field, "write one address: 10.1.0.5 or fd00:1::5", "%q is not an IP address", s)
	}
	return a, nil
}

func addrsOut(in []netip.Addr) []string {
	var out []string
	for _, a := range in {
		out = append(out, a.String())
	}
	return out
}

func prefixIn(field, s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, model.Errorf(model.Invalid, field, "write a prefix: 10.1.0.0/24 or fd00:1::/64", "%q is not an IP prefix", s)
	}
	return p, nil
}

// item is the name of a list's element: "spec.subnets[1]".
func item(field string, i int) string { return fmt.Sprintf("%s[%d]", field, i) }
