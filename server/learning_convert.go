package server

import (
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/model"
)

func learningIn(l *weftv1.Learning) (*model.Learning, error) {
	if l == nil {
		return nil, nil
	}
	out := &model.Learning{Ageing: l.GetAgeing().AsDuration(), VTEPLimit: limitIn(l.GetVtepLimit()), PortLimit: limitIn(l.GetPortLimit())}
	if a := l.GetAgeing(); a != nil && (a.CheckValid() != nil || out.Ageing == 0) {
		out.Ageing = -time.Second // absent is the default, and nothing is not a time
	}
	for i, s := range l.GetSources() {
		p, bad := model.ParseSource(item("spec.learning.sources", i), s)
		if bad != nil {
			return nil, bad
		}
		out.Sources = append(out.Sources, p)
	}
	return out, nil
}

// limitIn keeps what is too much for an int of 32 bits too much.
func limitIn(n uint32) int { return int(min(n, model.MaxLearned+1)) }

func learningOut(l *model.Learning) *weftv1.Learning {
	if l == nil {
		return nil
	}
	out := &weftv1.Learning{VtepLimit: uint32(l.VTEPLimit), PortLimit: uint32(l.PortLimit)}
	if l.Ageing != 0 {
		out.Ageing = durationpb.New(l.Ageing)
	}
	for _, p := range l.Sources {
		out.Sources = append(out.Sources, p.String())
	}
	return out
}

// learnedOn adds what a host says of learning in a network.
func learnedOn(out *weftv1.NetworkStatus, network model.UID, host string, said heard) {
	for _, l := range said.said.GetLearned() {
		if model.UID(l.GetNetwork()) != network {
			continue
		}
		out.Learned = append(out.Learned, &weftv1.HostLearned{Host: host, Macs: l.GetMacs(), Frozen: l.GetFrozen(), Refused: l.GetRefused(), Unlisted: l.GetUnlisted()})
		for _, c := range l.GetConditions() {
			out.Conditions = append(out.Conditions, &weftv1.Condition{Name: c.GetName() + " on " + host, Message: c.GetMessage()})
		}
	}
	slices.SortFunc(out.Learned, func(a, b *weftv1.HostLearned) int { return strings.Compare(a.Host, b.Host) })
}
