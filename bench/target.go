package bench

import "fmt"

// target is what weft has promised itself: a ratio to a reference or, without one, a rate.
type target struct {
	what, measure        string
	contender, reference string
	want, stretch        float64
	// unit of a rate.
	unit string
}

// Verdict is how a run compares with a target. Ratio, or the rate where a rate is wanted, is 0 if it was not measured in this run.
type Verdict struct {
	What    string  `json:"what"`
	Against string  `json:"against"`
	Want    float64 `json:"want"`
	Stretch float64 `json:"stretch,omitempty"`
	// Unit of what is wanted and found; "x" is a ratio.
	Unit      string  `json:"unit"`
	Ratio     float64 `json:"ratio,omitempty"`
	RatioLow  float64 `json:"ratio_low,omitempty"`
	RatioHigh float64 `json:"ratio_high,omitempty"`
	Measured  bool    `json:"measured"`
	Reached   bool    `json:"reached"`
}

func targets() []target {
	large, small := 1_000_000, 10
	taught, known := 100_000, 1_000
	copies := replicateMeasure + " to 256 VTEPs"
	return []target{
		{"64 B forwarding, tc lane", smallPackets, weftName, tunedName, 2.0, 2.2, ""},
		{"64 B forwarding, tc lane", smallPackets, weftName, ovsName, 5, 0, ""},
		{"64 B forwarding, XDP lane", smallPackets, xdpName, tunedName, 2.8, 3.3, ""},
		{"64 B forwarding, XDP lane", smallPackets, xdpName, ovsName, 8, 0, ""},
		{"TCP bulk, offloads on, veth ports", streamWhole, weftName, tunedName, 1.12, 0, ""},
		{"TCP bulk, offloads on, veth ports", streamWhole, weftName, vethName, 0.93, 0, ""},
		{"TCP bulk, underlay as a wire, veth ports", streamWire, weftName, tunedName, 1.05, 0, ""},
		{"TCP bulk, offloads on, TAP", tapStreamWhole, weftName, tunedName, 1.05, 0, ""},
		{"TCP bulk, underlay as a wire, TAP", tapStreamWire, weftName, tunedName, 1.05, 0, ""},
		{"packets, TAP", tapPackets, weftName, tunedName, 1.3, 0, ""},
		{"request and response, one core, p50", latencyOne + ", p50", weftName, tunedName, 1.3, 0, ""},
		{"1,000,000 FDB entries, 10 active", fdbMeasure(fewDestinations), tableName(weftName, large), tableName(weftName, small), 0.9, 0, ""},
		{"1,000,000 FDB entries, 100,000 active", fdbMeasure(manyDestinations), tableName(weftName, large), tableName(tunedName, large), 1.5, 0, ""},
		{"head-end replication to 256 VTEPs", copies, weftName, tunedName, 2.2, 0, ""},
		{"plan of 1,000,000 entries, received to read back", planMeasure(large), weftName, "", 300_000, 0, planUnit},
		{"ARP answered for 1,000 addresses", questionsMeasure(askARP, known), weftName, tunedName, 2, 0, ""},
		{"neighbour solicitations answered for 1,000 addresses", questionsMeasure(askND, known), weftName, tunedName, 1.5, 0, ""},
		{"100,000 MACs learned from a VTEP", learnMeasure(fromTunnel, taught), weftName, "", 300_000, 0, learnUnit},
		{"100,000 MACs learned at a port", learnMeasure(fromPort, taught), weftName, "", 300_000, 0, learnUnit},
		{"known traffic while 100,000 MACs are learned from a VTEP", knownMeasure(fromTunnel, taught), weftName, "", 100, 0, knownUnit},
		{"known traffic while 100,000 MACs are learned at a port", knownMeasure(fromPort, taught), weftName, "", 100, 0, knownUnit},
		{"others in the network of a storm", stormMeasure(0), stormy(weftName), weftName, 0.99, 0, ""},
		{"others in another network than a storm's", stormMeasure(1), stormy(weftName), weftName, 0.99, 0, ""},
	}
}

// xdpName is weft with its XDP lane on both hosts.
const xdpName = "weft, XDP lane"

// judge fills in the verdicts.
func (r *Result) judge() {
	r.Verdicts = nil
	for _, t := range targets() {
		v := Verdict{What: t.what, Against: t.reference, Want: t.want, Stretch: t.stretch, Unit: "x"}
		if t.reference == "" {
			v.Unit = t.unit
		}
		for _, s := range r.Series {
			switch {
			case s.Measure != t.measure:
			case t.reference != "":
				v.Ratio, v.RatioLow, v.RatioHigh, v.Measured = s.Ratio(t.contender, t.reference)
			default:
				v.Ratio, v.RatioLow, v.RatioHigh, v.Measured = s.level(t.contender)
			}
		}
		v.Reached = v.Measured && v.Ratio >= v.Want
		r.Verdicts = append(r.Verdicts, v)
	}
}

// answer is the verdict in words. Sure means that the whole interval is on one side.
func (v Verdict) answer() string {
	switch {
	case !v.Measured:
		return "not measured"
	case v.Reached && v.Stretch > 0 && v.Ratio >= v.Stretch:
		return fmt.Sprintf("yes, and the stretch target of %g", v.Stretch)
	case v.Reached && v.RatioLow < v.Want:
		return "yes, but the interval reaches below"
	case v.Reached:
		return "yes"
	case v.RatioHigh >= v.Want:
		return "no, but the interval reaches above"
	default:
		return "no"
	}
}

// wanted and found are the numbers in words.
func (v Verdict) wanted() string {
	if v.Unit == "x" {
		return fmt.Sprintf(">= %g x", v.Want)
	}
	return fmt.Sprintf(">= %s %s", plainly(v.Want), v.Unit)
}

// plainly writes a rate: what is small with its fraction.
func plainly(v float64) string {
	if v < 1000 {
		return fmt.Sprintf("%.6g", v)
	}
	return grouped(int(v))
}

func (v Verdict) found() string {
	switch {
	case !v.Measured:
		return ""
	case v.Unit == "x":
		return fmt.Sprintf("%.2f (%.2f - %.2f)", v.Ratio, v.RatioLow, v.RatioHigh)
	}
	return fmt.Sprintf("%s (%s - %s)", plainly(v.Ratio), plainly(v.RatioLow), plainly(v.RatioHigh))
}
