package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func backupCommand(a *app) *cobra.Command {
	return a.asking(&cobra.Command{Use: "backup FILE", Short: "write the whole store to a file, or to standard output (-)", Args: names("FILE"),
		Long: "The file holds everything that users asked for, with the hashes of tokens, and is readable to its owner only. What was in FILE before\n" +
			"stays until the backup is whole.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			if args[0] == "-" {
				_, err := c.Backup(cmd.Context(), a.deps.Stdout)
				return err
			}
			var size int64
			err = replaceFile(args[0], func(w io.Writer) (err error) {
				size, err = c.Backup(cmd.Context(), w)
				return err
			})
			var path *fs.PathError
			if errors.As(err, &path) {
				return refusef("file", "choose a directory that you may write to", "%s", err)
			}
			if err != nil {
				return err
			}
			return a.say("backup written to %s: %s", args[0], octets(size))
		}})
}

func restoreCommand(a *app) *cobra.Command {
	var sure bool
	cmd := a.asking(&cobra.Command{Use: "restore FILE", Short: "replace everything in the store by a backup", Args: names("FILE"),
		Long: "Replaces every tenant, network, port and token by those of the backup (a file, or - for standard input), under a new store id. Hosts\n" +
			"are brought to it as they connect. On a terminal it asks first."})
	cmd.Flags().BoolVar(&sure, "yes", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		from := a.deps.Stdin
		if args[0] != "-" {
			f, err := os.Open(args[0])
			if err != nil {
				return refusef("file", "give the name of a file that `weft backup` wrote", "%s", err)
			}
			defer f.Close()
			from = f
		}
		if !sure && args[0] != "-" {
			if err := a.confirm(fmt.Sprintf("Replace everything in the store by %s?", args[0])); err != nil {
				return err
			}
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		res, err := c.Restore(cmd.Context(), from)
		if err != nil {
			return err
		}
		return a.say("%s restored: store %s, revision %d", counted(res.GetObjects(), "object"), res.GetStoreId(), res.GetRevision())
	}
	return cmd
}

// confirm asks on a terminal, and takes a script at its word.
func (a *app) confirm(question string) error {
	f, ok := a.deps.Stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	fmt.Fprintf(a.deps.Stderr, "%s [y/N] ", question)
	answer, err := bufio.NewReader(f).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	if s := strings.ToLower(strings.TrimSpace(answer)); s != "y" && s != "yes" {
		return refusef("", "", "nothing was done")
	}
	return nil
}
