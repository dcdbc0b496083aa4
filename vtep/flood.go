package vtep

import (
	"fmt"
	"net/netip"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/weftnet/weft/model"
)

// group is the multicast group of a network's floods (RFC 7348, section 4.2).
func (r *reader) group(n *yaml.Node, field string) netip.Addr {
	s := r.text(n, field)
	if n.Kind != yaml.ScalarNode {
		return netip.Addr{}
	}
	a, e := model.ParseGroup(field, s)
	if e == nil && a.IsValid() {
		e = model.ValidateGroup(field, a)
	}
	r.add(n, e)
	return a
}

// learning are the settings of a network that learns; `learning: {}` takes the defaults.
func (r *reader) learning(n *yaml.Node, field string) *model.Learning {
	l := &model.Learning{}
	r.keys(n, field, []string{"ageing", "vtep_limit", "port_limit", "sources"}, func(key, field string, n *yaml.Node) {
		switch key {
		case "ageing":
			l.Ageing = r.duration(n, field)
		case "vtep_limit":
			l.VTEPLimit = int(r.number(n, field, 1, model.MaxLearned, "choose one in that range, or leave it out for the default"))
		case "port_limit":
			l.PortLimit = int(r.number(n, field, 1, model.MaxLearned, "choose one in that range, or leave it out for the default"))
		case "sources":
			r.list(n, field, model.MaxSources, func(field string, n *yaml.Node) {
				if s := r.text(n, field); n.Kind == yaml.ScalarNode {
					p, e := model.ParseSource(field, s)
					r.add(n, e)
					if e == nil {
						l.Sources = append(l.Sources, p)
					}
				}
			})
		}
	})
	for _, e := range model.Errors(l.Validate(field)) {
		r.add(n, e)
	}
	return l
}

func (r *reader) duration(n *yaml.Node, field string) time.Duration {
	s := r.text(n, field)
	d, err := time.ParseDuration(s)
	if err != nil && n.Kind == yaml.ScalarNode {
		r.refuse(n, field, "write it as 300s or 5m", "%q is no time", s)
	}
	return d
}

// reach refuses a network whose floods nobody could answer, and a remote that is to receive a group which there is not.
func (r *reader) reach(n *yaml.Node, field string, net Network) {
	if net.Group.IsValid() && len(net.Remotes) == 0 && (net.Learning == nil || len(net.Learning.Sources) == 0) {
		r.refuse(n, field+".group", "list remotes, or say `learning: {sources: [PREFIX]}` with the underlay prefixes that its VTEPs are in",
			"nobody could send into it: no remote is listed, and no source is named")
	}
	for i, rem := range net.Remotes {
		switch where := fmt.Sprintf("%s.remotes[%d].flood", field, i); {
		case !rem.Group:
		case !net.Group.IsValid():
			r.refuse(n, where, "leave it out, or give the network a group", "the network has no group")
		case rem.Address.IsValid() && rem.Address.Is4() != net.Group.Is4():
			r.refuse(n, where, "write copy, or leave it out: it gets a copy of each flood; then `weft vtep check`",
				"remote %s cannot receive the group %s, which is of the other IP version", rem.Address, net.Group)
		}
	}
}
