package distribute

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/plan"
)

// BenchmarkPublish publishes one port of a network that 10 of so many connected hosts hold, until those 10 were sent it.
// The rest costs a signal each, and an empty update every AdvanceEvery.
func BenchmarkPublish(b *testing.B) {
	for _, hosts := range []int{10, 100, 1000} {
		b.Run(fmt.Sprintf("hosts=%d", hosts), func(b *testing.B) {
			d := New(Config{})
			all := []*plan.Resource{plan.NewNetwork(1, &planv1.Network{Uid: "n", Vni: 1})}
			for i := range hosts {
				h := &planv1.Host{Uid: fmt.Sprint("h", i)}
				if i < 10 {
					h.Networks = []string{"n"}
				}
				all = append(all, plan.NewHost(1, h))
			}
			d.Reset("s", 1, all)
			ctx, cancel := context.WithCancel(b.Context())
			var wg sync.WaitGroup
			var got atomic.Int64
			told := make(chan struct{}, 1)
			var started sync.WaitGroup
			for i := range hosts {
				started.Add(1)
				first := true
				wg.Go(func() {
					_ = d.Serve(ctx, fmt.Sprint("h", i), &planv1.Hello{}, func(m *planv1.ServerMessage) error {
						if first {
							first = false
							started.Done()
						}
						for _, r := range m.GetUpdate().GetUpserts() {
							if r.GetKind() == planv1.Kind_KIND_PORT && got.Add(1)%10 == 0 {
								told <- struct{}{}
							}
						}
						return nil
					})
				})
			}
			started.Wait()
			for i := int64(2); b.Loop(); i++ {
				r := plan.NewPort(i, &planv1.Port{Uid: "p", Network: "n", Epoch: i})
				if err := d.Publish("s", i, []*plan.Resource{r}, nil); err != nil {
					b.Fatal(err)
				}
				<-told
			}
			cancel()
			wg.Wait()
		})
	}
}
