package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// contextFile is ~/.config/weft/config.yaml: what is meant when nothing is said.
type contextFile struct {
	Tenant    string   `yaml:"tenant,omitempty"`
	Servers   []string `yaml:"servers,omitempty"`
	TokenFile string   `yaml:"token_file,omitempty"`
	CAFile    string   `yaml:"ca_file,omitempty"`
}

func (a *app) contextPath() string {
	if a.deps.Env.Home == "" {
		return ""
	}
	return filepath.Join(a.deps.Env.Home, ".config", "weft", "config.yaml")
}

// contextFile is empty when there is none.
func (a *app) contextFile() (*contextFile, error) {
	if a.context != nil {
		return a.context, nil
	}
	c := &contextFile{}
	path := a.contextPath()
	if path == "" {
		return c, nil
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("read the context: %w", err)
	}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return &contextFile{}, usagef("context", "mend or remove "+path, "%s: %s", path, contextMistake(err))
	}
	a.context = c
	return c, nil
}

// contextMistake is one line, and names no type of ours.
func contextMistake(err error) string {
	var wrong *yaml.TypeError
	if !errors.As(err, &wrong) {
		return syntax(err)
	}
	return strings.ReplaceAll(strings.Join(wrong.Errors, "; "), "not found in type cli.contextFile", "is not known")
}

func contextCommand(a *app) *cobra.Command {
	var next contextFile
	set := &cobra.Command{
		Use:   "set [--tenant NAME] [--server HOST:PORT] [--token-file FILE] [--ca-file FILE]",
		Short: "remember what to mean when nothing is said; an empty value forgets it",
		Args:  names(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.contextFile()
			if err != nil {
				return err
			}
			f := cmd.Flags()
			if f.NFlag() == 0 {
				return usagef("", "give --tenant, --server, --token-file or --ca-file", "nothing to remember")
			}
			if f.Changed("tenant") {
				c.Tenant = next.Tenant
			}
			if f.Changed("server") {
				c.Servers = next.Servers
			}
			for flag, field := range map[string]*string{"token-file": &c.TokenFile, "ca-file": &c.CAFile} {
				if !f.Changed(flag) {
					continue
				}
				if *field, err = absolute(cmd, flag); err != nil {
					return err
				}
			}
			return a.writeContext(c)
		},
	}
	set.Flags().StringVar(&next.Tenant, "tenant", "", "`NAME` of the tenant")
	set.Flags().StringSliceVar(&next.Servers, "server", nil, "server `HOST[:PORT]`, several to be tried in turn")
	set.Flags().String("token-file", "", "`FILE` with an API token")
	set.Flags().String("ca-file", "", "`FILE` with the deployment's CA")

	show := &cobra.Command{Use: "show", Short: "show what is remembered", Args: names(), RunE: func(*cobra.Command, []string) error {
		c, err := a.contextFile()
		if err != nil {
			return err
		}
		return a.sheet(func(s *sheet) {
			s.row("File", a.contextPath())
			s.row("Tenant", c.Tenant)
			s.row("Servers", orNone(c.Servers))
			s.row("Token file", c.TokenFile)
			s.row("CA file", c.CAFile)
		})
	}}
	clear := &cobra.Command{Use: "clear", Short: "forget everything", Args: names(), RunE: func(*cobra.Command, []string) error {
		if err := os.Remove(a.contextPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("clear the context: %w", err)
		}
		return nil
	}}
	return group("context", "what is meant when nothing is said: tenant, servers, token", set, show, clear)
}

func absolute(cmd *cobra.Command, flag string) (string, error) {
	path, err := cmd.Flags().GetString(flag)
	if err != nil || path == "" {
		return "", err
	}
	return filepath.Abs(path)
}

func (a *app) writeContext(c *contextFile) error {
	path := a.contextPath()
	if path == "" {
		return refusef("context", "set HOME", "there is no home directory to keep it in")
	}
	b, err := yaml.Marshal(c)
	if err != nil {
		return fmt.Errorf("write the context: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write the context: %w", err)
	}
	return replaceFile(path, func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}

// replaceFile writes a file of mode 0600 in one step: what was there stays until the new content is whole.
func replaceFile(path string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
