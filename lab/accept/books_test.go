package accept_test

import (
	"encoding/json"
	"fmt"
	"testing"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/lab"
	"github.com/weftnet/weft/wire"
)

// programBooks are a program's books in `weft drops --books`.
type programBooks struct {
	Program                                                                 string
	In, Delivered, Encapsulated, Passed, Dropped, Copies, Answers, Answered uint64 `json:",string"`
}

func (f *fixture) books(t testing.TB, host, program string) programBooks {
	t.Helper()
	var list struct {
		Books []struct{ Books []programBooks }
	}
	out := f.must(t, "drops", "--books", "--host", host, "-o", "json")
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatalf("read what weft drops --books says: %v\n%s", err, out)
	}
	for _, h := range list.Books { // none before the first report
		for _, b := range h.Books {
			if b.Program == program {
				return b
			}
		}
	}
	return programBooks{}
}

// TestBooksShowAnswers: a packet that is too big is dropped, its sender is told, and `weft drops --books` has both, in books that
// balance. Goes red when reportBooks in the agent leaves Answers out, or takes Delivered for In.
func TestBooksShowAnswers(t *testing.T) {
	f := sharedLab(t)
	f.tenant(t, "books")
	f.network(t, "books", "blue", &weftv1.NetworkSpec{Subnets: []string{"10.1.0.0/24"}, Mtu: 1300})
	a := f.workload(t, lab.WorkloadSpec{Name: "books-1", Host: "h1", Tenant: "books", Network: "blue"})
	b := f.workload(t, lab.WorkloadSpec{Name: "books-2", Host: "h2", Tenant: "books", Network: "blue"})
	reaches(t, a.ns, b.v4())
	// The veth takes more than the network, as a workload with interfaces of its own might.
	port := f.must(t, "port", "show", a.Port, "--tenant", "books", "-o", "json")
	var shown struct{ Status struct{ Interface string } }
	if err := json.Unmarshal([]byte(port), &shown); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{f.node(t, "h1").SetMTU(shown.Status.Interface, 1500), a.ns.SetMTU("eth0", 1500)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	before := f.books(t, "h1", "from_port")
	const sent = 5
	flow := wire.Flow{SrcMAC: mac(t, a.MACs[0]), DstMAC: mac(t, b.MACs[0]), Src: a.v4(), Dst: b.v4(), DF: true}
	frame := flow.UDP(20000, 9, make([]byte, 1400))
	for range sent {
		inject(t, a.ns, "eth0", frame)
	}
	eventually(t, "the books of from_port on h1 have five answers more, and balance", func() (bool, string) {
		b := f.books(t, "h1", "from_port")
		return b.Answers-before.Answers == sent && b.Dropped-before.Dropped >= sent && b.In == b.Delivered+b.Encapsulated+b.Passed+b.Answered+b.Dropped,
			fmt.Sprintf("%+v, were %+v", b, before)
	})
	eventually(t, "the port has as many drops for too_big", func() (bool, string) { // a report reads them before the books
		n := f.portDrops(t, "books", a.Port, "too_big")
		return n == sent, fmt.Sprintf("%d, want %d", n, sent)
	})
}
