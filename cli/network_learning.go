package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
)

// learningFlags are those of create and set.
type learningFlags struct {
	cmd                  *cobra.Command
	on                   bool
	ageing               time.Duration
	vtepLimit, portLimit uint32
	sources              []string
}

var learningNames = []string{"learning", "learning-ageing", "learning-vtep-limit", "learning-port-limit", "learning-source"}

func newLearningFlags(cmd *cobra.Command) *learningFlags {
	l := &learningFlags{cmd: cmd}
	f := cmd.Flags()
	f.BoolVar(&l.on, "learning", false, "learn MACs that the plan does not know from frames, for a network shared with VTEPs that weft does not run")
	f.DurationVar(&l.ageing, "learning-ageing", 300*time.Second, "forget a learned MAC so long after its last frame, `DURATION`")
	f.Uint32Var(&l.vtepLimit, "learning-vtep-limit", 8192, "learn that many MACs behind one VTEP, `NUMBER`")
	f.Uint32Var(&l.portLimit, "learning-port-limit", 1024, "learn that many MACs behind one port, `NUMBER`")
	f.StringSliceVar(&l.sources, "learning-source", nil, "underlay `PREFIX` from which unlisted VTEPs may take part, any number of times")
	return l
}

// apply changes a spec as the flags say, and leaves what none of them names.
func (l *learningFlags) apply(spec *weftv1.NetworkSpec) error {
	f := l.cmd.Flags()
	named := false
	for _, name := range learningNames {
		named = named || f.Changed(name)
	}
	switch {
	case !named:
		return nil
	case f.Changed("learning") && !l.on:
		for _, name := range learningNames[1:] {
			if f.Changed(name) {
				return usagef("--"+name, "leave it out, or leave out --learning=false", "a network that does not learn has no such setting")
			}
		}
		spec.Learning = nil
		return nil
	case spec.Learning == nil && !l.on:
		return usagef("--learning", "add --learning", "the network does not learn")
	case spec.Learning == nil:
		spec.Learning = &weftv1.Learning{}
	}
	if f.Changed("learning-ageing") {
		spec.Learning.Ageing = durationpb.New(l.ageing)
	}
	if f.Changed("learning-vtep-limit") {
		spec.Learning.VtepLimit = l.vtepLimit
	}
	if f.Changed("learning-port-limit") {
		spec.Learning.PortLimit = l.portLimit
	}
	if f.Changed("learning-source") {
		spec.Learning.Sources = nil
		for _, s := range l.sources {
			if s != "" {
				spec.Learning.Sources = append(spec.Learning.Sources, s)
			}
		}
	}
	return nil
}

func (s *sheet) learning(l *weftv1.Learning, learned []*weftv1.HostLearned) {
	if l == nil {
		return
	}
	ageing := 300 * time.Second
	if l.GetAgeing() != nil {
		ageing = l.GetAgeing().AsDuration()
	}
	orDefault := func(n, def uint32) uint32 {
		if n == 0 {
			return def
		}
		return n
	}
	s.row("Learning", fmt.Sprintf("MACs age after %s; %d behind a VTEP, %d behind a port", ageing, orDefault(l.GetVtepLimit(), 8192), orDefault(l.GetPortLimit(), 1024)))
	if len(l.GetSources()) > 0 {
		s.list("Unlisted VTEPs from", l.GetSources())
	}
	var lines []string
	for _, h := range learned {
		text := fmt.Sprintf("%s: %d MACs", h.GetHost(), h.GetMacs())
		if h.GetFrozen() > 0 {
			text += fmt.Sprintf(", %d frozen", h.GetFrozen())
		}
		if h.GetRefused() > 0 {
			text += fmt.Sprintf(", %d frames beyond a limit", h.GetRefused())
		}
		if len(h.GetUnlisted()) > 0 {
			text += ", unlisted VTEPs " + strings.Join(h.GetUnlisted(), " ")
		}
		lines = append(lines, text)
	}
	if len(lines) > 0 {
		s.list("Learned", lines)
	}
}

func networkLearned(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "learned NAME", Short: "list the MACs that this host has learned in a network", Args: names("NAME"),
		Long:              "Asks this host's agent, as root. Every host learns by its own; how many each has learned: `weft network show`.",
		ValidArgsFunction: a.complete(a.networkNames)}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		tenant, err := a.tenant()
		if err != nil {
			return err
		}
		agent := a.agent()
		defer agent.Close()
		res, err := call(cmd.Context(), agent.ListLearned, &localv1.ListLearnedRequest{Tenant: tenant, Network: args[0]})
		if err != nil {
			return err
		}
		return a.print(res, func() error { return a.learnedTable(res) })
	}
	return a.formatted(a.onHost(cmd))
}

func (a *app) learnedTable(res *localv1.ListLearnedResponse) error {
	t := newTable("MAC", "AT", "AGE", "LEFT", "MOVES", "STATE")
	for _, m := range res.GetMacs() {
		at, state := "VTEP "+m.GetVtep(), ""
		if m.GetPort() != "" {
			at = "port " + m.GetPort()
		}
		if m.GetFrozen() {
			state = "frozen"
		}
		t.add(m.GetMac(), at, seconds(m.GetAgeNanoseconds()), seconds(m.GetLeftNanoseconds()),
			m.GetMoves(), state)
	}
	if err := a.table(t); err != nil {
		return err
	}
	if more := int(res.GetTotal()) - len(res.GetMacs()); more > 0 {
		return a.say("and %d more", more)
	}
	return nil
}

func networkForget(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "forget NAME [MAC...]", Short: "forget MACs that this host has learned in a network, frozen ones too; all of them if none is named",
		Long:              "Asks this host's agent, as root. What is still sent from is learned again with its next frame.",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.complete(a.networkNames)}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		tenant, err := a.tenant()
		if err != nil {
			return err
		}
		agent := a.agent()
		defer agent.Close()
		res, err := call(cmd.Context(), agent.ForgetLearned, &localv1.ForgetLearnedRequest{Tenant: tenant, Network: args[0], Macs: args[1:]})
		if err != nil {
			return err
		}
		return a.say("%d learned MACs of network %s/%s forgotten", res.GetForgotten(), tenant, args[0])
	}
	return a.onHost(cmd)
}
