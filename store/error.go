package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weftnet/weft/model"
)

// UnavailableError says that etcd did not answer, or has no quorum. Nothing was done, unless it stands in an UnknownError.
type UnavailableError struct {
	Endpoints []string
	Tried     time.Duration
	Err       error
}

// Error names the endpoints and how long they were tried.
func (e *UnavailableError) Error() string {
	return fmt.Sprintf("the store (etcd at %s) gave no answer in %s: %v; check that it runs and has a quorum",
		strings.Join(e.Endpoints, ", "), e.Tried.Round(time.Millisecond), e.Err)
}

// Unwrap is the cause.
func (e *UnavailableError) Unwrap() error { return e.Err }

// UnknownError says that a write may have been done, or may yet be: its answer was lost, and the store could not be asked.
type UnknownError struct {
	// What was to be done to what: "create port acme/web1".
	What string
	// Err is an *UnavailableError.
	Err error
}

// Error says what is not known, and why.
func (e *UnknownError) Error() string {
	return fmt.Sprintf("whether this was done is not known (%s): %v", e.What, e.Err)
}

// Unwrap is the cause.
func (e *UnknownError) Unwrap() error { return e.Err }

// InUseError says that another process has the embedded store open.
type InUseError struct {
	Dir string
	// PID of that process, if it is known.
	PID string
}

// Error says what to do.
func (e *InUseError) Error() string {
	by := "another process"
	if e.PID != "" {
		by = "process " + e.PID
	}
	return fmt.Sprintf("the store in %s is in use by %s: stop that server first, or give this one a directory of its own", e.Dir, by)
}

// InterruptedError says that a restore began and did not end: what is there is a part. Only Restore works until one ends.
type InterruptedError struct{ Since time.Time }

// Error says what to do.
func (e *InterruptedError) Error() string {
	return fmt.Sprintf("a restore that began at %s is under way or was interrupted, and the store holds only a part: run the restore again",
		e.Since.UTC().Format(time.RFC3339))
}

// failure says what an error of etcd means to a user. Errors of our own pass.
func (s *Store) failure(err error, began time.Time) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, rpctypes.ErrNoSpace):
		s.kick()
		return model.Errorf(model.Exhausted, "", "old history is being removed to make room: try again in a minute; if it stays full, delete what is not needed or raise the quota",
			"the store has reached its quota and takes no more writes")
	case errors.Is(err, rpctypes.ErrTooManyOps):
		return model.Errorf(model.Exhausted, "spec", "use fewer, or raise --max-txn-ops of the etcd cluster",
			"the object has more addresses, VTEPs or hosts than one etcd transaction takes")
	case errors.Is(err, rpctypes.ErrRequestTooLarge), status.Code(err) == codes.ResourceExhausted:
		return model.Errorf(model.Exhausted, "spec", "make it smaller", "the object does not fit into one etcd request (1.5 MiB)")
	case errors.Is(err, context.Canceled) && s.ctx.Err() != nil:
		return errors.New("the store is closed")
	case away(err):
		return &UnavailableError{Endpoints: s.endpoints(), Tried: time.Since(began), Err: err}
	}
	return err
}

// away says whether an error means that no answer came, or that there is no quorum to give one.
func away(err error) bool {
	var e rpctypes.EtcdError
	if errors.As(err, &e) {
		return e.Code() == codes.Unavailable || e.Code() == codes.DeadlineExceeded
	}
	return errors.Is(err, context.DeadlineExceeded) || status.Code(err) == codes.DeadlineExceeded ||
		status.Code(err) == codes.Unavailable
}
