package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Result is a run, with what is needed to judge it.
type Result struct {
	Time    time.Time `json:"time"`
	Kernel  string    `json:"kernel"`
	CPUs    int       `json:"cpus"`
	CPU     string    `json:"cpu"`
	Version string    `json:"version"`
	Commit  string    `json:"commit"`
	Rounds  int       `json:"rounds"`
	Frames  int       `json:"frames"`
	Stream  string    `json:"stream"`
	// OtherLoad is how busy the machine was before the run, in percent of a core.
	OtherLoad float64 `json:"other_load"`
	// Seconds that the run took.
	Seconds  int       `json:"seconds"`
	Notes    []string  `json:"notes,omitempty"`
	Verdicts []Verdict `json:"verdicts"`
	Series   []Series  `json:"series"`
}

func newResult(cfg Config) (*Result, error) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return nil, fmt.Errorf("read the kernel's release: %w", err)
	}
	load, err := otherLoad()
	if err != nil {
		return nil, err
	}
	r := &Result{OtherLoad: load, Time: time.Now().UTC().Truncate(time.Second), Kernel: unix.ByteSliceToString(uts.Release[:]), CPUs: runtime.NumCPU(), CPU: cpuModel(),
		Version: cfg.Version, Commit: cfg.Commit, Rounds: cfg.Rounds, Frames: cfg.Frames, Stream: cfg.Stream.String()}
	if load > idleEnough {
		r.Notes = append(r.Notes, fmt.Sprintf("WARNING: the machine was not idle: %.0f %% of a core was busy with something else when the run began. Do not quote these figures.", load))
	}
	r.Notes = append(r.Notes, "weft is measured with every check and counter on; for \""+uncheckedName+"\" its programs are loaded once more without (the product cannot be run like that)")
	if ovsInstalled() {
		r.Notes = append(r.Notes, "Open vSwitch has its datapath in user space and its ports by AF_XDP (afxdp-nonpmd), read by its main loop, 32 frames a turn: a thread that never "+
			"sleeps would have half of the one core that everything is measured on. It gets frames in bursts that its rings hold, and is not asked for the CPU at a fixed load")
	}
	if r.CPUs < 2 {
		r.Notes = append(r.Notes, "the machine has one core: what says two cores was measured on one")
	}
	return r, nil
}

func cpuModel() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// WriteMarkdown writes the tables.
func (r *Result) WriteMarkdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# weft beside the kernel's overlay\n\n")
	fmt.Fprintf(&b, "%s, weft %s (commit %s), Linux %s, %d cores of %s.\n", r.Time.Format(time.RFC3339), r.Version, r.Commit, r.Kernel, r.CPUs, r.CPU)
	fmt.Fprintf(&b, "%d rounds, interleaved; two hosts on one veth as underlay; %d frames or %s a sample. Every check of weft is on.\n", r.Rounds, r.Frames, r.Stream)
	fmt.Fprintf(&b, "Ratio: times better than the reference, median of the rounds' ratios, with its 95 %% interval.\n")
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "\n- %s", n)
	}
	fmt.Fprintf(&b, "\n\n## What must be shown\n\n| what | against | wanted | found | reached |\n|---|---|---|---|---|\n")
	for _, v := range r.Verdicts {
		against := v.Against
		if against == "" {
			against = "-"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", v.What, against, v.wanted(), v.found(), v.answer())
	}
	r.explain(&b)
	for _, s := range r.Series {
		fmt.Fprintf(&b, "\n## %s\n\n| contender | median %s | min - max | ratio to %s |\n|---|---|---|---|\n", s.Measure, s.Unit, s.Reference)
		for _, row := range s.Rows {
			fmt.Fprintf(&b, "| %s | %.4g | %.4g - %.4g | %.2f (%.2f - %.2f) |\n", row.Contender, row.Median, row.Min, row.Max, row.Ratio, row.RatioLow, row.RatioHigh)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Save writes DATE-COMMIT.json, .md and a chart for each group of measures, -GROUP.svg, into a directory, and returns the second's path.
func (r *Result) Save(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("save results: %w", err)
	}
	base := filepath.Join(dir, r.Time.Format("2006-01-02")+"-"+r.Commit)
	j, err := json.Marshal(r)
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
	if err := os.WriteFile(base+".md", []byte(md.String()), 0o644); err != nil {
		return "", fmt.Errorf("save results: %w", err)
	}
	for _, group := range MeasureNames() {
		var all []Series
		for _, s := range r.Series {
			if s.Group == group {
				all = append(all, s)
			}
		}
		if len(all) == 0 {
			continue
		}
		title := fmt.Sprintf("%s: weft %s, Linux %s, %s", group, r.Commit, r.Kernel, r.Time.Format("2006-01-02"))
		if err := os.WriteFile(base+"-"+group+".svg", []byte(chart(title, all)), 0o644); err != nil {
			return "", fmt.Errorf("save results: %w", err)
		}
	}
	return base + ".md", nil
}
