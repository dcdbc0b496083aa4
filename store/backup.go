package store

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/weftnet/weft/model"
)

// A backup is JSON, one value a line: a backupHeader, then backupRecords in the order of their keys, then a backupTrailer.
// It holds everything below v1/ at one revision: specs, bindings, allocations, the audit trail, and the hashes of API and
// join tokens. It does not hold the certificate authority's key, which never is in the store: that is a file of the server,
// to be kept apart. Bringing an old backup back also brings back what was deleted since, tokens included.

const (
	backupFormat  = "weft-backup"
	backupVersion = 1
	// backupLine bounds a line that is read: etcd takes no larger value, and JSON in JSON stays below this.
	backupLine = 4 << 20
)

type backupHeader struct {
	Format   string         `json:"format"`
	Version  int            `json:"version"`
	StoreID  string         `json:"store_id"`
	Revision model.Revision `json:"revision"`
	Created  time.Time      `json:"created"`
}

type backupRecord struct {
	Key   string          `json:"key"` // below the prefix
	Value json.RawMessage `json:"value"`
}

type backupTrailer struct {
	End *backupEnd `json:"end"`
}

type backupEnd struct {
	Records int `json:"records"`
	// SHA256 of all lines before this one, in hex.
	SHA256 string `json:"sha256"`
}

// Backup writes everything, as it is at one revision. It holds this server's compaction off meanwhile; if another server
// compacts what is being read, it fails, and what was written is no backup (it lacks its last line).
func (s *Store) Backup(ctx context.Context, w io.Writer) error {
	v, err := s.look(ctx)
	if err != nil {
		return err
	}
	defer s.pin(v.rev)()
	sum, out := sha256.New(), bufio.NewWriter(w)
	line := func(v any) error {
		b := append([]byte(encode(v)), '\n')
		sum.Write(b)
		_, err := out.Write(b)
		return err
	}
	err = line(backupHeader{
		Format: backupFormat, Version: backupVersion, StoreID: v.meta.ID, Revision: v.meta.revision(v.rev), Created: time.Now().UTC(),
	})
	if err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	n := 0
	err = s.scan(ctx, s.keys.root(), v.rev, func(kv *keyValue) error {
		n++
		return line(backupRecord{Key: strings.TrimPrefix(string(kv.Key), s.keys.prefix+"/"), Value: kv.Value})
	})
	if errors.Is(err, rpctypes.ErrCompacted) {
		return errors.New("another server compacted the history while the backup was read: try again")
	}
	if err == nil {
		err = line(backupTrailer{&backupEnd{Records: n, SHA256: hex.EncodeToString(sum.Sum(nil))}})
	}
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	return nil
}

// backupReader reads a backup line by line and checks it.
type backupReader struct {
	in  *bufio.Reader
	sum hash.Hash
	n   int
	// last key that was read: they ascend.
	last string
}

func newBackupReader(r io.Reader) *backupReader {
	return &backupReader{in: bufio.NewReaderSize(r, 64<<10), sum: sha256.New()}
}

func badBackup(format string, args ...any) error {
	return model.Errorf(model.Invalid, "backup", "give a whole file that `weft backup` wrote; nothing was changed", format, args...)
}

func (b *backupReader) line() ([]byte, error) {
	var line []byte
	for {
		part, err := b.in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > backupLine:
			return nil, badBackup("it is no backup of weft: line %d is too long", b.n+1)
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF):
			return nil, badBackup("it is truncated after %d records", b.n)
		case err != nil:
			return nil, fmt.Errorf("read the backup: %w", err)
		}
		return line, nil
	}
}

func (b *backupReader) header() (backupHeader, error) {
	var h backupHeader
	line, err := b.line()
	if err != nil {
		return h, err
	}
	if err := json.Unmarshal(line, &h); err != nil || h.Format != backupFormat {
		return h, badBackup("it is no backup of weft")
	}
	if h.Version != backupVersion {
		return h, badBackup("it has version %d, and this weft reads %d", h.Version, backupVersion)
	}
	b.sum.Write(line)
	return h, nil
}

// record is the next record, or nil after the last one, when count and sum were right and nothing follows.
func (b *backupReader) record() (*backupRecord, error) {
	line, err := b.line()
	if err != nil {
		return nil, err
	}
	var r struct {
		backupRecord
		backupTrailer
	}
	if err := json.Unmarshal(line, &r); err != nil {
		return nil, badBackup("record %d is not readable: %v", b.n+1, err)
	}
	if r.End != nil {
		return nil, b.finish(r.End)
	}
	switch {
	case !strings.HasPrefix(r.Key, "v1/") || len(r.Value) == 0:
		return nil, badBackup("record %d is none of weft's", b.n+1)
	case r.Key <= b.last:
		return nil, badBackup("record %d is out of order", b.n+1)
	}
	b.sum.Write(line)
	b.n++
	b.last = r.Key
	return &r.backupRecord, nil
}

func (b *backupReader) finish(end *backupEnd) error {
	if end.Records != b.n {
		return badBackup("it has %d records and says %d", b.n, end.Records)
	}
	if sum := hex.EncodeToString(b.sum.Sum(nil)); sum != end.SHA256 {
		return badBackup("its sum is not right: it was changed or damaged")
	}
	if _, err := b.in.ReadByte(); !errors.Is(err, io.EOF) {
		return badBackup("something follows its last line")
	}
	return nil
}
