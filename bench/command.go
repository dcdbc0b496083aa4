package bench

import (
	"github.com/spf13/cobra"
)

// Command is `weft bench`.
func Command() *cobra.Command {
	return &cobra.Command{Use: "bench", Hidden: true}
}
