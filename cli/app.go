package cli

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"github.com/weftnet/weft/client"
)

// app is one run of the program: what came from outside, the flags that many commands share, and its connections.
type app struct {
	deps  Deps
	flags struct {
		servers     []string
		socket      string
		tokenFile   string
		caFile      string
		tenant      string
		allTenants  bool
		agentSocket string
		output      string
		wait        bool
		waitTimeout time.Duration
	}
	patience time.Duration
	conn     *client.Client
	context  *contextFile
}

func (a *app) close() {
	if a.conn != nil {
		a.conn.Close()
	}
}

// asking gives a command (and its verbs) the flags that say whom to ask.
func (a *app) asking(cmd *cobra.Command) *cobra.Command {
	f := cmd.PersistentFlags()
	f.StringSliceVar(&a.flags.servers, "server", nil, "server `HOST[:PORT]`, several to be tried in turn (WEFT_SERVER)")
	f.StringVar(&a.flags.socket, "socket", "", "the server's own socket, `PATH` (WEFT_SOCKET)")
	f.StringVar(&a.flags.tokenFile, "token-file", "", "`FILE` with an API token (or the token itself in WEFT_TOKEN)")
	f.StringVar(&a.flags.caFile, "ca-file", "", "`FILE` with the deployment's CA, instead of the token's pin")
	return cmd
}

// owned gives a command the flag that names the tenant.
func (a *app) owned(cmd *cobra.Command) *cobra.Command {
	cmd.PersistentFlags().StringVar(&a.flags.tenant, "tenant", "", "`NAME` of the tenant (WEFT_TENANT)")
	_ = cmd.RegisterFlagCompletionFunc("tenant", a.completeFlag(a.tenantNames))
	return cmd
}

// tenant that the command is about; an error if none is known.
func (a *app) tenant() (string, error) {
	name, err := a.tenantOrNone()
	if err != nil {
		return "", err
	}
	if name == "" {
		return "", usagef("tenant", "give --tenant NAME, or set WEFT_TENANT, or `weft context set --tenant NAME`", "no tenant is named")
	}
	return name, nil
}

// tenantOrNone is empty for all tenants.
func (a *app) tenantOrNone() (string, error) {
	if a.flags.allTenants {
		if a.flags.tenant != "" {
			return "", usagef("", "give one of them", "--tenant and --all-tenants were both given")
		}
		return "", nil
	}
	if a.flags.tenant != "" {
		return a.flags.tenant, nil
	}
	if a.deps.Env.Tenant != "" {
		return a.deps.Env.Tenant, nil
	}
	c, err := a.contextFile()
	if err != nil {
		return "", err
	}
	return c.Tenant, nil
}

// client of the server that flags, environment, context file, this machine's server or its lab name, in this order.
func (a *app) client() (*client.Client, error) {
	if a.conn != nil {
		return a.conn, nil
	}
	cfg, err := a.target()
	if err != nil {
		return nil, err
	}
	cfg.Patience = a.patience
	if cfg.Socket == "" {
		if cfg.Token, err = a.token(); err != nil {
			return nil, err
		}
		if cfg.CAFile, err = a.caFile(); err != nil {
			return nil, err
		}
	}
	a.conn, err = client.New(cfg)
	return a.conn, err
}

func (a *app) target() (client.Config, error) {
	switch {
	case a.flags.socket != "" && len(a.flags.servers) > 0:
		return client.Config{}, usagef("", "give one of them", "--socket and --server were both given")
	case a.flags.socket != "":
		return client.Config{Socket: a.flags.socket}, nil
	case len(a.flags.servers) > 0:
		return client.Config{Servers: a.flags.servers}, nil
	case a.deps.Env.Socket != "":
		return client.Config{Socket: a.deps.Env.Socket}, nil
	case a.deps.Env.Server != "":
		return client.Config{Servers: split(a.deps.Env.Server)}, nil
	}
	c, err := a.contextFile()
	if err != nil {
		return client.Config{}, err
	}
	if len(c.Servers) > 0 {
		return client.Config{Servers: c.Servers}, nil
	}
	if socket := a.localSocket(); socket != "" {
		return client.Config{Socket: socket}, nil
	}
	return client.Config{}, refusef("server",
		"start one here with `weft up` (or `weft lab up`), or give --server HOST:PORT and a token",
		"none is known: no flag, no WEFT_SERVER, no context, no %s, no lab", a.serverSocket())
}

func (a *app) serverSocket() string { return filepath.Join(a.deps.RunDir, "weft", "server.sock") }

// localSocket finds a server on this machine: its own, or the lab's. One that answers goes before one that is only there.
func (a *app) localSocket() string {
	candidates := []string{a.serverSocket()}
	if lab := a.labSocket(); lab != "" {
		candidates = append(candidates, lab)
	}
	there := ""
	for _, path := range candidates {
		conn, err := net.DialTimeout("unix", path, time.Second)
		if err == nil {
			conn.Close()
			return path
		}
		if there == "" && !errors.Is(err, fs.ErrNotExist) {
			there = path
		}
	}
	return there
}

func (a *app) labSocket() string {
	b, err := os.ReadFile(filepath.Join(a.deps.RunDir, "weft-lab", "lab.json"))
	if err != nil {
		return ""
	}
	var lab struct {
		ServerSocket string `json:"server_socket"`
	}
	if json.Unmarshal(b, &lab) != nil {
		return ""
	}
	return lab.ServerSocket
}

// token is empty when there is none: client says what to do then.
func (a *app) token() (string, error) {
	path := a.flags.tokenFile
	if path == "" {
		if a.deps.Env.Token != "" {
			return a.deps.Env.Token, nil
		}
		c, err := a.contextFile()
		if err != nil || c.TokenFile == "" {
			return "", err
		}
		path = c.TokenFile
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", usagef("token-file", "write the token that `weft token create` printed into it", "%s", err)
	}
	return strings.TrimSpace(string(b)), nil
}

func (a *app) caFile() (string, error) {
	if a.flags.caFile != "" {
		return a.flags.caFile, nil
	}
	if a.flags.tokenFile != "" || a.deps.Env.Token != "" {
		return "", nil // another token than the context's: its own pin
	}
	c, err := a.contextFile()
	return c.CAFile, err
}

func split(list string) []string {
	var all []string
	for s := range strings.SplitSeq(list, ",") {
		if s = strings.TrimSpace(s); s != "" {
			all = append(all, s)
		}
	}
	return all
}

// call is one unary call.
func call[Req, Res any](ctx context.Context, f func(context.Context, *connect.Request[Req]) (*connect.Response[Res], error), req *Req) (*Res, error) {
	res, err := f(ctx, connect.NewRequest(req))
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

// retries of a change that only touches the fields it names, when another change came between.
const retries = 3

// change reads an object, changes it and writes it back. It is tried again when somebody else wrote meanwhile, unless the
// user said on which revision the change is based.
func change[T any](ctx context.Context, based int64, get func(context.Context) (*T, int64, error), edit func(*T) error,
	put func(ctx context.Context, obj *T, revision int64) (*T, error)) (*T, error) {
	for try := 1; ; try++ {
		obj, revision, err := get(ctx)
		if err != nil {
			return nil, err
		}
		if based != 0 {
			revision = based
		}
		if err := edit(obj); err != nil {
			return nil, err
		}
		done, err := put(ctx, obj, revision)
		if based != 0 || try == retries || !isCode(err, connect.CodeAborted) {
			return done, err
		}
	}
}
