package store

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weftnet/weft/model"
)

const (
	// restoreOps and restoreOctets bound one transaction of a restore, below etcd's defaults.
	restoreOps    = 100
	restoreOctets = 512 << 10
)

// Restore replaces everything by a backup, under a new store id and with revisions above all that were handed out, and
// returns how many records it wrote. A file that is truncated, damaged or none of weft's is refused before anything
// changes. Every Watch gets a Reset. A restore that does not reach its end leaves a store that refuses everything but
// another Restore, with an *InterruptedError.
func (s *Store) Restore(ctx context.Context, r io.Reader) (int, error) {
	file, header, err := s.spool(r)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	v, err := s.peek(ctx)
	if err != nil {
		return 0, err
	}
	next := meta{
		ID: string(newUID()), Format: metaFormat, Restoring: time.Now().UTC(),
		Base: int64(max(v.meta.revision(v.rev), header.Revision)) + revisionGap,
	}
	e := v.edit("", "")
	e.quiet = true
	e.put(s.keys.meta(), next)
	e.removeBelow(s.keys.root())
	if next.mod, err = s.step(ctx, e); err != nil {
		return 0, err
	}
	n, err := s.refill(ctx, next, file)
	if err != nil {
		return n, fmt.Errorf("the restore stopped after %d records, and the store holds only those: run it again: %w", n, err)
	}
	began := next.Restoring
	next.Restoring = time.Time{}
	e = &edit{meta: next, what: "restore", object: fmt.Sprintf("backup of store %s at revision %d", header.StoreID, header.Revision)}
	e.put(s.keys.meta(), next)
	if _, err := s.step(ctx, e); err != nil {
		return n, fmt.Errorf("the restore that began at %s did not end: run it again: %w", began.Format(time.RFC3339), err)
	}
	_, err = s.look(ctx) // learn the new id
	s.kick()
	return n, err
}

// step commits an edit of the restore; it returns etcd's revision. Somebody else's restore is the only thing that can come
// in between.
func (s *Store) step(ctx context.Context, e *edit) (int64, error) {
	rev, done, err := s.commit(ctx, e)
	if err == nil && !done {
		err = model.Errorf(model.Conflict, "", "let one of them end, and look which one it was", "another restore runs at the same time")
	}
	return int64(rev) - e.meta.Base, err
}

// refill writes the records of a checked backup.
func (s *Store) refill(ctx context.Context, m meta, file io.Reader) (int, error) {
	b := newBackupReader(file)
	if _, err := b.header(); err != nil {
		return 0, err
	}
	n, octets := 0, 0
	e := &edit{meta: m, quiet: true}
	flush := func() error {
		if len(e.ops) == 0 {
			return nil
		}
		if _, err := s.step(ctx, e); err != nil {
			return err
		}
		n += len(e.ops)
		e, octets = &edit{meta: m, quiet: true}, 0
		return nil
	}
	for {
		r, err := b.record()
		if err != nil {
			return n, err
		}
		if r == nil {
			return n, flush()
		}
		if len(e.ops) == restoreOps || octets+len(r.Value) > restoreOctets {
			if err := flush(); err != nil {
				return n, err
			}
		}
		octets += len(r.Key) + len(r.Value)
		e.ops = append(e.ops, clientv3.OpPut(s.keys.prefix+"/"+r.Key, string(r.Value)))
	}
}

// spool copies a backup to a file without a name, which it returns at its start, and checks all of it.
func (s *Store) spool(r io.Reader) (_ *os.File, header backupHeader, err error) {
	dir := ""
	if s.etcd != nil {
		dir = s.cfg.Dir
	}
	file, err := os.CreateTemp(dir, "restore-") // mode 0600
	if err != nil {
		return nil, header, fmt.Errorf("keep the backup while it is checked: %w", err)
	}
	defer func() {
		if err != nil {
			file.Close()
		}
	}()
	if err := os.Remove(file.Name()); err != nil {
		return nil, header, fmt.Errorf("keep the backup while it is checked: %w", err)
	}
	if _, err := io.Copy(file, r); err != nil {
		return nil, header, fmt.Errorf("read the backup: %w", err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, header, fmt.Errorf("read the backup: %w", err)
	}
	b := newBackupReader(file)
	if header, err = b.header(); err != nil {
		return nil, header, err
	}
	for {
		rec, err := b.record()
		if err != nil {
			return nil, header, err
		}
		if rec == nil {
			break
		}
		// What this version could not read later is refused now.
		if _, _, err := s.change(meta{}, &keyValue{Key: []byte(s.keys.prefix + "/" + rec.Key), Value: rec.Value}); err != nil {
			return nil, header, badBackup("record %d: %v", b.n, err)
		}
	}
	if b.n == 0 {
		return nil, header, badBackup("it holds nothing")
	}
	_, err = file.Seek(0, io.SeekStart)
	return file, header, err
}
