package agent

import "slices"

// members are the hosts that take part in each network: those that its ports name, in whatever role, so that a host is one from the moment
// that it becomes incoming. The uid of a host is that of its VTEP. A flip changes nothing here: it names the hosts that the plan's word does.
type members struct {
	// in counts the ports that name a host, by network and host; of is who is in what, the other way round.
	in map[string]map[string]int
	of map[string]map[string]bool
}

func newMembers() members {
	return members{in: map[string]map[string]int{}, of: map[string]map[string]bool{}}
}

// hosts are those that a port names, each once, the others empty: where the plan has it, and where a stale resource has it. That moves no
// port, but the plan lists those hosts too.
func (p *port) hosts() (list [6]string) {
	n := 0
	add := func(at place) {
		for _, host := range []string{at.active, at.incoming, at.draining} {
			if host != "" && !slices.Contains(list[:n], host) {
				list[n] = host
				n++
			}
		}
	}
	add(p.planned)
	if p.refused != nil {
		add(*p.refused)
	}
	return list
}

// join counts a port in, where the plan has it. It comes before the leave of what the port was: who stays a member is not touched.
func (v *view) join(p *port, d *dirty) {
	v.countOpen(p, 1, d)
	for _, host := range p.hosts() {
		if host == "" {
			continue
		}
		in := v.members.in[p.network]
		if in == nil {
			in = map[string]int{}
			v.members.in[p.network] = in
		}
		if in[host]++; in[host] == 1 {
			index(v.members.of, host, p.network)
			v.touchMembers(p.network, d)
		}
	}
}

// leave counts it out.
func (v *view) leave(p *port, d *dirty) {
	v.countOpen(p, -1, d)
	for _, host := range p.hosts() {
		if host == "" {
			continue
		}
		in := v.members.in[p.network]
		if in[host]--; in[host] > 0 {
			continue
		}
		if delete(in, host); len(in) == 0 {
			delete(v.members.in, p.network)
		}
		unindex(v.members.of, host, p.network)
		v.touchMembers(p.network, d)
	}
}

// touchMembers marks what follows from who is a member; a network that has not come yet, or is held, is marked when it comes.
func (v *view) touchMembers(network string, d *dirty) {
	if n := v.nets[network]; n != nil {
		v.touchNetwork(n, d)
	}
}
