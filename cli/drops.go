package cli

import (
	"github.com/spf13/cobra"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
)

func dropsCommand(a *app) *cobra.Command {
	req := &weftv1.ListDropsRequest{}
	var books bool
	cmd := &cobra.Command{Use: "drops", Short: "dropped packets by host, port and reason", Args: names(),
		Long: "As last reported by each host; docs/drops.md explains every reason.\n\n" +
			"A row with a port counts what was dropped of its packets; one without a port what belonged to none. A row with a SOURCE, the outer source\n" +
			"address, counts again what the row of that reason without one counts for the whole host: who sent it. Reasons that begin with copy_ count\n" +
			"copies of floods.\n\n" +
			"--books shows what each program of a host did with its packets: IN is the sum of DELIVERED, ENCAPSULATED, PASSED (to another lane, or not\n" +
			"weft's) and DROPPED. COPIES (of floods) and ANSWERS (ICMP messages to senders of packets that were too big) stand apart.",
		Example: "  weft drops --host h1\n  weft drops --tenant acme --port web1\n  weft drops --books"}
	cmd.Flags().BoolVar(&books, "books", false, "what the hosts' programs did with their packets")
	cmd.Flags().StringVar(&req.Host, "host", "", "only of this host, `NAME`")
	cmd.Flags().StringVar(&req.Port, "port", "", "only of this port of the tenant, `NAME`")
	_ = cmd.RegisterFlagCompletionFunc("host", a.completeFlag(a.hostNames))
	_ = cmd.RegisterFlagCompletionFunc("port", a.completeFlag(a.portNames))
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		switch {
		case books && (req.Port != "" || a.flags.tenant != ""):
			return usagef("--books", "leave out --port and --tenant", "programs serve all ports of a host")
		case books: // those of whole hosts, whatever the default tenant is
		case req.Port != "":
			req.Tenant, err = a.tenant()
		default:
			req.Tenant, err = a.tenantOrNone()
		}
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		res, err := call(cmd.Context(), c.System.ListDrops, req)
		if err != nil {
			return err
		}
		return a.print(res, func() error {
			if books {
				return a.booksTable(res.GetBooks())
			}
			t := newTable("HOST", "TENANT", "PORT", "REASON", "PACKETS", "SOURCE")
			for _, d := range res.GetDrops() {
				t.add(d.GetHost(), d.GetTenant(), d.GetPort(), d.GetReason(), d.GetPackets(), d.GetSource())
			}
			return a.table(t)
		})
	}
	return a.formatted(a.everyTenant(a.owned(a.asking(cmd))))
}

func (a *app) booksTable(hosts []*weftv1.HostBooks) error {
	t := newTable("HOST", "PROGRAM", "IN", "DELIVERED", "ENCAPSULATED", "PASSED", "ANSWERED", "DROPPED", "COPIES", "ANSWERS")
	for _, h := range hosts {
		for _, b := range h.GetBooks() {
			t.add(h.GetHost(), b.GetProgram(), b.GetIn(), b.GetDelivered(), b.GetEncapsulated(), b.GetPassed(), b.GetAnswered(), b.GetDropped(), b.GetCopies(), b.GetAnswers())
		}
	}
	return a.table(t)
}
