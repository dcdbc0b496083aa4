package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
	"golang.org/x/term"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// colours, used on a terminal only.
type colour string

const (
	plain  colour = ""
	red    colour = "31"
	green  colour = "32"
	yellow colour = "33"
	bold   colour = "1"
)

func paint(c colour, s string) string {
	if c == plain {
		return s
	}
	return "\x1b[" + string(c) + "m" + s + "\x1b[0m"
}

func (a *app) colour(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// formatted gives a verb its -o.
func (a *app) formatted(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVarP(&a.flags.output, "output", "o", "table", "`FORMAT`: table, json or yaml")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch a.flags.output {
		case "table", "json", "yaml":
			return run(cmd, args)
		}
		return usagef("--output", "choose table, json or yaml", "%q is not a format", a.flags.output)
	}
	return cmd
}

// print writes a message of the API as JSON or YAML, with the API's field names, or what table makes of it.
func (a *app) print(msg proto.Message, table func() error) error {
	if a.flags.output == "table" || a.flags.output == "" {
		return table()
	}
	compact, err := protojson.Marshal(msg)
	if err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	var out bytes.Buffer
	if a.flags.output == "json" {
		err = json.Indent(&out, compact, "", "  ") // protojson's own spaces differ from run to run
		out.WriteByte('\n')
	} else {
		err = toYAML(&out, compact)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", a.flags.output, err)
	}
	_, err = a.deps.Stdout.Write(out.Bytes())
	return err
}

// toYAML keeps the order of the fields: JSON is YAML, written in another style.
func toYAML(w io.Writer, b []byte) error {
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return err
	}
	block(&doc)
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(&doc); err != nil {
		return err
	}
	return enc.Close()
}

func block(n *yaml.Node) {
	if len(n.Content) > 0 || n.Kind == yaml.ScalarNode {
		n.Style = 0 // quotes come back where a string would read as something else
	}
	for _, c := range n.Content {
		block(c)
	}
}

// cell of a table.
type cell struct {
	text   string
	colour colour
}

// table is rows under headings, as wide as they need.
type table struct {
	rows [][]cell
}

func newTable(headings ...string) *table {
	t := &table{}
	var row []cell
	for _, h := range headings {
		row = append(row, cell{h, bold})
	}
	t.rows = append(t.rows, row)
	return t
}

// add takes strings, cells and numbers.
func (t *table) add(values ...any) {
	var row []cell
	for _, v := range values {
		c, ok := v.(cell)
		if !ok {
			c = cell{text: fmt.Sprint(v)}
		}
		if c.text == "" {
			c.text = "-"
		}
		row = append(row, c)
	}
	t.rows = append(t.rows, row)
}

func (a *app) table(t *table) error { return a.write(t.rows, 2) }

// write aligns columns; colours take no room.
func (a *app) write(rows [][]cell, gap int) error {
	coloured := a.colour(a.deps.Stdout)
	var widths []int
	for _, row := range rows {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		for i, c := range row {
			if coloured {
				b.WriteString(paint(c.colour, c.text))
			} else {
				b.WriteString(c.text)
			}
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text)+gap))
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(a.deps.Stdout, b.String())
	return err
}

// sheet is one object: a name and a value a line.
type sheet struct{ rows [][]cell }

// row writes a line; an empty value leaves it out.
func (s *sheet) row(name string, value any) {
	c, ok := value.(cell)
	if !ok {
		c = cell{text: fmt.Sprint(value)}
	}
	if c.text != "" {
		s.rows = append(s.rows, []cell{{name, bold}, c})
	}
}

// rows writes a list under one name, "-" when it is empty.
func (s *sheet) list(name string, values []string) {
	if len(values) == 0 {
		s.row(name, "-")
	}
	for i, v := range values {
		if i > 0 {
			name = ""
		}
		s.rows = append(s.rows, []cell{{name, bold}, {text: v}})
	}
}

func (a *app) sheet(fill func(*sheet)) error {
	s := &sheet{}
	fill(s)
	return a.write(s.rows, 3)
}

func (a *app) say(format string, args ...any) error {
	_, err := fmt.Fprintf(a.deps.Stdout, format+"\n", args...)
	return err
}

// enum is the last word of an enum's name, as people write it: PORT_STATE_ACTIVE is "active".
func enum(prefix string, v fmt.Stringer) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(v.String(), prefix)), "_", "-")
}

func when(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().UTC().Format(time.RFC3339)
}

func number[N ~uint32 | ~int64 | ~uint64](n N) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

// counted is "1 packet", "2 packets".
func counted[N ~int | ~uint32 | ~int64 | ~uint64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// are is "1 interface is", "2 interfaces are".
func are(n int, noun string) string {
	if n == 1 {
		return counted(n, noun) + " is"
	}
	return counted(n, noun) + " are"
}
