package scale

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Figure is one number that was measured.
type Figure struct {
	What  string  `json:"what"`
	Value float64 `json:"value"`
	// Unit: "s", "ms", "us", "B", or what is counted.
	Unit string `json:"unit"`
	// AtMost is what weft has promised itself; 0 is nothing. It is for 1,000 hosts, 100,000 ports and two cores.
	AtMost  float64 `json:"at_most,omitempty"`
	Reached bool    `json:"reached,omitempty"`
}

func (f Figure) judged() Figure {
	f.Reached = f.AtMost > 0 && f.Value <= f.AtMost
	return f
}

// value is the number in words.
func (f Figure) value() string {
	rate, isOctets := strings.CutPrefix(f.Unit, "B")
	if !isOctets {
		return fmt.Sprintf("%.4g %s", f.Value, f.Unit)
	}
	return octets(f.Value) + rate
}

func octets(v float64) string {
	switch {
	case v >= 1<<30:
		return fmt.Sprintf("%.2f GiB", v/(1<<30))
	case v >= 1<<20:
		return fmt.Sprintf("%.1f MiB", v/(1<<20))
	case v >= 1<<13:
		return fmt.Sprintf("%.1f KiB", v/(1<<10))
	}
	return fmt.Sprintf("%.0f B", v)
}

func (f Figure) wanted() string {
	if f.AtMost == 0 {
		return ""
	}
	answer := "no"
	if f.Reached {
		answer = "yes"
	}
	return fmt.Sprintf("<= %g %s: %s", f.AtMost, f.Unit, answer)
}

// Result is a run, with what is needed to judge it.
type Result struct {
	Time     time.Time `json:"time"`
	Version  string    `json:"version"`
	Commit   string    `json:"commit"`
	Machine  string    `json:"machine"`
	Hosts    int       `json:"hosts"`
	Ports    int       `json:"ports"`
	Networks int       `json:"networks"`
	Etcd     string    `json:"etcd"`
	// OtherLoad is how busy the machine was before the run, in percent of a core.
	OtherLoad float64  `json:"other_load"`
	Seconds   int      `json:"seconds"`
	Notes     []string `json:"notes"`
	Figures   []Figure `json:"figures"`
	// Projections are for 10,000 hosts and 1,000,000 ports.
	Projections []Projection `json:"projections"`
}

// idleEnough is how busy the machine may be before a run, in percent of a core.
const idleEnough = 10

func newResult(cfg Config) *Result {
	r := &Result{Time: time.Now().UTC(), Version: cfg.Version, Commit: cfg.Commit, Machine: cfg.Machine,
		Hosts: cfg.Hosts, Ports: cfg.Ports, Networks: cfg.Networks, Etcd: "embedded", OtherLoad: cfg.OtherLoad}
	if len(cfg.EtcdEndpoints) > 0 {
		r.Etcd = strings.Join(cfg.EtcdEndpoints, ",")
	}
	if cfg.OtherLoad > idleEnough {
		r.Notes = append(r.Notes, fmt.Sprintf("WARNING: the machine was not idle: %.0f %% of a core was busy with something else when the run began. Do not quote these figures.", cfg.OtherLoad))
	}
	r.Notes = append(r.Notes,
		"server, etcd and all simulated agents share the cores of one machine and talk over its loopback: a time is what both sides take together",
		"a simulated agent joined with a token, has a TLS connection of its own and takes the plan in as a real one, but for what many hold alike, which is decoded once; it has no kernel",
		"while a change to all is timed, the collector of the agents' process does not run: it would look at the plans of all at once; the server's does",
		"every agent was compared with the store, by the digest of each scope, after the building and after each restart")
	return r
}

// WriteMarkdown writes the table.
func (r *Result) WriteMarkdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# One server, %d hosts, %d ports, %d networks\n\n", r.Hosts, r.Ports, r.Networks)
	fmt.Fprintf(&b, "%s, weft %s (commit %s), %s, etcd: %s; the run took %d s.\n", r.Time.Truncate(time.Second).Format(time.RFC3339), r.Version, r.Commit, r.Machine, r.Etcd, r.Seconds)
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "\n- %s", n)
	}
	fmt.Fprintf(&b, "\n\n| what | found | wanted, for 1,000 hosts and 100,000 ports |\n|---|---|---|\n")
	for _, f := range r.Figures {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", f.What, f.value(), f.wanted())
	}
	fmt.Fprintf(&b, "\n## On paper: %d hosts, %d ports\n\nEach line from the constants above; docs/scale.md says what it means. Processor time is the server's, of this machine's cores.\n", largeHosts, largePorts)
	fmt.Fprintf(&b, "\n| what | computed | how |\n|---|---|---|\n")
	for _, p := range r.Projections {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", p.What, Figure{Value: p.Value, Unit: p.Unit}.value(), p.How)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Save writes DATE-COMMIT-scale.json and .md into a directory, and returns the second's path. A fleet of another size than that of
// the targets has its hosts in the name.
func (r *Result) Save(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("save results: %w", err)
	}
	base := filepath.Join(dir, r.Time.Format("2006-01-02")+"-"+r.Commit+"-scale")
	if r.Hosts != 1000 {
		base += fmt.Sprintf("-%d", r.Hosts)
	}
	j, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return "", fmt.Errorf("save results: %w", err)
	}
	if err := os.WriteFile(base+".json", append(j, '\n'), 0o644); err != nil {
		return "", fmt.Errorf("save results: %w", err)
	}
	var md strings.Builder
	if err := r.WriteMarkdown(&md); err != nil {
		return "", err
	}
	return base + ".md", os.WriteFile(base+".md", []byte(md.String()), 0o644)
}
