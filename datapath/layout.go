package datapath

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// layoutHash names a layout: every map's kind, sizes and flags, and every field of its key and value. Programs of one
// layout may be exchanged over the same maps; another layout is another directory.
func layoutHash(spec *ebpf.CollectionSpec) string {
	sum := sha256.New()
	names := make([]string, 0, len(spec.Maps))
	for name := range spec.Maps {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		m := spec.Maps[name]
		if !shared(name) {
			continue
		}
		fmt.Fprintf(sum, "%s %s %d %d %d %d ", name, m.Type, m.KeySize, m.ValueSize, m.MaxEntries, m.Flags)
		describe(sum, m.Key, 0)
		describe(sum, m.Value, 0)
		fmt.Fprintln(sum)
	}
	return hex.EncodeToString(sum.Sum(nil)[:8])
}

// shared reports whether a map outlives its programs: all do but the compiler's own sections.
func shared(name string) bool { return name[0] != '.' }

func describe(w interface{ Write([]byte) (int, error) }, t btf.Type, depth int) {
	if t == nil || depth > 8 { // our layouts are three deep
		return
	}
	t = btf.UnderlyingType(t)
	switch t := t.(type) {
	case *btf.Struct:
		for _, m := range t.Members {
			fmt.Fprintf(w, "%s@%d{", m.Name, m.Offset)
			describe(w, m.Type, depth+1)
			fmt.Fprint(w, "}")
		}
	case *btf.Array:
		fmt.Fprintf(w, "[%d]", t.Nelems)
		describe(w, t.Type, depth+1)
	case *btf.Enum:
		fmt.Fprintf(w, "enum%d", t.Size)
	default:
		fmt.Fprint(w, t.TypeName())
	}
}
