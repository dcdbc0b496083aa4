package agent

// portIndex finds ports by something that many of them share: their network, or their VTEP. Each port knows its place in the list that it
// is in, so that a list costs little memory and a port comes and goes in no time.
type portIndex struct {
	of map[string][]*port
	// which of a port's places is this index's.
	which int
}

// The indexes.
const (
	byNetwork = iota
	byVTEP
	portIndexes
)

func newPortIndex(which int) portIndex { return portIndex{of: map[string][]*port{}, which: which} }

// add puts a port in, which is in no list of this index.
func (x portIndex) add(key string, p *port) {
	list := x.of[key]
	p.at[x.which] = int32(len(list))
	x.of[key] = append(list, p)
}

// remove takes a port out, if it is in that list.
func (x portIndex) remove(key string, p *port) {
	list, at := x.of[key], int(p.at[x.which])
	if at >= len(list) || list[at] != p {
		return
	}
	end := len(list) - 1
	moved := list[end]
	list[at], moved.at[x.which], list[end] = moved, int32(at), nil
	if x.of[key] = list[:end]; end == 0 {
		delete(x.of, key)
	}
}
