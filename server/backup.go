package server

import (
	"context"
	"fmt"
	"io"

	"connectrpc.com/connect"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/model"
)

// backupChunk is the size of a backup's pieces.
const backupChunk = 256 << 10

// Backup implements weft.v1.
func (a *api) Backup(ctx context.Context, _ *connect.Request[weftv1.BackupRequest], stream *connect.ServerStream[weftv1.BackupResponse]) error {
	ctx, cancel := a.unlessStopping(ctx)
	defer cancel()
	out := &chunkWriter{send: func(b []byte) error { return stream.Send(&weftv1.BackupResponse{Chunk: b}) }}
	if err := a.store.Backup(ctx, out); err != nil {
		return err
	}
	return out.flush()
}

// chunkWriter gathers small writes into messages.
type chunkWriter struct {
	send func([]byte) error
	buf  []byte
}

func (c *chunkWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		take := min(len(p), backupChunk-len(c.buf))
		c.buf, p = append(c.buf, p[:take]...), p[take:]
		if len(c.buf) == backupChunk {
			if err := c.flush(); err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}

func (c *chunkWriter) flush() error {
	if len(c.buf) == 0 {
		return nil
	}
	err := c.send(c.buf)
	c.buf = c.buf[:0]
	return err
}

// Restore implements weft.v1. Streams of hosts go on: they are sent what differs, under the new store id.
func (a *api) Restore(ctx context.Context, stream *connect.ClientStream[weftv1.RestoreRequest]) (*connect.Response[weftv1.RestoreResponse], error) {
	ctx, cancel := a.unlessStopping(ctx)
	defer cancel()
	a.log.Warn("restoring a backup", "by", identityOf(ctx).String())
	objects, err := a.store.Restore(ctx, &chunkReader{stream: stream})
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	id := a.store.ID()
	wait, cancelWait := context.WithTimeout(ctx, catchUp)
	defer cancelWait()
	if err := a.view.waitStore(wait, id); err != nil {
		a.log.Warn("the restored store is slow to load", "err", err)
	}
	res := &weftv1.RestoreResponse{StoreId: id, Objects: uint32(objects)}
	a.view.read(func(w *model.World) { res.Revision = int64(w.Revision) })
	return connect.NewResponse(res), nil
}

// chunkReader reads a stream's messages as one.
type chunkReader struct {
	stream *connect.ClientStream[weftv1.RestoreRequest]
	rest   []byte
}

func (c *chunkReader) Read(p []byte) (int, error) {
	for len(c.rest) == 0 {
		if !c.stream.Receive() {
			if err := c.stream.Err(); err != nil {
				return 0, err
			}
			return 0, io.EOF
		}
		c.rest = c.stream.Msg().GetChunk()
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// unlessStopping is ctx that ends when the server stops.
func (a *api) unlessStopping(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(a.stopping, cancel)
	return ctx, func() { stop(); cancel() }
}
