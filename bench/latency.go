package bench

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	latencyL4Port = 7
	latencyOctets = 64
	latencyWarmup = 200
)

// percentiles of a latency sample.
var percentiles = []float64{0.50, 0.99, 0.999}

// requestResponse sends n requests of 64 octets in UDP from a to b, each after the answer to the one before, and gives the
// percentiles of the times in microseconds. Each end is a thread of its own, pinned to its core; where both have the same, what
// is measured is the path and two switches of threads.
func requestResponse(a, b Workload, n, coreA, coreB int) ([]float64, error) {
	var server int
	if err := b.run(func() (err error) {
		server, err = datagramSocket(b, latencyL4Port)
		return err
	}); err != nil {
		return nil, err
	}
	defer unix.Close(server)
	echoed := make(chan error, 1)
	go func() {
		echoed <- b.run(func() error {
			if err := pin(coreB); err != nil {
				return err
			}
			return echo(server, n+latencyWarmup)
		})
	}()
	var took []time.Duration
	err := a.run(func() error {
		if err := pin(coreA); err != nil {
			return err
		}
		client, err := datagramSocket(a, 0)
		if err != nil {
			return err
		}
		defer unix.Close(client)
		if err := unix.Connect(client, &unix.SockaddrInet4{Port: latencyL4Port, Addr: b.Addr.As4()}); err != nil {
			return fmt.Errorf("connect %s to %s: %w", a.Addr, b.Addr, err)
		}
		took, err = ask(client, n)
		return err
	})
	if err := errors.Join(err, <-echoed); errors.Is(err, unix.EAGAIN) {
		return nil, fmt.Errorf("%w: request and response: %w", errLost, err)
	} else if err != nil {
		return nil, fmt.Errorf("request and response: %w", err)
	}
	slices.Sort(took)
	values := make([]float64, len(percentiles))
	for i, p := range percentiles {
		values[i] = float64(took[min(len(took)-1, int(p*float64(len(took))))].Nanoseconds()) / 1000
	}
	return values, nil
}

func datagramSocket(w Workload, l4port int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open socket: %w", err)
	}
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}),
		unix.Bind(fd, &unix.SockaddrInet4{Port: l4port, Addr: w.Addr.As4()}))
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("bind %s: %w", w.Addr, err)
	}
	return fd, nil
}

func ask(fd, n int) ([]time.Duration, error) {
	took := make([]time.Duration, 0, n)
	buf := make([]byte, latencyOctets)
	for i := range n + latencyWarmup {
		start := time.Now()
		if _, err := unix.Write(fd, buf); err != nil {
			return nil, fmt.Errorf("request %d: %w", i, err)
		}
		if _, err := retry(func() (int, error) { return unix.Read(fd, buf) }); err != nil {
			return nil, fmt.Errorf("answer to request %d: %w", i, err)
		}
		if i >= latencyWarmup {
			took = append(took, time.Since(start))
		}
	}
	return took, nil
}

func echo(fd, n int) error {
	buf := make([]byte, latencyOctets)
	for i := range n {
		var from unix.Sockaddr
		got, err := retry(func() (got int, err error) {
			got, from, err = unix.Recvfrom(fd, buf, 0)
			return got, err
		})
		if err != nil {
			return fmt.Errorf("request %d does not arrive: %w", i, err)
		}
		if err := unix.Sendto(fd, buf[:got], 0, from); err != nil {
			return fmt.Errorf("answer request %d: %w", i, err)
		}
	}
	return nil
}

// retry repeats a call that a signal interrupted.
func retry(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
