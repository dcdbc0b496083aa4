package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"github.com/weftnet/weft/client"
)

func applyCommand(a *app) *cobra.Command {
	var files []string
	cmd := &cobra.Command{Use: "apply -f FILE", Short: "create and change objects until they are as a file says; never deletes", Args: names(),
		Long: "Reads YAML or JSON documents with kind (" + kindNames() + "), tenant, name and spec. Each object is\n" +
			"created, or changed if its spec differs, in a transaction of its own, in the order of their dependencies. The spec in the file is the\n" +
			"whole spec: what it leaves out goes back to its default. What depends on an object that failed is skipped, the rest goes on; running it\n" +
			"again resumes. Nothing is done if a file itself has a mistake.",
		Example: "  weft apply -f acme.yaml --wait\n  generate | weft apply -f -"}
	cmd.Flags().StringSliceVarP(&files, "file", "f", nil, "`FILE` to read, - for standard input; any number of times")
	a.waiting(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if len(files) == 0 {
			return usagef("--file", "give `-f FILE`, or `-f -` for standard input", "it is missing")
		}
		docs, err := a.readFiles(files)
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		run := &application{app: a, c: c, failed: map[string]bool{}, reached: map[string]int64{}, changed: map[string]bool{}}
		if err := run.all(cmd.Context(), docs); err != nil {
			return err
		}
		return run.wait(cmd.Context())
	}
	return a.owned(a.asking(cmd))
}

// readFiles reads all manifests, and does nothing if one has a mistake.
func (a *app) readFiles(files []string) ([]*document, error) {
	tenant, err := a.tenantOrNone()
	if err != nil {
		return nil, err
	}
	var docs []*document
	var wrong []failure
	at := map[string]*document{}
	for _, file := range files {
		name, r := "stdin", a.deps.Stdin
		if file != "-" {
			f, err := os.Open(file)
			if err != nil {
				return nil, usagef("--file", "give the name of a file that can be read", "%s", err)
			}
			defer f.Close()
			name, r = file, f
		}
		found, mistakes := readManifest(name, r, tenant)
		wrong = append(wrong, mistakes...)
		for _, d := range found {
			if first := at[d.String()]; first != nil {
				wrong = append(wrong, failure{field: d.at(), reason: fmt.Sprintf("%s is also in %s", d, first.at()), fix: "leave one of them out"})
			}
			at[d.String()] = d
		}
		docs = append(docs, found...)
	}
	for _, f := range wrong {
		a.sayError("", f)
	}
	if len(wrong) > 0 {
		return nil, errSaid{exitUsage}
	}
	if len(docs) == 0 {
		return nil, usagef("--file", "write at least one object into it", "there is no object in %s", strings.Join(files, ", "))
	}
	rank := func(d *document) int {
		return slices.IndexFunc(kinds[:], func(k kind) bool { return k.name == d.kind.name })
	}
	slices.SortStableFunc(docs, func(x, y *document) int { return rank(x) - rank(y) })
	return docs, nil
}

// application is one run of apply.
type application struct {
	app *app
	c   *client.Client
	// failed objects, and those that were skipped for their sake.
	failed map[string]bool
	// reached is the highest revision that concerns each network; changed are networks that are in a document themselves.
	reached map[string]int64
	changed map[string]bool

	count          map[string]int
	refused, wrong int
}

// errGone ends the run: nothing that follows would fare better.
type errGone struct{ error }

func (run *application) all(ctx context.Context, docs []*document) error {
	run.count = map[string]int{}
	for i, d := range docs {
		result, err := run.one(ctx, d)
		var gone errGone
		if errors.As(err, &gone) {
			status, lines := explain(gone.error)
			for _, l := range lines {
				run.app.sayError(d.at()+": "+d.String()+": ", l)
			}
			_ = run.app.say("%d of %d objects were not tried: run the same command again to resume", len(docs)-i, len(docs))
			return errSaid{status}
		}
		run.count[result]++
		if serr := run.app.say("%-9s  %s", result, d); serr != nil {
			return serr
		}
		if err != nil {
			run.failed[d.String()] = true
			status, lines := explain(err)
			for _, l := range lines {
				run.app.sayError(d.at()+": "+d.String()+": ", l)
			}
			if status == exitUsage {
				run.wrong++
			} else {
				run.refused++
			}
		}
	}
	var parts []string
	for _, result := range []string{"created", "updated", "unchanged", "failed", "skipped"} {
		if n := run.count[result]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, result))
		}
	}
	if err := run.app.say("%s", strings.Join(parts, ", ")); err != nil {
		return err
	}
	switch {
	case run.refused > 0:
		return errSaid{exitRefused}
	case run.wrong > 0:
		return errSaid{exitUsage}
	}
	return nil
}

// one applies a document, and says what became of it.
func (run *application) one(ctx context.Context, d *document) (string, error) {
	for _, need := range d.kind.needs(d) {
		if run.failed[need] {
			run.failed[d.String()] = true
			return "skipped", nil
		}
	}
	var err error
	for range retries {
		var result string
		var o object
		result, o, err = run.try(ctx, d)
		switch {
		case err == nil:
			for _, network := range d.kind.networks(d, o) {
				run.reached[network] = max(run.reached[network], o.GetMeta().GetRevision())
				run.changed[network] = run.changed[network] || d.kind.name == "Network"
			}
			return result, nil
		case hopeless(ctx, err):
			return "failed", errGone{err}
		case !isCode(err, connect.CodeAborted) && !isCode(err, connect.CodeAlreadyExists):
			return "failed", err
		}
		// Somebody else wrote meanwhile: look again.
	}
	return "failed", err
}

func (run *application) try(ctx context.Context, d *document) (string, object, error) {
	o, err := d.kind.get(ctx, run.c, d)
	if isCode(err, connect.CodeNotFound) {
		o, err = d.kind.create(ctx, run.c, d)
		return "created", o, err
	}
	if err != nil {
		return "failed", nil, err
	}
	if sameSpec(d.kind.specOf(o), d.spec) {
		return "unchanged", o, nil
	}
	o, err = d.kind.update(ctx, run.c, d, o.GetMeta().GetRevision())
	return "updated", o, err
}

// hopeless reports an error that the next object would get too.
func hopeless(ctx context.Context, err error) bool {
	return ctx.Err() != nil || isCode(err, connect.CodeUnavailable) || isCode(err, connect.CodeUnauthenticated)
}

// wait waits for every network that was touched; it names all that lag.
func (run *application) wait(ctx context.Context) error {
	if !run.app.flags.wait {
		return nil
	}
	var networks []string
	for n := range run.reached {
		networks = append(networks, n)
	}
	slices.Sort(networks)
	var first error
	for _, n := range networks {
		tenant, name, _ := strings.Cut(n, "/")
		wait := run.app.applied
		if run.changed[n] {
			wait = run.app.inForce
		}
		err := wait(ctx, tenant, name, run.reached[n])
		if err == nil {
			continue
		}
		status, lines := explain(err)
		for _, l := range lines {
			run.app.sayError("network "+n+": ", l)
		}
		first = errSaid{status}
		if status != exitLagging {
			return first
		}
	}
	return first
}
