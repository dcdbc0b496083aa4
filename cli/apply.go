package cli

import "github.com/spf13/cobra"

func applyCommand(a *app) *cobra.Command {
	return &cobra.Command{Use: "apply", RunE: func(*cobra.Command, []string) error { return nil }}
}
