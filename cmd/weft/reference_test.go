package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/weftnet/weft/cli"
)

var update = flag.Bool("update", false, "write docs/cli.md anew")

const referencePath = "../../docs/cli.md"

// TestReference fails when a command changed and docs/cli.md did not: go test ./cmd/weft -run TestReference -update.
func TestReference(t *testing.T) {
	var b bytes.Buffer
	b.WriteString(`# The client commands

Generated from the commands themselves: ` + "`go test ./cmd/weft -run TestReference -update`" + `. ` + "`weft server`, `weft agent`, `weft up`, `weft lab`, `weft conform` and" + `
` + "`weft bench`" + ` explain themselves with ` + "`--help`" + `.

Whom a command asks: ` + "`--socket` or `--server`" + `, then WEFT_SOCKET, WEFT_SERVER, the context file (` + "`weft context`" + `, in
~/.config/weft/config.yaml), the server on this machine (/run/weft/server.sock, root only), a running lab. A server by address needs an API token:
` + "`--token-file`" + `, WEFT_TOKEN, or the context file. The tenant is ` + "`--tenant`" + `, WEFT_TENANT, or the context's.

Exit status: 0 done, 1 refused or failed, 2 wrong usage or a wrong field, 3 a wait ended before every host had applied or floods went their new way, 4 ports are left on
a host that was to be emptied. Errors go to standard error as ` + "`error: field: reason`" + `, with what to do about it in a second line.

## What ` + "`set`" + ` can change
| object | fields | never |
|---|---|---|
| tenant | description | name |
| network | subnets, mtu, unknown-unicast, dscp, neighbours, bum-limit, learning, flood, group, group-pool, dhcp and what it says, description; its VTEPs by ` + "`weft network vtep`" + ` | name, tenant, VNI, pool |
| port | macs, ips, allowed addresses, unguarded, forwarding, fast-path, bum-limit, description; its host by ` + "`weft port move`" + ` | name, tenant, network |
| vtep | address, udp-port, outer-checksum, description | name |
| pool | first, last, description | name |
| group-pool | first, last, networks-per-group, description | name |
| host | outer-checksum, migrates, when-silent, description; its duty by ` + "`weft host drain`, `fail` and `return`" + ` | name |

A set reads the object, changes what was named and writes it back on the revision it read; when somebody else wrote meanwhile it does so again.
` + "`--revision N`" + ` refuses instead.

`)
	reference(&b, cli.New(cli.Deps{VTEP: vtepCommands()}))
	got := b.Bytes()
	if *update {
		if err := os.WriteFile(referencePath, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(referencePath)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("docs/cli.md is not what the commands say: go test ./cmd/weft -run TestReference -update")
	}
}

func reference(b *bytes.Buffer, cmd *cobra.Command) {
	for _, c := range cmd.Commands() {
		if c.Hidden || c.Name() == "help" || c.Name() == "completion" {
			continue
		}
		if c.HasSubCommands() {
			if !c.Parent().HasParent() {
				fmt.Fprintf(b, "## weft %s\n%s.\n\n", c.Name(), sentence(c.Short))
				flags(b, "Every verb takes:", c.PersistentFlags())
			}
			reference(b, c)
			continue
		}
		heading := "###"
		if !c.Parent().HasParent() {
			heading = "##"
		}
		fmt.Fprintf(b, heading+" %s\n%s.\n\n", strings.TrimSuffix(c.UseLine(), " [flags]"), sentence(c.Short))
		if c.Long != "" {
			fmt.Fprintf(b, "```\n%s\n```\n\n", c.Long)
		}
		flags(b, "", c.LocalNonPersistentFlags())
		if !c.Parent().HasParent() {
			flags(b, "", c.PersistentFlags())
		}
		if c.Example != "" {
			fmt.Fprintf(b, "```\n%s\n```\n\n", c.Example)
		}
	}
}

func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func flags(b *bytes.Buffer, title string, fs interface{ FlagUsages() string }) {
	text := fs.FlagUsages()
	if text == "" {
		return
	}
	if title != "" {
		fmt.Fprintf(b, "%s\n", title)
	}
	fmt.Fprintf(b, "```\n%s```\n\n", text)
}
