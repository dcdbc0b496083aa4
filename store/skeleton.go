package store

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/weftnet/weft/model"
)

var errUnbuilt = errors.New("store: not built yet")

type Config struct {
	Dir          string
	Endpoints    []string
	TLS          *tls.Config
	QuotaOctets  int64
	CompactEvery time.Duration
	Prefix       string
	Log          *slog.Logger
}

type Store struct{}

type Event struct {
	Revision model.Revision
	Changes  []model.Change
	Reset    bool
	Err      error
}

type AuditRecord struct {
	Time   time.Time `json:"time"`
	Who    string    `json:"who"`
	What   string    `json:"what"`
	Object string    `json:"object"`
}

func WithActor(ctx context.Context, who string) context.Context { return ctx }

func Open(ctx context.Context, cfg Config) (*Store, error) { return nil, errUnbuilt }
func (s *Store) Close() error                              { return errUnbuilt }
func (s *Store) ID() string                                { return "" }
func (s *Store) Load(ctx context.Context) (*model.World, error) {
	return nil, errUnbuilt
}
func (s *Store) Watch(ctx context.Context, from model.Revision) <-chan Event { return nil }
func (s *Store) Revision(ctx context.Context) (model.Revision, error)        { return 0, errUnbuilt }
func (s *Store) CreateTenant(ctx context.Context, t *model.Tenant) error     { return errUnbuilt }
func (s *Store) UpdateTenant(ctx context.Context, t *model.Tenant) error     { return errUnbuilt }
func (s *Store) DeleteTenant(ctx context.Context, name string) (model.Revision, error) {
	return 0, errUnbuilt
}
func (s *Store) CreateNetwork(ctx context.Context, n *model.Network) error { return errUnbuilt }
func (s *Store) UpdateNetwork(ctx context.Context, n *model.Network) error { return errUnbuilt }
func (s *Store) DeleteNetwork(ctx context.Context, tenant, name string, now time.Time) (model.Revision, error) {
	return 0, errUnbuilt
}
func (s *Store) CreatePort(ctx context.Context, p *model.Port) error { return errUnbuilt }
func (s *Store) UpdatePort(ctx context.Context, p *model.Port) error { return errUnbuilt }
func (s *Store) DeletePort(ctx context.Context, tenant, name string, now time.Time) (model.Revision, error) {
	return 0, errUnbuilt
}
func (s *Store) PutBinding(ctx context.Context, b model.Binding, expected model.Epoch) (model.Binding, error) {
	return b, errUnbuilt
}
func (s *Store) CreateHost(ctx context.Context, h *model.Host) error { return errUnbuilt }
func (s *Store) UpdateHost(ctx context.Context, h *model.Host) error { return errUnbuilt }
func (s *Store) DeleteHost(ctx context.Context, name string, force bool, now time.Time) (model.Revision, []model.UID, error) {
	return 0, nil, errUnbuilt
}

// JoinHost creates the host and marks the token used in one transaction; the same CSR again gets the same host.
func (s *Store) JoinHost(ctx context.Context, h *model.Host, tokenID string, csrHash []byte, now time.Time) (*model.Host, error) {
	return nil, errUnbuilt
}
func (s *Store) PutFacts(ctx context.Context, f model.HostFacts) error { return errUnbuilt }
func (s *Store) CreateVTEP(ctx context.Context, v *model.VTEP) error   { return errUnbuilt }
func (s *Store) UpdateVTEP(ctx context.Context, v *model.VTEP) error   { return errUnbuilt }
func (s *Store) DeleteVTEP(ctx context.Context, name string, now time.Time) (model.Revision, error) {
	return 0, errUnbuilt
}
func (s *Store) CreatePool(ctx context.Context, p *model.VNIPool) error { return errUnbuilt }
func (s *Store) UpdatePool(ctx context.Context, p *model.VNIPool) error { return errUnbuilt }
func (s *Store) DeletePool(ctx context.Context, name string) (model.Revision, error) {
	return 0, errUnbuilt
}
func (s *Store) AcknowledgeVNIs(ctx context.Context, host model.UID, upTo model.Revision) error {
	return errUnbuilt
}
func (s *Store) CreateJoinToken(ctx context.Context, t *model.JoinToken) error { return errUnbuilt }
func (s *Store) GetJoinToken(ctx context.Context, id string) (*model.JoinToken, error) {
	return nil, errUnbuilt
}
func (s *Store) UseJoinToken(ctx context.Context, id string, host model.UID, csrHash []byte) error {
	return errUnbuilt
}
func (s *Store) PruneJoinTokens(ctx context.Context, now time.Time) (int, error) {
	return 0, errUnbuilt
}
func (s *Store) CreateAPIToken(ctx context.Context, t *model.APIToken) error { return errUnbuilt }
func (s *Store) APITokenByID(ctx context.Context, id string) (*model.APIToken, error) {
	return nil, errUnbuilt
}
func (s *Store) DeleteAPIToken(ctx context.Context, name string) (model.Revision, error) {
	return 0, errUnbuilt
}
func (s *Store) Audit(ctx context.Context, limit int) ([]AuditRecord, error) { return nil, errUnbuilt }
func (s *Store) PruneTombstones(ctx context.Context, before time.Time) (int, error) {
	return 0, errUnbuilt
}
func (s *Store) Size(ctx context.Context) (octets, quota int64, err error) { return 0, 0, errUnbuilt }
func (s *Store) Backup(ctx context.Context, w io.Writer) error             { return errUnbuilt }
func (s *Store) Restore(ctx context.Context, r io.Reader) (int, error)     { return 0, errUnbuilt }

type UnavailableError struct {
	Endpoints []string
	Tried     time.Duration
	Err       error
}

func (e *UnavailableError) Error() string { return "" }
func (e *UnavailableError) Unwrap() error { return e.Err }
