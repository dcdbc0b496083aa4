package cli

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
)

// BUM limits of ports and networks. The API has two special values, which the commands call by name.
const (
	// The values of the API, and the defaults of the server.
	noBUMLimit        = 1<<32 - 1
	defaultPortBUM    = 1000
	defaultNetworkBUM = 10_000
)

func bumLimitFlag(cmd *cobra.Command, whose string, otherwise uint32) *string {
	v := cmd.Flags().String("bum-limit", "default", fmt.Sprintf("broadcast, unknown unicast and multicast frames a second, %s, `FRAMES`: a number, none, or default (%d)",
		whose, otherwise))
	_ = cmd.RegisterFlagCompletionFunc("bum-limit", cobra.FixedCompletions([]string{"default", "none"}, cobra.ShellCompDirectiveNoFileComp))
	return v
}

func parseBUMLimit(s string) (uint32, error) {
	switch s {
	case "default":
		return 0, nil
	case "none":
		return noBUMLimit, nil
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 0 || n == noBUMLimit {
		return 0, usagef("--bum-limit", "give a number of frames a second, none, or default", "%q is not one of its values", s)
	}
	return uint32(n), nil
}

func bumLimit(limit, otherwise uint32) string {
	switch limit {
	case 0:
		return fmt.Sprintf("%d frames a second (default)", otherwise)
	case noBUMLimit:
		return "none"
	}
	return fmt.Sprintf("%d frames a second", limit)
}
