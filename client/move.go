package client

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
)

// followTries is how often in a row a watch may break off without having brought anything new.
const followTries = 5

// errBrokeOff is a watch that the server ended before the move had.
var errBrokeOff = connect.NewError(connect.CodeUnavailable, errors.New("the server ended the watch before the move ended"))

// MoveEnded reports a move that is done or aborted: nothing more will become of it.
func MoveEnded(m *weftv1.Move) bool {
	return m.GetPhase() == weftv1.MovePhase_MOVE_PHASE_DONE || m.GetPhase() == weftv1.MovePhase_MOVE_PHASE_ABORTED
}

// FollowMove calls each with a port's last move as it is, and then each time it changes, until the move has ended or each returns false. A server
// that goes away meanwhile is replaced by another, or by itself when it is back: watching changes nothing, so it may be asked again. It blocks; it
// ends with ctx.
func (c *Client) FollowMove(ctx context.Context, tenant, port string, each func(*weftv1.Move) bool) error {
	var last *weftv1.Move
	for tries := 0; ; {
		generation := c.dialer.now()
		// A watch that begins again brings what is known already: that is no news, or a server that ends each watch would be asked for ever.
		news, ended, err := c.watchMove(ctx, tenant, port, func(m *weftv1.Move) (more, news bool) {
			if proto.Equal(m, last) {
				return true, false
			}
			last = m
			return each(m), true
		})
		if ended {
			return nil
		}
		if tries++; news {
			tries = 0
		}
		explained := Explain(err)
		if ctx.Err() != nil || explained.Code != connect.CodeUnavailable || tries == followTries {
			return explained
		}
		c.dialer.leave(generation)
		select {
		case <-ctx.Done():
			return explained
		case <-time.After(pause):
		}
	}
}

// watchMove is one stream. news tells that it brought something.
func (c *Client) watchMove(ctx context.Context, tenant, port string, each func(*weftv1.Move) (more, news bool)) (news, ended bool, err error) {
	stream, err := c.Ports.WatchMove(ctx, connect.NewRequest(&weftv1.WatchMoveRequest{Tenant: tenant, Name: port}))
	if err != nil {
		return false, false, err
	}
	defer stream.Close()
	for stream.Receive() {
		more, fresh := each(stream.Msg())
		news = news || fresh
		if !more || MoveEnded(stream.Msg()) {
			return news, true, nil
		}
	}
	if err := stream.Err(); err != nil {
		return news, false, err
	}
	return news, false, errBrokeOff
}
