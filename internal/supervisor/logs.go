package supervisor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"preforkd/internal/config"
	"preforkd/internal/ipc"
	"preforkd/internal/ipc/activation"
)

// logFile is where the log goes: a file that USR1 opens anew, or standard error.
type logFile struct {
	path string
	mu   sync.Mutex // guards file
	file *os.File
}

// Write writes one record. A record that cannot be written is lost: there is nowhere
// to say so.
func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Write(p)
}

// Reopen opens the path again, for programs that rotate logs by renaming. When that
// is not possible the old file stays.
func (l *logFile) Reopen() error {
	if l.path == "" {
		return nil
	}
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		l.file.Close()
	}
	l.file = f
	return nil
}

// Close closes the file; standard error stays open.
func (l *logFile) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.path != "" && l.file != nil {
		l.file.Close()
	}
}

// openLog makes the logger that the settings ask for.
func (s *Supervisor) openLog() error {
	s.logs = &logFile{path: s.cfg.Log.File, file: os.Stderr}
	if fd, ok := s.opts.Main.heldFD(ipc.KeptStderr); ok && s.opts.Main.succeeds() {
		if own, err := activation.Duplicate(fd); err == nil { // standard error is the predecessor's to read
			s.logs.file = os.NewFile(uintptr(own), "standard error")
		}
	}
	if s.logs.path != "" {
		s.logs.file = nil
	}
	if err := s.logs.Reopen(); err != nil {
		f := &ipc.Failure{
			Exit: ipc.ExitUnavailable, What: "log.file: " + err.Error(), Err: err,
			Try: "set log.file to a file that can be written, or remove it to log to standard error",
		}
		if errors.Is(err, fs.ErrPermission) {
			f.Exit = ipc.ExitPermission
		}
		return f
	}
	s.level.Set(levelOf(s.cfg.Log))
	options := &slog.HandlerOptions{Level: &s.level}
	s.log = slog.New(slog.NewTextHandler(s.logs, options))
	if s.cfg.Log.Format == "json" {
		s.log = slog.New(slog.NewJSONHandler(s.logs, options))
	}
	return nil
}

func levelOf(c config.Log) (level slog.Level) {
	_ = level.UnmarshalText([]byte(c.Level)) // checked when it was read
	return level
}

// record is a worker's line that is a record of log/slog's JSON handler itself.
type record struct {
	level slog.Level
	msg   string
	attrs map[string]any
}

// parseRecord reads such a line; any other is no record.
func parseRecord(line string) (record, bool) {
	var r record
	if !strings.HasPrefix(line, "{") {
		return r, false
	}
	d := json.NewDecoder(bytes.NewReader([]byte(line)))
	d.UseNumber()
	if d.Decode(&r.attrs) != nil {
		return r, false
	}
	msg, hasMsg := r.attrs[slog.MessageKey].(string)
	level, hasLevel := r.attrs[slog.LevelKey].(string)
	if !hasMsg || !hasLevel || r.level.UnmarshalText([]byte(level)) != nil {
		return r, false
	}
	r.msg = msg
	for _, key := range []string{slog.MessageKey, slog.LevelKey, slog.TimeKey, "slot", "pid"} {
		delete(r.attrs, key)
	}
	return r, true
}

// plain returns a worker's line as a person reads it.
func plain(line string) string {
	r, ok := parseRecord(line)
	if !ok {
		return line
	}
	var b strings.Builder
	b.WriteString(r.msg)
	for _, key := range slices.Sorted(maps.Keys(r.attrs)) {
		fmt.Fprintf(&b, " %s=%v", key, r.attrs[key])
	}
	return b.String()
}

// relay writes a worker's line into the log. A line that is a record of its own keeps
// its level and its keys, and is not wrapped in a second one.
func (s *Supervisor) relay(w *worker, pid int, line string) {
	attrs := []slog.Attr{slog.String("pool", w.slot.pool.name), slog.Int("slot", w.slot.index), slog.Int("pid", pid)}
	r, ok := parseRecord(line)
	if !ok {
		s.log.LogAttrs(context.Background(), slog.LevelInfo, "worker output", append(attrs, slog.String("line", line))...)
		return
	}
	for _, key := range slices.Sorted(maps.Keys(r.attrs)) {
		attrs = append(attrs, slog.Any(key, r.attrs[key]))
	}
	s.log.LogAttrs(context.Background(), r.level, r.msg, attrs...)
}
