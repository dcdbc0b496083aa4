package store

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestAway(t *testing.T) {
	for _, err := range []error{
		context.DeadlineExceeded, fmt.Errorf("get: %w", context.DeadlineExceeded), rpctypes.ErrNoLeader, rpctypes.ErrTimeout,
		rpctypes.ErrTimeoutDueToLeaderFail, rpctypes.ErrLeaderChanged, status.Error(codes.Unavailable, "connection refused"),
	} {
		if !away(err) {
			t.Errorf("%v means that no answer came", err)
		}
	}
	for _, err := range []error{rpctypes.ErrNoSpace, rpctypes.ErrTooManyOps, errors.New("x"), context.Canceled} {
		if away(err) {
			t.Errorf("%v is an answer", err)
		}
	}
}
