// Command weft is network virtualization for Linux: server, agent, lab and client in one binary.
//
// This package is flags, environment and wiring; what the parts do is in the rooms.
package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/weftnet/weft/bench"
	"github.com/weftnet/weft/cli"
	"github.com/weftnet/weft/conform"
	"github.com/weftnet/weft/lab"
)

// Set by the linker.
var (
	version = "devel"
	commit  = "unknown"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, os.Args[1:])
	stop()
	os.Exit(status)
}

func run(ctx context.Context, args []string) int {
	deps := cli.Deps{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Version: version, Commit: commit,
		VTEP: vtepCommands(),
		Env: cli.Env{
			Server:      os.Getenv("WEFT_SERVER"),
			Socket:      os.Getenv("WEFT_SOCKET"),
			Token:       os.Getenv("WEFT_TOKEN"),
			Tenant:      os.Getenv("WEFT_TENANT"),
			AgentSocket: os.Getenv("WEFT_AGENT_SOCKET"),
			Home:        os.Getenv("HOME"),
		},
	}
	return cli.Run(ctx, deps, []*cobra.Command{serverCommand(), agentCommand(), upCommand(), lab.Commands(lab.Deps{Tenant: deps.Env.Tenant}), bench.Command(bench.Deps{Version: version, Commit: commit}), conform.Command()}, args)
}

// logger writes one line an event to standard error, at info or, with -v, debug.
func logger(verbose bool) *slog.Logger {
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
}
