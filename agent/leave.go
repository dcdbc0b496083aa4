package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/datapath/netdev"
)

// Leave takes weft off this host: the interfaces that the agent made (workloads lose theirs), programs, tables and the vxlan
// device, the nftables table, what was changed at workloads' interfaces for the XDP lane, and what the agent keeps in its directory. It refuses while an agent runs there. Doing it again
// changes nothing. The server is not asked: `weft host remove` tells it.
func Leave(cfg Config) error {
	cfg = cfg.withDefaults()
	if _, err := os.Stat(cfg.Dir); err == nil {
		unlock, err := takeDir(context.Background(), cfg.Dir)
		if err != nil {
			return err
		}
		defer unlock()
	}
	ns, err := netdev.Current()
	if err != nil {
		return err
	}
	defer ns.Close()
	owned, err := ns.Owned(cfg.Instance)
	if err != nil {
		return fmt.Errorf("list weft's interfaces: %w", err)
	}
	var errs []error
	for _, l := range owned {
		errs = append(errs, ns.DeleteOwned(l.Name, cfg.Instance))
	}
	errs = append(errs, datapath.Remove(cfg.PinRoot), removeWall(&nftables.Conn{}), leaveAll(ns))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	links := &hostLinks{Handle: ns, instance: cfg.Instance, peers: map[string]string{}}
	return errors.Join(unfitLeft(links, cfg.Dir), removeMade(links, cfg.Dir), emptyDir(cfg.Dir)) // what cannot be put back is said, and is the user's
}

// unfitLeft puts back what was changed for the XDP lane at the other ends of interfaces that stay, by the attachments in a directory.
func unfitLeft(links Links, dir string) error {
	atts, err := openAttachments(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, at := range atts.byUID {
		if at.Kind == kindVeth || at.Fitted == nil { // those made by the agent are gone
			continue
		}
		if l, err := links.Link(at.Interface); err != nil || uint32(l.Index) != at.Fitted.Ifindex {
			continue
		}
		if err := unfit(links, at); err != nil {
			errs = append(errs, fmt.Errorf("port %s/%s: the other end of interface %s is not as it was before the XDP lane (%w): %s there",
				at.Tenant, at.Port, at.Interface, err, ethtool(at.Fitted.Was)))
		}
	}
	return errors.Join(errs...)
}

// removeMade removes the TAP devices that the agent made, by the attachments in a directory.
func removeMade(links Links, dir string) error {
	atts, err := openAttachments(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, at := range atts.byUID {
		if at.Made != nil {
			errs = append(errs, links.RemoveTAP(at.Interface))
		}
	}
	return errors.Join(errs...)
}

// nftTables is what removeWall asks of the kernel's nftables.
type nftTables interface {
	ListTables() ([]*nftables.Table, error)
	DelTable(*nftables.Table)
	Flush() error
}

func removeWall(nft nftTables) error {
	tables, err := nft.ListTables()
	if noNFTables(err) {
		return nil // then there is no table of ours
	}
	if err != nil {
		return fmt.Errorf("look for the nftables table %s: %w", wallTable, err)
	}
	for _, t := range tables {
		if t.Name == wallTable && t.Family == nftables.TableFamilyINet {
			nft.DelTable(t)
		}
	}
	if err := nft.Flush(); err != nil {
		return fmt.Errorf("remove the nftables table %s: %w", wallTable, err)
	}
	return nil
}

// noNFTables reports whether a failed request says that the kernel has no nftables: no netfilter sockets at all, or no such
// subsystem behind them (net/netfilter/nfnetlink.c answers EINVAL then).
func noNFTables(err error) bool {
	return errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EINVAL)
}

// emptyDir removes the agent's files, its lock last; the directory itself may be a service manager's.
func emptyDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var errs []error
	for _, e := range entries {
		if e.Name() != lockName {
			errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	if err := errors.Join(append(errs, err)...); err != nil {
		return err
	}
	return os.Remove(filepath.Join(dir, lockName))
}
