package guest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// again is how long an answer may take before the request is sent once more: while the guest boots, nobody reads the port.
const again = time.Second

// Ask sends a request over the socket of a guest's serial port, until it is answered or ctx ends.
func Ask(ctx context.Context, socket string, r Request) (Report, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return Report{}, fmt.Errorf("ask the guest to %s: %w", r.Do, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	lines := bufio.NewReader(conn)
	var part []byte
	// Not a number that somebody before may have used and whose answer is still on the way.
	for r.ID = int(time.Now().UnixNano() & (1<<40 - 1)); ; r.ID++ {
		a, err := r.ask(conn, lines, &part)
		if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil {
			continue
		}
		if err == nil && a.Error != "" {
			err = errors.New(a.Error)
		}
		if err != nil {
			return a.Report, fmt.Errorf("ask the guest to %s: %w", r.Do, errors.Join(context.Cause(ctx), err))
		}
		return a.Report, nil
	}
}

// ask sends once and waits for the answer. part is a line whose end has not come yet.
func (r Request) ask(conn net.Conn, lines *bufio.Reader, part *[]byte) (a Answer, err error) {
	b, err := json.Marshal(r)
	if err != nil {
		return a, err
	}
	if _, err := conn.Write(append([]byte{'\n'}, append(b, '\n')...)); err != nil {
		return a, err
	}
	deadline := time.Now().Add(again)
	for {
		if err := conn.SetReadDeadline(deadline); err != nil {
			return a, err
		}
		got, err := lines.ReadBytes('\n')
		*part = append(*part, got...)
		if err != nil {
			return a, err
		}
		line := *part
		*part = nil
		var a Answer
		if json.Unmarshal(line, &a) == nil && a.ID == r.ID {
			return a, nil
		}
	}
}
