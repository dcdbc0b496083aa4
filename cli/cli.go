package cli

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Deps is everything that the commands take from outside.
type Deps struct {
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	Env    Env
	// Version and Commit of this binary.
	Version, Commit string
	// VTEP are the verbs of `weft vtep` that run here, and not in a server.
	VTEP []*cobra.Command
	// RunDir is where servers, agents and labs keep their sockets; empty is /run.
	RunDir string
	// DevDir is where the kernel's devices are; empty is /dev.
	DevDir string
}

// Env is what the environment says; empty strings where it says nothing.
type Env struct {
	// Server is WEFT_SERVER: addresses, separated by commas.
	Server string
	// Socket is WEFT_SOCKET, the server's own socket.
	Socket string
	// Token is WEFT_TOKEN, an API token.
	Token string
	// Tenant is WEFT_TENANT.
	Tenant string
	// AgentSocket is WEFT_AGENT_SOCKET.
	AgentSocket string
	// Home holds .config/weft/config.yaml.
	Home string
}

// Exit statuses.
const (
	exitOK      = 0
	exitRefused = 1
	exitUsage   = 2
	exitLagging = 3
	exitLeft    = 4
)

// New is the command tree, with commands that live elsewhere.
func New(deps Deps, extra ...*cobra.Command) *cobra.Command {
	root, _ := build(deps, extra)
	return root
}

// Run executes a command line (without the program's name), writes an error to deps.Stderr, and returns the exit status.
func Run(ctx context.Context, deps Deps, extra []*cobra.Command, args []string) int {
	root, a := build(deps, extra)
	defer a.close()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	return a.fail(err)
}

func build(deps Deps, extra []*cobra.Command) (*cobra.Command, *app) {
	if deps.RunDir == "" {
		deps.RunDir = "/run"
	}
	if deps.DevDir == "" {
		deps.DevDir = "/dev"
	}
	a := &app{deps: deps}
	root := &cobra.Command{
		Use:   "weft",
		Short: "network virtualization for Linux",
		Long: "weft gives a fleet of Linux machines virtual networks. Try `weft lab demo`, or `weft up` on one machine.\n\n" +
			"Exit status: 0 done, 1 refused or failed, 2 wrong usage or a wrong field, 3 a wait ended before every host had applied or floods went their new way,\n" +
			"4 ports are left on a host that was to be emptied.",
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
		Args:              cobra.ArbitraryArgs,
		RunE:              runGroup,
	}
	root.SetIn(deps.Stdin)
	root.SetOut(deps.Stdout)
	root.SetErr(deps.Stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		fix := "see `" + cmd.CommandPath() + " --help`"
		var wrong *pflag.InvalidValueError
		if !errors.As(err, &wrong) {
			return usagef("", fix, "%s", err)
		}
		return usagef("--"+wrong.GetFlag().Name, fix, "%q is not %s", wrong.GetValue(), valueOf(wrong.GetFlag().Value.Type()))
	})
	root.AddGroup(&cobra.Group{ID: "objects", Title: "Objects:"}, &cobra.Group{ID: "deployment", Title: "Deployment:"},
		&cobra.Group{ID: "run", Title: "Running weft:"})
	for _, noun := range []func(*app) *cobra.Command{tenantCommand, networkCommand, portCommand, vtepCommand, poolCommand, groupPoolCommand, applyCommand} {
		add(root, "objects", noun(a))
	}
	for _, noun := range []func(*app) *cobra.Command{hostCommand, tokenCommand, statusCommand, dropsCommand, backupCommand, restoreCommand} {
		add(root, "deployment", noun(a))
	}
	for _, cmd := range extra {
		add(root, "run", cmd)
	}
	add(root, "run", hookCommand(a))
	root.AddCommand(contextCommand(a), versionCommand(a))
	markUsage(root)
	return root, a
}

// valueOf says in words what a flag of that type takes.
func valueOf(flagType string) string {
	switch flagType {
	case "bool":
		return "true or false"
	case "duration":
		return "a duration such as 90s or 12h"
	case "uint8", "uint16", "uint32", "uint64", "uint":
		return "a whole number from 0 that fits"
	case "int8", "int16", "int32", "int64", "int":
		return "a whole number that fits"
	default:
		return "a " + flagType
	}
}

func add(root *cobra.Command, group string, cmd *cobra.Command) {
	cmd.GroupID = group
	root.AddCommand(cmd)
}

// group is a noun: it only has verbs.
func group(use, short string, verbs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs, RunE: runGroup}
	cmd.AddCommand(verbs...)
	return cmd
}

func runGroup(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	fix := "see `" + cmd.CommandPath() + " --help`"
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		fix = "did you mean `" + cmd.CommandPath() + " " + near[0] + "`?"
	}
	return usagef("", fix, "there is no command `%s %s`", cmd.CommandPath(), args[0])
}

// markUsage makes wrong arguments count as wrong usage, in commands from elsewhere too.
func markUsage(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			err := check(cmd, args)
			var done *failure
			if err == nil || errors.As(err, &done) {
				return err
			}
			return usagef("", "see `"+cmd.CommandPath()+" --help`", "%s", err)
		}
	}
	for _, c := range cmd.Commands() {
		markUsage(c)
	}
}

// names says which arguments a verb takes, all of them needed.
func names(want ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		fix := "write `" + strings.Join(append([]string{cmd.CommandPath()}, want...), " ") + "`"
		if len(args) < len(want) {
			return usagef("", fix, "%s is missing", want[len(args)])
		}
		if len(args) > len(want) {
			return usagef("", fix, "%q is one argument too many", args[len(want)])
		}
		return nil
	}
}
