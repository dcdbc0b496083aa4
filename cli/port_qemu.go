package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/structpb"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
	"github.com/weftnet/weft/client"
)

func portQEMU(a *app) *cobra.Command {
	var vhost string
	cmd := &cobra.Command{Use: "qemu NAME", Short: "print the arguments with which QEMU uses the TAP device of an attached port",
		Long: "Asks this host's agent, as root. The machine is told the network's MTU (host_mtu) and given the port's MAC, as many queues as the device\n" +
			"has, and vhost where the kernel has it. A machine that is migrated needs the same arguments on its new host, but for the device's name.",
		Example: "  qemu-system-x86_64 -m 1G disk.qcow2 $(weft port qemu web1)"}
	cmd.Flags().StringVar(&vhost, "vhost", "auto", "packets are moved by the kernel and not by QEMU: `on`, off or auto, where /dev/vhost-net is there")
	_ = cmd.RegisterFlagCompletionFunc("vhost", cobra.FixedCompletions([]string{"auto", "on", "off"}, cobra.ShellCompDirectiveNoFileComp))
	a.onPort(cmd, func(ctx context.Context, agent *client.LocalClient, tenant, port string) error {
		if vhost != "auto" && vhost != "on" && vhost != "off" {
			return usagef("--vhost", "choose auto, on or off", "%q is not one of its values", vhost)
		}
		at, err := attachedTAP(ctx, agent, tenant, port)
		if err != nil {
			return err
		}
		args := qemuArguments(at, vhost == "on" || vhost == "auto" && a.hasVhost())
		list := make([]any, len(args))
		for i, arg := range args {
			list[i] = arg
		}
		out, err := structpb.NewList(list)
		if err != nil {
			return fmt.Errorf("put the arguments together: %w", err)
		}
		return a.print(out, func() error { return a.say("%s", strings.Join(args, " ")) })
	})
	return a.formatted(cmd)
}

func (a *app) hasVhost() bool {
	_, err := os.Stat(filepath.Join(a.deps.DevDir, "vhost-net"))
	return err == nil
}

// attachedTAP is the port's attachment here, which must be a TAP device.
func attachedTAP(ctx context.Context, agent *client.LocalClient, tenant, port string) (*localv1.Attachment, error) {
	res, err := call(ctx, agent.ListAttachments, &localv1.ListAttachmentsRequest{})
	if err != nil {
		return nil, err
	}
	attach := fmt.Sprintf("`weft port attach %s --tenant %s --tap %s --make-tap`", port, tenant, port)
	for _, at := range res.GetAttachments() {
		if at.GetTenant() != tenant || at.GetPort() != port {
			continue
		}
		if at.GetKind() != "tap" {
			return nil, refusef("port", "detach it, and "+attach, "%s/%s is attached by %s, a %s; QEMU needs a TAP device", tenant, port, at.GetInterface(), at.GetKind())
		}
		return at, nil
	}
	return nil, refusef("port", attach+" first", "%s/%s is not attached on this host", tenant, port)
}

// qemuArguments of one network card. QEMU doubles a comma inside a value, and an id is made of letters, digits and -._ alone.
func qemuArguments(at *localv1.Attachment, vhost bool) []string {
	id := "weft-" + strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._", r) {
			return r
		}
		return '_'
	}, at.GetInterface())
	netdev := fmt.Sprintf("tap,id=%s,ifname=%s,script=no,downscript=no", id, strings.ReplaceAll(at.GetInterface(), ",", ",,"))
	card := "virtio-net-pci,netdev=" + id
	if len(at.GetMacs()) > 0 {
		card += ",mac=" + at.GetMacs()[0]
	}
	if q := at.GetQueues(); q > 1 {
		netdev += fmt.Sprintf(",queues=%d", q)
		card += fmt.Sprintf(",mq=on,vectors=%d", 2*q+2) // an interrupt for each direction of a queue, one for control, one for changes
	}
	if vhost {
		netdev += ",vhost=on"
	}
	if mtu := at.GetMtu(); mtu != 0 {
		card += fmt.Sprintf(",host_mtu=%d", mtu)
	}
	return []string{"-netdev", netdev, "-device", card}
}
