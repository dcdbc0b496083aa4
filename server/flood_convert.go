package server

import (
	"net/netip"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/model"
)

// floodIn leaves the default empty, as a spec is stored as it was written.
func floodIn(f weftv1.FloodMethod) (model.FloodMethod, error) {
	switch f {
	case weftv1.FloodMethod_FLOOD_METHOD_HEAD_END:
		return "", nil
	case weftv1.FloodMethod_FLOOD_METHOD_MULTICAST:
		return model.FloodMulticast, nil
	}
	return "", model.Errorf(model.Invalid, "spec.flood", "use head_end or multicast", "%d is not a known value", f)
}

func floodOut(multicast bool) weftv1.FloodMethod {
	if multicast {
		return weftv1.FloodMethod_FLOOD_METHOD_MULTICAST
	}
	return weftv1.FloodMethod_FLOOD_METHOD_HEAD_END
}

func vtepFloodIn(field string, f weftv1.VTEPFlood) (model.VTEPFlood, error) {
	switch f {
	case weftv1.VTEPFlood_VTEP_FLOOD_COPY:
		return "", nil
	case weftv1.VTEPFlood_VTEP_FLOOD_GROUP:
		return model.VTEPFloodGroup, nil
	}
	return "", model.Errorf(model.Invalid, field, "use copy or group", "%d is not a known value", f)
}

func vtepFloodOut(f model.VTEPFlood) weftv1.VTEPFlood {
	if f == model.VTEPFloodGroup {
		return weftv1.VTEPFlood_VTEP_FLOOD_GROUP
	}
	return weftv1.VTEPFlood_VTEP_FLOOD_COPY
}

func groupOut(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
