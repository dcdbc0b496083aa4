package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
)

// carry is what came of reports that went one after the other on a stream.
type carry struct{ sent, restored *planv1.Report }

// next sends a report and checks that the other side has all of it, and still has what it had of the one before.
func (c *carry) next(t interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}, now *planv1.Report) (octets int) {
	t.Helper()
	kept, sent, untouched := proto.Clone(now), proto.Clone(c.sent), proto.Clone(c.restored)
	b, err := proto.Marshal(Shorten(c.sent, now))
	if err != nil {
		t.Fatal(err)
	}
	came := &planv1.Report{}
	if err := proto.Unmarshal(b, came); err != nil {
		t.Fatal(err)
	}
	restored, err := Restore(c.restored, came)
	if err != nil {
		t.Fatal(err)
	}
	if c.sent != nil && !(proto.Equal(c.sent, sent) && proto.Equal(c.restored, untouched)) || !proto.Equal(now, kept) {
		t.Fatal("what was said before is not what it was")
	}
	told := proto.Clone(restored).(*planv1.Report)
	for _, p := range told.Ports { // as the agent said it
		if p.IngressPackets|p.IngressOctets|p.EgressPackets|p.EgressOctets != 0 {
			t.Fatalf("counters stand in two places: %v", restored)
		}
		_, n := PortIn(restored, p.Uid)
		p.IngressPackets, p.IngressOctets, p.EgressPackets, p.EgressOctets = n.IngressPackets, n.IngressOctets, n.EgressPackets, n.EgressOctets
	}
	told.Counts = nil
	if !proto.Equal(told, now) {
		t.Fatalf("restored:\n%v\nsaid:\n%v", told, now)
	}
	c.sent, c.restored = now, restored
	return len(b)
}

// TestShorten: whatever changes in a report, in each of its parts and of a port's, arrives. Break it: leave any field out of Shorten or sameButCounts.
func TestShorten(t *testing.T) {
	own := []protoreflect.Name{"follows", "gone", "counts"}
	whole := func() *planv1.Report {
		r := &planv1.Report{}
		fill(r.ProtoReflect(), own)
		for _, uid := range []string{"a", "b", "c"} {
			p := &planv1.PortReport{}
			fill(p.ProtoReflect(), nil)
			p.Uid = uid
			r.Ports = append(r.Ports, p)
		}
		r.Ports = r.Ports[len(r.Ports)-3:]
		return r
	}
	fields := func(d protoreflect.MessageDescriptor, but ...protoreflect.Name) (list []protoreflect.FieldDescriptor) {
		for i := range d.Fields().Len() {
			if f := d.Fields().Get(i); !slices.Contains(but, f.Name()) {
				list = append(list, f)
			}
		}
		return list
	}
	// without sends reports one after the other, every second of which lacks a field of the message, or a part of one.
	without := func(t *testing.T, of func(*planv1.Report) protoreflect.Message, f protoreflect.FieldDescriptor) {
		var c carry
		c.next(t, whole())
		lack := func(clear func(protoreflect.Message)) {
			less := whole()
			clear(of(less))
			c.next(t, less)
			c.next(t, whole())
		}
		lack(func(m protoreflect.Message) { m.Clear(f) })
		if f.Message() == nil {
			return
		}
		for _, part := range fields(f.Message()) {
			lack(func(m protoreflect.Message) {
				if v := m.Mutable(f); f.IsList() {
					v.List().Get(0).Message().Clear(part)
				} else {
					v.Message().Clear(part)
				}
			})
		}
	}
	for _, f := range fields((&planv1.Report{}).ProtoReflect().Descriptor(), own...) {
		t.Run(string(f.Name()), func(t *testing.T) {
			without(t, func(r *planv1.Report) protoreflect.Message { return r.ProtoReflect() }, f)
		})
	}
	for _, f := range fields((&planv1.PortReport{}).ProtoReflect().Descriptor(), "uid") {
		t.Run("port "+string(f.Name()), func(t *testing.T) {
			without(t, func(r *planv1.Report) protoreflect.Message { return r.Ports[1].ProtoReflect() }, f)
		})
	}
}

// fill sets every field of a message to something that is not its default.
func fill(m protoreflect.Message, but []protoreflect.Name) {
	for i := range m.Descriptor().Fields().Len() {
		f := m.Descriptor().Fields().Get(i)
		if slices.Contains(but, f.Name()) {
			continue
		}
		v := m.NewField(f)
		switch {
		case f.IsList() && f.Message() != nil:
			e := v.List().NewElement()
			fill(e.Message(), nil)
			v.List().Append(e)
		case f.IsList():
			v.List().Append(some(f))
		case f.Message() != nil:
			fill(v.Message(), nil)
		default:
			v = some(f)
		}
		m.Set(f, v)
	}
}

func some(f protoreflect.FieldDescriptor) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(string(f.Name()))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(f.Name()))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(1)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(int64(f.Number()))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(uint64(f.Number()))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(f.Number()))
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(float64(f.Number()))
	}
	panic("nothing to fill " + string(f.FullName()) + " with")
}

// TestShortenAnyPorts: ports that come, go and change, in any order of events, are what the other side has.
func TestShortenAnyPorts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c carry
		for range rapid.IntRange(2, 8).Draw(t, "reports") {
			r := &planv1.Report{}
			for _, uid := range []string{"", "a", "b", "c", "d", "e"} {
				if rapid.Bool().Draw(t, "there "+uid) {
					n := rapid.Uint64().Draw(t, "counted")
					r.Ports = append(r.Ports, &planv1.PortReport{Uid: uid, Epoch: rapid.Int64Range(0, 1).Draw(t, "epoch"),
						IngressPackets: n, IngressOctets: n + 1, EgressPackets: n + 2, EgressOctets: n + 3})
				}
			}
			r.Programs = rapid.SliceOfN(rapid.SampledFrom([]string{"x", "y"}), 0, 2).Draw(t, "programs")
			c.next(t, r)
		}
	})
}

// TestShortenIsShort: a report of ports that only counted is their counters.
func TestShortenIsShort(t *testing.T) {
	report := func(counted uint64) *planv1.Report {
		r := &planv1.Report{Programs: []string{"a line that is long enough"}}
		for i := range 100 {
			r.Ports = append(r.Ports, &planv1.PortReport{Uid: fmt.Sprintf("%032d", i), Interface: "weft0", IngressPackets: counted, EgressOctets: counted})
		}
		return r
	}
	var c carry
	if whole, short := c.next(t, report(1)), c.next(t, report(100)); short > 100*(countsOfPort+1) || short > whole/8 {
		t.Errorf("%d octets follow %d", short, whole)
	}
}

// TestRestoreRefuses: what does not fit what came before is an error, and nothing that an agent may send is more than that. What an agent sends without
// order is put in order.
func TestRestoreRefuses(t *testing.T) {
	two := func() *planv1.Report {
		r, err := Restore(nil, &planv1.Report{Ports: []*planv1.PortReport{{Uid: "b", EgressOctets: 2}, {Uid: "a", EgressOctets: 1}, {Uid: "b", EgressOctets: 3}}})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if p, c := PortIn(two(), "b"); p == nil || c.EgressOctets != 2 || len(two().Ports) != 2 {
		t.Errorf("%v, %+v", p, c)
	}
	if p, _ := PortIn(two(), "c"); p != nil {
		t.Errorf("%v was never said", p)
	}
	if p, _ := PortIn(nil, "c"); p != nil {
		t.Errorf("%v was never said", p)
	}
	for _, c := range []struct {
		name         string
		before, came *planv1.Report
		want         string
	}{
		{"none before", nil, &planv1.Report{Follows: true}, "none on this stream"},
		{"no counters", two(), &planv1.Report{Follows: true}, "0 counters, and its 2 ports need 8"},
		{"too many", two(), &planv1.Report{Follows: true, Counts: make([]uint64, 9)}, "9 counters"},
		{"of too many ports", two(), &planv1.Report{Follows: true, Gone: []string{"a"}, Counts: make([]uint64, 8)}, "its 1 ports"},
		{"too few in a whole one", nil, &planv1.Report{Ports: []*planv1.PortReport{{Uid: "a"}}, Counts: make([]uint64, 3)}, "3 counters"},
	} {
		if r, err := Restore(c.before, c.came); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v", c.name, r, err)
		}
	}
	if r, err := Restore(two(), &planv1.Report{Follows: true, Gone: []string{"x", "a", "a"}, Ports: []*planv1.PortReport{{Uid: "d"}, {Uid: "c"}, {Uid: "c"}}, Counts: make([]uint64, 12)}); err != nil || len(r.Ports) != 3 {
		t.Errorf("%v, %v", r, err)
	}
}

// BenchmarkReport is both sides' work for one report of 100 ports, whole and by what changed.
func BenchmarkReport(b *testing.B) {
	report := &planv1.Report{}
	for i := range 100 {
		n := uint64(i) << 24
		report.Ports = append(report.Ports, &planv1.PortReport{Uid: fmt.Sprintf("%032d", i), Epoch: 1 << 20, State: planv1.PortState_PORT_STATE_ACTIVE,
			Interface: fmt.Sprint("weft", i), IngressPackets: n, IngressOctets: n, EgressPackets: n, EgressOctets: n})
	}
	before, err := Restore(nil, proto.Clone(report).(*planv1.Report))
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name string
		said *planv1.Report
	}{{"whole", nil}, {"follows", report}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				octets, err := proto.Marshal(Shorten(c.said, report))
				if err != nil {
					b.Fatal(err)
				}
				came := &planv1.Report{}
				if err := proto.Unmarshal(octets, came); err != nil {
					b.Fatal(err)
				}
				if _, err := Restore(before, came); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
