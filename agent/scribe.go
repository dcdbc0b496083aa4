package agent

import "sync"

// scribe writes a file beside whoever gives it what to write: the newest that it was given, one write at a time.
type scribe[T any] struct {
	write func(T) error

	mu      sync.Mutex
	next    T
	waiting []chan error
	busy    bool
	done    sync.WaitGroup
}

// put has something written that nobody changes any more. The channel tells when it, or something newer, is there. It never blocks.
func (s *scribe[T]) put(content T) <-chan error {
	s.mu.Lock()
	defer s.mu.Unlock()
	written := make(chan error, 1)
	s.next, s.waiting = content, append(s.waiting, written)
	if !s.busy {
		s.busy = true
		s.done.Go(s.run)
	}
	return written
}

func (s *scribe[T]) run() {
	for {
		s.mu.Lock()
		content, waiting := s.next, s.waiting
		s.waiting = nil
		s.busy = len(waiting) > 0
		s.mu.Unlock()
		if len(waiting) == 0 {
			return
		}
		err := s.write(content)
		for _, w := range waiting {
			w <- err
		}
	}
}

// wait returns when nothing is left to write.
func (s *scribe[T]) wait() { s.done.Wait() }
