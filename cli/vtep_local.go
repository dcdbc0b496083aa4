package cli

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/client"
)

// vtepHere is where `weft vtep run` on this machine listens.
func (a *app) vtepHere() *client.LocalClient {
	if a.flags.agentSocket == "" && a.deps.Env.AgentSocket == "" {
		return client.Local(filepath.Join(a.deps.RunDir, "weft", "vtep.sock"))
	}
	return a.agent()
}

// showHere shows what `weft vtep run` on this machine holds.
func (a *app) showHere(ctx context.Context, brief bool) error {
	c := a.vtepHere()
	defer c.Close()
	res, err := call(ctx, c.ListNetworks, &localv1.ListNetworksRequest{Brief: brief})
	if err != nil {
		return err
	}
	status, err := call(ctx, c.GetStatus, &localv1.GetStatusRequest{})
	if err != nil {
		return err
	}
	if a.flags.output != "table" && a.flags.output != "" {
		return a.print(&localv1.Held{Networks: res.GetNetworks(), Status: status}, nil)
	}
	if err := a.sheet(func(s *sheet) { headOf(s, status) }); err != nil {
		return err
	}
	for _, n := range res.GetNetworks() {
		if err := a.showNetwork(n); err != nil {
			return err
		}
	}
	return a.showDrops(status)
}

func headOf(s *sheet, status *localv1.GetStatusResponse) {
	s.row("VTEP", status.GetHost())
	s.row("Address", status.GetVtepAddress())
	s.row("Uplink", status.GetUplink())
	var wrong []string
	for _, c := range status.GetConditions() {
		wrong = append(wrong, c.GetName()+": "+c.GetMessage())
	}
	s.list("Conditions", wrong)
	var books []*weftv1.ProgramBooks
	for _, b := range status.GetBooks() {
		books = append(books, &weftv1.ProgramBooks{Program: b.GetProgram(), In: b.GetIn(), Delivered: b.GetDelivered(), Encapsulated: b.GetEncapsulated(),
			Passed: b.GetPassed(), Dropped: b.GetDropped(), Copies: b.GetCopies(), Answers: b.GetAnswers(), Answered: b.GetAnswered()})
	}
	s.books(books)
}

// groupLines say of each group whether floods go to it, and by which uplink they come.
func groupLines(groups []*localv1.HeldGroup) (lines []string) {
	for _, g := range groups {
		line := g.GetGroup()
		if g.GetUplink() != "" {
			line += ", joined by " + g.GetUplink()
		} else {
			line += ", not joined"
		}
		if g.GetSends() {
			line += "; floods are sent to it"
		}
		if g.GetMessage() != "" {
			line += ": " + g.GetMessage()
		}
		lines = append(lines, line)
	}
	return lines
}

func (a *app) showNetwork(n *localv1.HeldNetwork) error {
	if err := a.say(""); err != nil {
		return err
	}
	if err := a.sheet(func(s *sheet) {
		s.row("Network", n.GetName())
		s.row("VNI", fmt.Sprint(n.GetVni()))
		s.row("MTU", fmt.Sprint(n.GetMtu()))
		s.row("Unknown unicast", n.GetUnknownUnicast())
		s.row("Remotes", orNone(n.GetRemotes()))
		if len(n.GetGroups()) > 0 {
			s.list("Groups", groupLines(n.GetGroups()))
		}
		s.row("Flooded", fmt.Sprintf("%d floods, %d copies", n.GetFloods(), n.GetCopies()))
	}); err != nil {
		return err
	}
	if len(n.GetPorts()) > 0 {
		t := newTable("PORT", "INTERFACE", "STATE", "SENT", "RECEIVED", "DROPPED")
		for _, p := range n.GetPorts() {
			t.add(p.GetName(), p.GetInterface(), withReason(p.GetState(), p.GetMessage()), packets(p.GetEgressPackets(), p.GetEgressOctets()),
				packets(p.GetIngressPackets(), p.GetIngressOctets()), fmt.Sprint(p.GetDropped()))
		}
		if err := a.table(t); err != nil {
			return err
		}
	}
	return a.showFDB(n)
}

func seconds(nanoseconds int64) string { return time.Duration(nanoseconds).Round(time.Second).String() }

func packets(n, size uint64) string { return fmt.Sprintf("%d (%s)", n, octets(int64(size))) }

func (a *app) showFDB(n *localv1.HeldNetwork) error {
	if len(n.GetFdb()) == 0 {
		return nil
	}
	t := newTable("MAC", "AT", "KIND", "AGE", "LEFT")
	for _, e := range n.GetFdb() {
		at := "port " + e.GetPort()
		if e.GetVtep() != "" {
			at = "VTEP " + e.GetVtep()
		}
		kind, age, left := "static", "-", "-"
		if e.GetLearned() {
			kind, age, left = "learned", seconds(e.GetAgeNanoseconds()), seconds(e.GetLeftNanoseconds())
			if e.GetFrozen() {
				kind += ", frozen"
			}
		}
		t.add(e.GetMac(), at, kind, age, left)
	}
	if err := a.table(t); err != nil || n.GetUnlisted() == 0 {
		return err
	}
	return a.say("and %d more", n.GetUnlisted())
}

// showDrops lists what no port is to blame for.
func (a *app) showDrops(status *localv1.GetStatusResponse) error {
	t := newTable("DROPPED", "FROM", "REASON")
	n := 0
	for _, d := range status.GetDrops() {
		if d.GetPackets() == 0 {
			continue
		}
		n++
		from := d.GetSource()
		if from == "" {
			from = "-"
		}
		t.add(fmt.Sprint(d.GetPackets()), from, strings.ToLower(d.GetReason()))
	}
	if n == 0 {
		return nil
	}
	if err := a.say(""); err != nil {
		return err
	}
	return a.table(t)
}

// noneOr takes no argument, or those named.
func noneOr(want ...string) cobra.PositionalArgs {
	some := names(want...)
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return some(cmd, args)
	}
}
