package agent

import (
	"fmt"
	"testing"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/plan"
)

// BenchmarkChange is the agent's part in moving one port of another host, among 100,000 in 100 networks and 5,000 attached here.
func BenchmarkChange(b *testing.B) {
	w := newWorld(b)
	w.tell("host")
	const hosts, networks, ports = 100, 100, 1000
	for h := range hosts {
		w.put(plan.NewVTEP(1, &planv1.Vtep{Uid: fmt.Sprintf("h%d", h+1), Addresses: [][]byte{{198, 18, byte(h), 1}}, UdpPort: 4789}))
	}
	portIn := func(n, i int, host string, epoch int64) *plan.Resource {
		return plan.NewPort(epoch, &planv1.Port{
			Uid: fmt.Sprintf("p%d-%d", n, i), Network: fmt.Sprintf("n%d", n), Macs: [][]byte{{2, 0, 0, 0, byte(i >> 8), byte(i)}},
			Epoch: epoch, Active: host, Vtep: host, TenantName: "acme", Name: "p",
		})
	}
	for n := range networks {
		m := &planv1.Network{Uid: fmt.Sprintf("n%d", n), Vni: uint32(5000 + n), Mtu: 1450}
		w.put(plan.NewNetwork(1, m))
		for i := range ports {
			host := fmt.Sprintf("h%d", i%(hosts-1)+2)
			if i < 50 {
				host = "h1"
			}
			w.put(portIn(n, i, host, 1))
		}
	}
	for n := range networks {
		for i := range 50 {
			w.tell(fmt.Sprintf("attach p%d-%d if %d", n, i, 1000+n*50+i))
		}
	}
	w.flush()
	w.check()
	b.Run("all", func(b *testing.B) {
		for b.Loop() {
			w.restart(nil)
			w.rec.Flush()
		}
	})
	w.flush()
	epoch := int64(2)
	b.Run("one", func(b *testing.B) {
		for b.Loop() {
			epoch++
			w.put(portIn(int(epoch)%networks, 100, fmt.Sprintf("h%d", epoch%50+2), epoch))
			w.flush()
			w.rec.Errors()
		}
	})
	b.Run("local", func(b *testing.B) {
		for b.Loop() {
			epoch++
			w.put(portIn(3, 7, []string{"h1", "h2"}[epoch%2], epoch))
			w.flush()
			w.rec.Errors()
		}
	})
	w.check()
}
