package cli

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
)

// A manifest is what `weft apply` reads: YAML or JSON documents, one object each.
//
//	kind: Network
//	tenant: acme        # Network and Port; left out, the default tenant
//	name: blue
//	spec:               # fields of the API, by either of their names (unknown_unicast, unknownUnicast)
//	  subnets: [10.1.0.0/24]

// maxMistakes that are said about one manifest.
const maxMistakes = 20

// document is one object of a manifest.
type document struct {
	file   string
	line   int
	kind   *kind
	tenant string
	name   string
	spec   proto.Message
}

func (d *document) String() string { return objectName(d.kind.name, d.tenant, d.name) }

func (d *document) at() string { return fmt.Sprintf("%s:%d", d.file, d.line) }

// objectName is "network acme/blue" or "vtep ext1".
func objectName(kind, tenant, name string) string {
	if tenant != "" {
		name = tenant + "/" + name
	}
	return strings.ToLower(kind) + " " + name
}

// mistakes gathers everything that is wrong with a manifest.
type mistakes struct {
	file string
	all  []failure
}

func (m *mistakes) add(n *yaml.Node, fix, format string, args ...any) {
	m.all = append(m.all, failure{status: exitUsage, field: fmt.Sprintf("%s:%d", m.file, n.Line), reason: fmt.Sprintf(format, args...), fix: fix})
}

// readManifest reads every document, and says everything that is wrong with any of them.
func readManifest(file string, r io.Reader, defaultTenant string) ([]*document, []failure) {
	m := &mistakes{file: file}
	var docs []*document
	seen := map[string]int{}
	dec := yaml.NewDecoder(r)
	for len(m.all) < maxMistakes {
		var node yaml.Node
		err := dec.Decode(&node)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			m.all = append(m.all, failure{status: exitUsage, field: file, reason: syntax(err), fix: "mend the YAML or JSON"})
			break
		}
		if len(node.Content) == 0 || node.Content[0].Tag == "!!null" {
			continue // nothing between two separators
		}
		d := m.document(node.Content[0], defaultTenant)
		if d == nil {
			continue
		}
		if first, twice := seen[d.String()]; twice {
			m.add(node.Content[0], "leave one of them out", "%s is also on line %d", d, first)
			continue
		}
		seen[d.String()] = d.line
		docs = append(docs, d)
	}
	return docs, m.all
}

// syntax takes yaml's own name off the message: "line 3: did not find expected key".
func syntax(err error) string { return strings.TrimPrefix(err.Error(), "yaml: ") }

func (m *mistakes) document(n *yaml.Node, defaultTenant string) *document {
	before := len(m.all)
	d := &document{file: m.file, line: n.Line}
	var spec *yaml.Node
	m.pairs(n, "the document", func(key, value *yaml.Node) {
		switch key.Value {
		case "kind":
			d.kind = m.kind(value)
		case "tenant":
			d.tenant = m.text(value, "tenant")
		case "name":
			d.name = m.text(value, "name")
		case "spec":
			spec = value
		default:
			m.add(key, "use kind, tenant, name and spec", "unknown key %q", key.Value)
		}
	})
	if len(m.all) > before {
		return nil
	}
	switch {
	case d.kind == nil:
		m.add(n, "give one of "+kindNames(), "kind is missing")
	case d.name == "":
		m.add(n, "give the object a name", "name is missing")
	case d.kind.owned && d.tenant == "" && defaultTenant == "":
		m.add(n, "write tenant: NAME, or give --tenant NAME", "no tenant is named")
	case !d.kind.owned && d.tenant != "":
		m.add(n, "leave tenant out", "a %s belongs to no tenant", d.kind.name)
	}
	if len(m.all) > before {
		return nil
	}
	if d.kind.owned && d.tenant == "" {
		d.tenant = defaultTenant
	}
	d.spec = d.kind.spec()
	if spec != nil && spec.Tag != "!!null" {
		m.message(spec, "spec", d.spec.ProtoReflect())
	}
	if len(m.all) > before {
		return nil
	}
	return d
}

func (m *mistakes) kind(n *yaml.Node) *kind {
	for i := range kinds {
		if kinds[i].name == n.Value {
			return &kinds[i]
		}
	}
	m.add(n, "use one of "+kindNames(), "%q is not a kind", n.Value)
	return nil
}

// pairs goes over a mapping, each key once.
func (m *mistakes) pairs(n *yaml.Node, what string, each func(key, value *yaml.Node)) {
	n = resolve(n)
	if n.Kind != yaml.MappingNode {
		m.add(n, "write key: value lines", "%s is not a mapping", what)
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], resolve(n.Content[i+1])
		if seen[key.Value] {
			m.add(key, "leave one of them out", "key %q is there twice", key.Value)
			continue
		}
		seen[key.Value] = true
		each(key, value)
	}
}

// resolve follows *anchor.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// text is a scalar as it was written: names and addresses that YAML would take for numbers stay what they are.
func (m *mistakes) text(n *yaml.Node, what string) string {
	if n.Kind != yaml.ScalarNode {
		m.add(n, "write one value", "%s is not a single value", what)
		return ""
	}
	if n.Tag == "!!null" {
		return ""
	}
	return n.Value
}

// message fills in a message of the API from a mapping.
func (m *mistakes) message(n *yaml.Node, path string, msg protoreflect.Message) {
	fields := msg.Descriptor().Fields()
	m.pairs(n, path, func(key, value *yaml.Node) {
		fd := fields.ByTextName(key.Value)
		if fd == nil {
			fd = fields.ByJSONName(key.Value)
		}
		if fd == nil {
			m.add(key, "use one of "+fieldNames(fields), "unknown key %q in %s", key.Value, path)
			return
		}
		if msg.Has(fd) {
			m.add(key, "leave one of them out", "key %q is there twice", key.Value)
			return
		}
		if value.Tag == "!!null" {
			return
		}
		m.field(value, path+"."+string(fd.Name()), msg, fd)
	})
}

func (m *mistakes) field(n *yaml.Node, path string, msg protoreflect.Message, fd protoreflect.FieldDescriptor) {
	if !fd.IsList() {
		if fd.Message() != nil && fd.Message().FullName() == "google.protobuf.Duration" {
			m.duration(n, path, msg, fd)
		} else if fd.Kind() == protoreflect.MessageKind {
			m.message(n, path, msg.Mutable(fd).Message())
		} else if v, ok := m.scalar(n, path, fd); ok {
			msg.Set(fd, v)
		}
		return
	}
	if n.Kind != yaml.SequenceNode {
		m.add(n, "write a list: [a, b]", "%s is not a list", path)
		return
	}
	list := msg.Mutable(fd).List()
	for i, item := range n.Content {
		at := fmt.Sprintf("%s[%d]", path, i)
		if fd.Kind() == protoreflect.MessageKind {
			m.message(item, at, list.AppendMutable().Message())
		} else if v, ok := m.scalar(resolve(item), at, fd); ok {
			list.Append(v)
		}
	}
}

// duration is a time as the flags take it.
func (m *mistakes) duration(n *yaml.Node, path string, msg protoreflect.Message, fd protoreflect.FieldDescriptor) {
	d, err := time.ParseDuration(m.text(n, path))
	if err != nil {
		m.add(n, "write a time such as 12h or 90m", "%s is %q", path, n.Value)
		return
	}
	msg.Set(fd, protoreflect.ValueOfMessage(durationpb.New(d).ProtoReflect()))
}

func (m *mistakes) scalar(n *yaml.Node, path string, fd protoreflect.FieldDescriptor) (protoreflect.Value, bool) {
	var none protoreflect.Value
	if n.Kind != yaml.ScalarNode {
		m.add(n, "write one value", "%s is not a single value", path)
		return none, false
	}
	switch fd.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(n.Value), true
	case protoreflect.BoolKind:
		if n.Value == "true" || n.Value == "false" {
			return protoreflect.ValueOfBool(n.Value == "true"), true
		}
		m.add(n, "write true or false", "%s is %q", path, n.Value)
	case protoreflect.Uint32Kind:
		v, err := strconv.ParseInt(n.Value, 10, 64)
		switch {
		case err == nil && v == 0 && fd.FullName() == "weft.v1.NetworkSpec.vni":
			m.add(n, "choose another, or leave it out to have one allocated", "%s: VNI 0 is outside 1..16777215", path)
		case err == nil && v >= 0 && v <= math.MaxUint32:
			return protoreflect.ValueOfUint32(uint32(v)), true
		default:
			m.add(n, "write a whole number that is not negative", "%s is %q", path, n.Value)
		}
	case protoreflect.EnumKind:
		if v, ok := enumValue(fd.Enum(), n.Value); ok {
			return protoreflect.ValueOfEnum(v), true
		}
		m.add(n, "use one of "+enumNames(fd.Enum()), "%s is %q", path, n.Value)
	default:
		m.add(n, "leave it out", "%s cannot be written in a manifest", path)
	}
	return none, false
}

// enumValue knows a value by the API's name and by its last word: UNKNOWN_UNICAST_FLOOD, flood.
func enumValue(ed protoreflect.EnumDescriptor, s string) (protoreflect.EnumNumber, bool) {
	for i := range ed.Values().Len() {
		v := ed.Values().Get(i)
		if s == string(v.Name()) || strings.ReplaceAll(s, "_", "-") == shortName(ed, v) {
			return v.Number(), true
		}
	}
	return 0, false
}

// shortName is a value's name without what all of the enum begin with, as flags have it: head-end.
func shortName(ed protoreflect.EnumDescriptor, v protoreflect.EnumValueDescriptor) string {
	prefix := string(ed.Values().Get(0).Name())
	prefix = prefix[:strings.LastIndexByte(prefix, '_')+1]
	for i := range ed.Values().Len() {
		for !strings.HasPrefix(string(ed.Values().Get(i).Name()), prefix) {
			prefix = prefix[:strings.LastIndexByte(strings.TrimSuffix(prefix, "_"), '_')+1]
		}
	}
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(string(v.Name()), prefix)), "_", "-")
}

func enumNames(ed protoreflect.EnumDescriptor) string {
	var all []string
	for i := range ed.Values().Len() {
		all = append(all, shortName(ed, ed.Values().Get(i)))
	}
	return strings.Join(all, ", ")
}

func fieldNames(fields protoreflect.FieldDescriptors) string {
	var all []string
	for i := range fields.Len() {
		all = append(all, string(fields.Get(i).Name()))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}
