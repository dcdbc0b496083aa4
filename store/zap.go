package store

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"

	"go.uber.org/zap/zapcore"
)

// slogCore lets etcd, which logs through zap, write to a slog.Logger. etcd's chatter is demoted: what it calls info is debug
// here.
type slogCore struct {
	log *slog.Logger
	// chatter are messages that are debug here, whatever etcd thinks of them.
	chatter []string
	// quiet makes all of them debug while it is set; nil is never.
	quiet *atomic.Bool
}

func (c slogCore) level(e zapcore.Entry) slog.Level {
	if c.quiet != nil && c.quiet.Load() || slices.Contains(c.chatter, e.Message) {
		return slog.LevelDebug
	}
	return slogLevel(e.Level)
}

// Enabled asks the slog handler.
func (c slogCore) Enabled(l zapcore.Level) bool {
	return c.log.Enabled(context.Background(), slogLevel(l))
}

// With adds fields to every record.
func (c slogCore) With(fields []zapcore.Field) zapcore.Core {
	c.log = slog.New(c.log.Handler().WithAttrs(slogAttrs(fields)))
	return c
}

// Check takes the entry when its level is enabled.
func (c slogCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.log.Enabled(context.Background(), c.level(e)) {
		return ce.AddCore(e, c)
	}
	return ce
}

// Write passes the entry on.
func (c slogCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	r := slog.NewRecord(e.Time, c.level(e), e.Message, 0)
	r.AddAttrs(slogAttrs(fields)...)
	return c.log.Handler().Handle(context.Background(), r)
}

// Sync has nothing to do: slog handlers do not buffer.
func (slogCore) Sync() error { return nil }

func slogLevel(l zapcore.Level) slog.Level {
	switch {
	case l < zapcore.WarnLevel:
		return slog.LevelDebug
	case l < zapcore.ErrorLevel:
		return slog.LevelWarn
	default:
		return slog.LevelError
	}
}

func slogAttrs(fields []zapcore.Field) []slog.Attr {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		if f.Key == "error" {
			f.Key = "err"
		}
		f.AddTo(enc)
	}
	attrs := make([]slog.Attr, 0, len(enc.Fields))
	for _, k := range slices.Sorted(maps.Keys(enc.Fields)) {
		attrs = append(attrs, slog.Any(k, enc.Fields[k]))
	}
	return attrs
}
