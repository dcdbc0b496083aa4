package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// Migration is what QEMU says about one that is done.
type Migration struct {
	// Downtime that the source reports, and the whole time that the migration took.
	Downtime, Total time.Duration
	// Stopped on the source and Resumed on the target, by the clock of this machine.
	Stopped, Resumed time.Time
	// Octets that were sent.
	Octets uint64
}

// announcements of a machine that has arrived: QEMU sends RARP frames in its name, and has the guest announce itself. The first goes
// when the machine runs, the others are for those who missed it. Milliseconds.
const (
	AnnounceRounds  = 3
	announceInitial = 10
	announceStep    = 20
	announceMax     = 100
)

const (
	// downtimeLimit in milliseconds that QEMU aims at; bandwidth in octets a second, as good as unlimited.
	downtimeLimit = 20
	bandwidth     = 4 << 30
)

// Listen has a machine that was started as incoming wait for a migration at an address of its host, and returns where.
func Listen(ctx context.Context, target *Monitor, at netip.Addr) (netip.AddrPort, error) {
	if err := agree(ctx, target); err != nil {
		return netip.AddrPort{}, err
	}
	uri := "tcp:" + net.JoinHostPort(at.String(), "0")
	if err := target.Execute(ctx, "migrate-incoming", map[string]string{"uri": uri}, nil); err != nil {
		return netip.AddrPort{}, err
	}
	var status migrationStatus
	if err := target.Execute(ctx, "query-migrate", nil, &status); err != nil {
		return netip.AddrPort{}, err
	}
	if len(status.Sockets) == 0 {
		return netip.AddrPort{}, errors.New("QEMU does not say where it waits for a migration")
	}
	return netip.ParseAddrPort(net.JoinHostPort(at.String(), status.Sockets[0].Port))
}

// migrationStatus is of query-migrate what is used here.
type migrationStatus struct {
	Status    string `json:"status"`
	ErrorDesc string `json:"error-desc"`
	Total     int64  `json:"total-time"` // milliseconds
	Downtime  int64  `json:"downtime"`
	RAM       struct {
		Transferred uint64 `json:"transferred"`
	} `json:"ram"`
	Sockets []struct {
		Port string `json:"port"`
	} `json:"socket-address"`
}

// agree sets what both ends of a migration must have set. With a return path the source's downtime lasts until the target has all of it.
// Memory that both have as the same file is not copied; other memory is.
func agree(ctx context.Context, m *Monitor) error {
	capabilities := []map[string]any{{"capability": "events", "state": true}, {"capability": "return-path", "state": true},
		{"capability": "x-ignore-shared", "state": true}}
	if err := m.Execute(ctx, "migrate-set-capabilities", map[string]any{"capabilities": capabilities}, nil); err != nil {
		return err
	}
	return m.Execute(ctx, "migrate-set-parameters", map[string]any{"downtime-limit": downtimeLimit, "max-bandwidth": uint64(bandwidth),
		"announce-initial": announceInitial, "announce-step": announceStep, "announce-max": announceMax, "announce-rounds": AnnounceRounds}, nil)
}

// Migrate moves a running machine to where another listens, and returns when it runs there. resumed, if not nil, is called as soon as the
// target says so: that is the hypervisor's event. After an error the machine runs at the source, unless the target has resumed it.
func Migrate(ctx context.Context, source, target *Monitor, to netip.AddrPort, resumed func() error) (Migration, error) {
	if err := agree(ctx, source); err != nil {
		return Migration{}, err
	}
	source.forget()
	if err := source.Execute(ctx, "migrate", map[string]string{"uri": "tcp:" + to.String()}, nil); err != nil {
		return Migration{}, err
	}
	// Whichever comes first says how it went: the target's resumption, or the source's failure.
	sub, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, 1)
	go func() {
		_, err := source.Await(sub, "the migration fails", inStatus("failed", "cancelled"))
		failed <- err
		if err == nil {
			cancel()
		}
	}()
	event, err := target.Await(sub, "the machine resumes on the target", Named("RESUME"))
	if err != nil {
		cancel()
		if <-failed == nil {
			err = failure(ctx, source)
		}
		return Migration{}, err
	}
	var told error
	if resumed != nil {
		told = resumed()
	}
	m := Migration{Resumed: event.At}
	return m, errors.Join(told, m.finish(ctx, source))
}

// finish waits for the source's end of it.
func (m *Migration) finish(ctx context.Context, source *Monitor) error {
	if _, err := source.Await(ctx, "the source has completed", inStatus("completed")); err != nil {
		return err
	}
	stopped, err := source.Await(ctx, "the machine stops on the source", Named("STOP"))
	if err != nil {
		return err
	}
	status, err := account(ctx, source)
	if err != nil {
		return err
	}
	m.Stopped, m.Octets = stopped.At, status.RAM.Transferred
	m.Downtime, m.Total = time.Duration(status.Downtime)*time.Millisecond, time.Duration(status.Total)*time.Millisecond
	return nil
}

// account asks the source for what it counted, which it does a little after it has told of its end.
func account(ctx context.Context, source *Monitor) (status migrationStatus, err error) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if err := source.Execute(ctx, "query-migrate", nil, &status); err != nil || status.Total > 0 {
			return status, err
		}
		select {
		case <-ctx.Done():
			return status, fmt.Errorf("wait until the source has counted: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

func failure(ctx context.Context, source *Monitor) error {
	var status migrationStatus
	if err := source.Execute(ctx, "query-migrate", nil, &status); err != nil {
		return fmt.Errorf("the migration failed: %w", err)
	}
	return fmt.Errorf("the migration %s: %s", status.Status, status.ErrorDesc)
}

// inStatus takes the source's events that say how the migration is.
func inStatus(list ...string) func(Event) bool {
	return func(e Event) bool {
		var d struct {
			Status string `json:"status"`
		}
		if e.Name != "MIGRATION" || json.Unmarshal(e.Data, &d) != nil {
			return false
		}
		for _, s := range list {
			if d.Status == s {
				return true
			}
		}
		return false
	}
}
