package agent

// writeBatch entries are written at once; while that is done the next are worked out.
const writeBatch = 1 << 13

// writer puts many entries in a table of the kernel, beside the loop that works them out. The zero one has nothing to write.
type writer[T any] struct {
	// write puts entries in the kernel; done is told in the loop of each that is there, or why it is not.
	write func([]T) error
	done  func(T, error)

	put []T
	// under is being written; written is told how that went.
	under   []T
	written chan error
	failed  int
}

// add takes an entry that is to be written.
func (w *writer[T]) add(item T) {
	if w.put = append(w.put, item); len(w.put) == writeBatch {
		w.start()
	}
}

// start writes what there is beside the loop, once that before it is written.
func (w *writer[T]) start() {
	spare := w.under[:0]
	w.settle()
	w.under, w.put = w.put, spare
	w.written = make(chan error, 1)
	go func(list []T, written chan error) { written <- w.write(list) }(w.under, w.written)
}

// settle waits for what is being written.
func (w *writer[T]) settle() {
	if w.written != nil {
		settle(w.under, <-w.written, &w.failed, w.write, w.done)
		w.written = nil
	}
}

// end writes the rest, and returns when all is written.
func (w *writer[T]) end() {
	w.settle()
	if len(w.put) > 0 {
		settle(w.put, w.write(w.put), &w.failed, w.write, w.done)
	}
}
