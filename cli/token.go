package cli

import (
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
)

func tokenCommand(a *app) *cobra.Command {
	return a.owned(a.asking(group("token", "API tokens, for use away from the server's machine", tokenCreate(a), tokenList(a), tokenDelete(a))))
}

// scopeName is how people write a scope: "read-only".
func scopeName(s weftv1.TokenScope) string { return enum("TOKEN_SCOPE_", s) }

func parseScope(s string) (weftv1.TokenScope, error) {
	for v := range weftv1.TokenScope_name {
		if scope := weftv1.TokenScope(v); scope != weftv1.TokenScope_TOKEN_SCOPE_UNSPECIFIED && scopeName(scope) == s {
			return scope, nil
		}
	}
	if s == "" {
		return 0, usagef("--scope", "choose admin, tenant or read-only", "it is missing")
	}
	return 0, usagef("--scope", "choose admin, tenant or read-only", "%q is not a scope", s)
}

func tokenCreate(a *app) *cobra.Command {
	var scope string
	var lifetime time.Duration
	cmd := &cobra.Command{Use: "create NAME --scope admin|tenant|read-only", Short: "make an API token and print it, once", Args: names("NAME"),
		Long: "Prints the token and nothing else; only its hash is kept. Scopes:\n" +
			"  admin      everything\n" +
			"  tenant     everything on the networks and ports of one --tenant\n" +
			"  read-only  reads everything, or what belongs to one --tenant; no backup",
		Example: "  weft token create ci --scope tenant --tenant acme --lifetime 720h > ci.token"}
	cmd.Flags().StringVar(&scope, "scope", "", "what it may do, `SCOPE`")
	cmd.Flags().DurationVar(&lifetime, "lifetime", 0, "until it expires, `DURATION`; 0 is never")
	_ = cmd.RegisterFlagCompletionFunc("scope", cobra.FixedCompletions([]string{"admin", "tenant", "read-only"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		v, err := parseScope(scope)
		if err != nil {
			return err
		}
		if lifetime < 0 {
			return usagef("--lifetime", "give a time, such as 720h, or 0 for never", "%s is no lifetime", lifetime)
		}
		req := &weftv1.CreateAPITokenRequest{Name: args[0], Scope: v, Tenant: a.flags.tenant}
		if lifetime > 0 {
			req.Lifetime = durationpb.New(lifetime)
		}
		switch {
		case v == weftv1.TokenScope_TOKEN_SCOPE_ADMIN && req.Tenant != "":
			return usagef("--tenant", "leave it out, or choose --scope tenant", "an admin token is for every tenant")
		case v == weftv1.TokenScope_TOKEN_SCOPE_TENANT:
			if req.Tenant, err = a.tenant(); err != nil {
				return err
			}
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		res, err := call(cmd.Context(), c.System.CreateAPIToken, req)
		if err != nil {
			return err
		}
		return a.print(res, func() error { return a.say("%s", res.GetSecret()) })
	}
	return a.formatted(cmd)
}

func tokenList(a *app) *cobra.Command {
	return a.formatted(&cobra.Command{Use: "list", Short: "list API tokens", Args: names(), RunE: func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		res, err := call(cmd.Context(), c.System.ListAPITokens, &weftv1.ListAPITokensRequest{})
		if err != nil {
			return err
		}
		return a.print(res, func() error {
			t := newTable("NAME", "SCOPE", "TENANT", "CREATED", "EXPIRES")
			for _, x := range res.GetTokens() {
				expires := when(x.GetExpires())
				if expires == "" {
					expires = "never"
				}
				t.add(x.GetName(), scopeName(x.GetScope()), x.GetTenant(), when(x.GetCreated()), expires)
			}
			return a.table(t)
		})
	}})
}

func tokenDelete(a *app) *cobra.Command {
	return &cobra.Command{Use: "delete NAME", Short: "delete an API token: it is worth nothing from then on", Args: names("NAME"),
		ValidArgsFunction: a.complete(a.tokenNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			if _, err := call(cmd.Context(), c.System.DeleteAPIToken, &weftv1.DeleteAPITokenRequest{Name: strings.TrimSpace(args[0])}); err != nil {
				return err
			}
			return a.say("token %s deleted", args[0])
		}}
}
