package vtep

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/weftnet/weft/model"
)

// maxMistakes that are said about one file.
const maxMistakes = 20

// reader walks the file's tree and gathers what is wrong with it.
type reader struct {
	path  string
	wrong []error
}

// at is how a place of the file is named: "vtep.yaml:12 networks[0].vni".
func at(path string, line int, field string) string {
	return fmt.Sprintf("%s:%d %s", path, line, field)
}

func (r *reader) refuse(n *yaml.Node, field, fix, format string, args ...any) {
	if len(r.wrong) < maxMistakes {
		r.wrong = append(r.wrong, model.Errorf(model.Invalid, at(r.path, n.Line, field), fix, format, args...))
	}
}

// add takes a refusal of model's, whose field is the one given to it, and says the line.
func (r *reader) add(n *yaml.Node, e *model.Error) {
	if e != nil {
		r.refuse(n, e.Field, e.Fix, "%s", e.Reason)
	}
}

// document is the one mapping that a file holds.
func document(path string, octets []byte) (*yaml.Node, error) {
	var docs []*yaml.Node
	dec := yaml.NewDecoder(strings.NewReader(string(octets)))
	for {
		var n yaml.Node
		err := dec.Decode(&n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, model.Errorf(model.Invalid, path, "mend the YAML", "%s", strings.TrimPrefix(err.Error(), "yaml: "))
		}
		docs = append(docs, n.Content...)
	}
	switch {
	case len(docs) == 0:
		return nil, model.Errorf(model.Invalid, path, "write at least `networks:`", "the file says nothing")
	case len(docs) > 1:
		return nil, model.Errorf(model.Invalid, at(path, docs[1].Line, "---"), "write one document", "a second document begins here")
	}
	return docs[0], nil
}

// keys goes over a mapping, each key once; each says whether it knows the key.
func (r *reader) keys(n *yaml.Node, field string, known []string, each func(key string, field string, value *yaml.Node)) {
	n = resolve(n)
	if n.Kind != yaml.MappingNode {
		r.refuse(n, field, "write key: value lines", "it is not a mapping")
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], resolve(n.Content[i+1])
		where := strings.TrimPrefix(field+"."+key.Value, ".")
		switch {
		case seen[key.Value]:
			r.refuse(key, where, "leave one of them out", "it is there twice")
		case !slices.Contains(known, key.Value):
			r.refuse(key, where, "use "+strings.Join(known, ", "), "there is no such key")
		case value.Tag != "!!null": // nothing after the colon is as if the key were not there
			each(key.Value, where, value)
		}
		seen[key.Value] = true
	}
}

// list goes over a sequence.
func (r *reader) list(n *yaml.Node, field string, most int, each func(field string, item *yaml.Node)) {
	if n.Kind != yaml.SequenceNode {
		r.refuse(n, field, "write a list: [a, b], or lines that begin with -", "it is not a list")
		return
	}
	if len(n.Content) > most {
		r.refuse(n, field, "leave some of them out", "%d entries are more than %d", len(n.Content), most)
		return
	}
	for i, item := range n.Content {
		each(fmt.Sprintf("%s[%d]", field, i), resolve(item))
	}
}

// resolve follows *anchor.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// text is a single value as it was written.
func (r *reader) text(n *yaml.Node, field string) string {
	if n.Kind != yaml.ScalarNode {
		r.refuse(n, field, "write one value", "it is not a single value")
		return ""
	}
	return n.Value
}

func (r *reader) number(n *yaml.Node, field string, least, most int64, fix string) int64 {
	s := r.text(n, field)
	v, err := strconv.ParseInt(s, 10, 64)
	if (err != nil || v < least || v > most) && n.Kind == yaml.ScalarNode {
		r.refuse(n, field, fix, "%q is not a whole number from %d to %d", s, least, most)
		return least
	}
	return v
}

func (r *reader) truth(n *yaml.Node, field string) bool {
	s := r.text(n, field)
	if s != "true" && s != "false" && n.Kind == yaml.ScalarNode {
		r.refuse(n, field, "write true or false", "it is %q", s)
	}
	return s == "true"
}

// choice is one of some words.
func (r *reader) choice(n *yaml.Node, field string, words ...string) string {
	s := r.text(n, field)
	if !slices.Contains(words, s) && n.Kind == yaml.ScalarNode {
		r.refuse(n, field, "choose "+strings.Join(words, " or "), "%q is not a setting", s)
	}
	return s
}

// err is everything that is wrong.
func (r *reader) err() error {
	if len(r.wrong) == 1 {
		return r.wrong[0]
	}
	return errors.Join(r.wrong...)
}
