package lab

// SpineCounters are the packets that each spine has received for a host's leaf from all other leaves: what it sent to that
// leaf, by its own interface counter.
func (l *Lab) SpineCounters(host int) ([]uint64, error) {
	counts := make([]uint64, l.cfg.Spines)
	for s := range counts {
		h, err := l.Node(spineName(s + 1))
		if err != nil {
			return nil, err
		}
		st, err := h.Stats("to-" + leafName(host))
		if err != nil {
			return nil, err
		}
		counts[s] = st.TxPackets
	}
	return counts, nil
}
