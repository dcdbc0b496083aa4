package bench

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	streamL4Port = 5201
	streamChunk  = 1 << 20
	senderCore   = 0
	receiverCore = 1
)

// tcpStream is what one TCP stream (cubic) from a to b carries in the given time, in Gb/s of payload as the receiver
// counts it. The ends are pinned to one core each.
func tcpStream(a, b Workload, length time.Duration) (float64, error) {
	return tcpStreams(a, b, 1, length, 0)
}

// tcpStreams is tcpStream with several streams at once, and a limit on each in octets a second; 0 is none.
func tcpStreams(a, b Workload, streams int, length time.Duration, pace uint64) (float64, error) {
	var listener int
	if err := b.run(func() (err error) {
		listener, err = listen(b)
		return err
	}); err != nil {
		return 0, err
	}
	defer unix.Close(listener)

	type received struct {
		octets  int64
		elapsed time.Duration
		err     error
	}
	results, sent := make(chan received, streams), make(chan error, streams)
	for range streams {
		go func() {
			var r received
			r.err = b.run(func() error {
				if err := pin(receiverCore); err != nil {
					return err
				}
				var err error
				r.octets, r.elapsed, err = receive(listener)
				return err
			})
			results <- r
		}()
		go func() {
			sent <- a.run(func() error {
				if err := pin(senderCore); err != nil {
					return err
				}
				return send(a, b, length, pace)
			})
		}()
	}
	var errs []error
	var gbps float64
	for range streams {
		if err := <-sent; err != nil {
			errs = append(errs, err)
			// A receiver may still wait for a connection that never came.
			unix.Shutdown(listener, unix.SHUT_RDWR)
		}
	}
	for range streams {
		r := <-results
		errs = append(errs, r.err)
		gbps += float64(r.octets) * 8 / r.elapsed.Seconds() / 1e9
	}
	if err := errors.Join(errs...); err != nil {
		return 0, err
	}
	return gbps, nil
}

func listen(b Workload) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open receiver: %w", err)
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, "cubic"),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20}),
		unix.Bind(fd, &unix.SockaddrInet4{Port: streamL4Port, Addr: b.Addr.As4()}),
		unix.Listen(fd, 16))
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("listen on %s: %w", b.Addr, err)
	}
	return fd, nil
}

func receive(listener int) (int64, time.Duration, error) {
	fd, err := retry(func() (int, error) {
		fd, _, err := unix.Accept(listener)
		return fd, err
	})
	if err != nil {
		return 0, 0, fmt.Errorf("accept the stream: %w", err)
	}
	defer unix.Close(fd)
	buf := make([]byte, streamChunk)
	var octets int64
	start := time.Now()
	for {
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, 0, fmt.Errorf("receive the stream: %w", err)
		}
		if n == 0 {
			return octets, time.Since(start), nil
		}
		octets += int64(n)
	}
}

func send(a, b Workload, length time.Duration, pace uint64) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open sender: %w", err)
	}
	defer unix.Close(fd)
	err = errors.Join(
		unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, "cubic"),
		unix.Connect(fd, &unix.SockaddrInet4{Port: streamL4Port, Addr: b.Addr.As4()}),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 10})) // after it: a signal breaks a wait with a limit
	if err != nil {
		return fmt.Errorf("connect %s to %s: %w", a.Addr, b.Addr, err)
	}
	chunk := streamChunk
	if pace > 0 {
		if err := unix.SetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE, pace); err != nil {
			return fmt.Errorf("limit the stream: %w", err)
		}
		chunk = 1 << 16 // what is in flight when the time is over counts, and is to be little
	}
	buf := make([]byte, chunk)
	for end := time.Now().Add(length); time.Now().Before(end); {
		if _, err := unix.Write(fd, buf); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("send the stream: %w", err)
		}
	}
	return nil
}
