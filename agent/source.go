package agent

import (
	"context"
	"path/filepath"
	"sync"

	"github.com/weftnet/weft/trust"
)

// source is where an agent's plan comes from, and who is asked and told. What it brings enters the loop as planv1.Updates; all that comes
// after, the comparison with the kernel, files, interfaces, socket, is the same for every source.
type source interface {
	server
	// open makes the source ready and says which host this is, by its uid. It touches nothing but the agent's directory, and may wait.
	open(ctx context.Context, loop listener) (uid string, err error)
	// begin is called once, when the kernel's tables are read and before anything is compared with them; there is no loop yet. What it
	// starts ends with the context, and tasks waits for it.
	begin(ctx context.Context, a *Agent, tasks *sync.WaitGroup) error
	// run brings the plan until the context ends.
	run(ctx context.Context)
}

// served is the source of a host among others: servers, spoken to under the host's certificate.
type served struct {
	cfg Config
	*Speaker
	renewer *trust.Renewer
}

func (s *served) open(ctx context.Context, loop listener) (string, error) {
	id, err := join(ctx, s.cfg)
	if err != nil {
		return "", err
	}
	s.renewer = trust.NewRenewer(trust.RenewerConfig{
		Dir: filepath.Join(s.cfg.Dir, "identity"), Identity: id, Clock: s.cfg.Clock, Log: s.cfg.Log,
		Renew: func(ctx context.Context, csr []byte) ([][]byte, error) { return s.Renew(ctx, csr) },
	})
	s.Speaker = NewSpeaker(s.cfg.Servers, s.renewer.ClientTLS, loop, s.cfg.Log)
	return string(id.UID), nil
}

// begin goes on from the snapshot: the plan's next update comes when a server is there.
func (s *served) begin(ctx context.Context, a *Agent, tasks *sync.WaitGroup) error {
	if err := a.startProbes(ctx, tasks); err != nil {
		s.cfg.Log.Warn("the kernel lane cannot be proved", "err", err)
	}
	return nil
}

func (s *served) run(ctx context.Context) {
	var renewing sync.WaitGroup
	defer renewing.Wait()
	renewing.Go(func() {
		if err := s.renewer.Run(ctx); err != nil {
			s.cfg.Log.Error("the host's certificate ended; forwarding goes on, but no server will listen", "err", err)
		}
	})
	s.Speaker.Run(ctx)
}
