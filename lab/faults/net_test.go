package faults

import (
	"fmt"
	"os/exec"
	"strings"
)

// The net: a bridge in the hub, where the tests run as 10.77.0.1, and a namespace for each member and server.
//
//	hub: wfbr 10.77.0.1 --+-- e0 10.77.0.10   e1 .11   e2 .12     members
//	                      +-- s0 10.77.0.20   s1 .21   s2 .22     servers

// nodes are all places, and their addresses.
var nodes = map[string]string{
	"e0": "10.77.0.10", "e1": "10.77.0.11", "e2": "10.77.0.12",
	"s0": "10.77.0.20", "s1": "10.77.0.21", "s2": "10.77.0.22",
}

// rules drop what comes from the addresses in a set: what "cut" means. Both ends of a pair drop, so nothing passes in either direction.
const rules = `table inet cut {
	set from { type ipv4_addr; }
	chain in { type filter hook input priority 0; ip saddr @from drop; }
}`

func makeNet(prefix string) error {
	script := []string{
		"ip netns add " + prefix + "-hub",
		"ip -n " + prefix + "-hub link set lo up",
		"ip -n " + prefix + "-hub link add wfbr type bridge forward_delay 0",
		"ip -n " + prefix + "-hub addr add 10.77.0.1/24 dev wfbr",
		"ip -n " + prefix + "-hub link set wfbr up",
	}
	for name, address := range nodes {
		ns := prefix + "-" + name
		script = append(script,
			"ip netns add "+ns,
			"ip -n "+ns+" link set lo up",
			"ip -n "+ns+" link add eth0 type veth peer name "+name+" netns "+prefix+"-hub",
			"ip -n "+prefix+"-hub link set "+name+" master wfbr up",
			"ip -n "+ns+" addr add "+address+"/24 dev eth0",
			"ip -n "+ns+" link set eth0 up",
		)
	}
	for _, line := range script {
		if out, err := exec.Command("sh", "-c", line).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", line, err, out)
		}
	}
	for name := range nodes {
		cmd := exec.Command("ip", "netns", "exec", prefix+"-"+name, "nft", "-f", "-")
		cmd.Stdin = strings.NewReader(rules)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("nft: %w: %s", err, out)
		}
	}
	return nil
}

func takeNetDown(prefix string) {
	for _, name := range []string{"hub", "e0", "e1", "e2", "s0", "s1", "s2"} {
		_ = exec.Command("ip", "netns", "del", prefix+"-"+name).Run() // some may not be there
	}
}

// cut cuts two groups of nodes off from each other, and returns how to join them again.
func (c *cluster) cut(some, others []string) (join func()) {
	set := func(verb string) {
		for _, pair := range [][2][]string{{some, others}, {others, some}} {
			for _, at := range pair[0] {
				var from []string
				for _, n := range pair[1] {
					if n != at {
						from = append(from, nodes[n])
					}
				}
				out, err := exec.Command("ip", "netns", "exec", c.prefix+"-"+at, "nft", verb, "element", "inet", "cut", "from",
					"{"+strings.Join(from, ",")+"}").CombinedOutput()
				if err != nil {
					c.t.Errorf("nft %s at %s: %v: %s", verb, at, err, out)
				}
			}
		}
	}
	set("add")
	return func() { set("delete") }
}
