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

// Conversion only reads and writes notation: text to addresses (by model's parsers), enums to words. Whether an object is
// allowed is for model's Validate to say, once, in the handler.

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
		mac, bad := model.ParseMAC(item(field, i), s)
		if bad != nil {
			return nil, bad
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

func addrsOut(in []netip.Addr) []string {
	var out []string
	for _, a := range in {
		out = append(out, a.String())
	}
	return out
}

// item is the name of a list's element: "spec.subnets[1]".
func item(field string, i int) string { return fmt.Sprintf("%s[%d]", field, i) }
