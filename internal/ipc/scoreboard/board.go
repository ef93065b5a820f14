package scoreboard

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Board is a mapped scoreboard.
type Board struct {
	mem    []byte
	words  []*atomic.Uint64
	rows   []*Row
	models []*Model // none on a board of a version that had no such section

	tallies []*tally            // likewise
	private map[string]*Counter // those for which there was no room
	queue   *Queue
}

// Create makes a board with rows rows, 1 to 4096, all free and all counters zero. It
// also returns the descriptor, close-on-exec and the caller's, by which other processes
// open the board; the board needs it no more.
func Create(rows int) (*Board, int, error) {
	if rows < 1 || rows > maxRows {
		return nil, -1, fmt.Errorf("make a scoreboard of %d rows: 1 to %d are possible", rows, maxRows)
	}
	sections, size := plan(rows)
	fd, err := unix.MemfdCreate("scoreboard", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, -1, fmt.Errorf("make the scoreboard: %w", err)
	}
	b, err := fill(fd, sections, size)
	if err != nil {
		unix.Close(fd)
		return nil, -1, fmt.Errorf("make the scoreboard: %w", err)
	}
	return b, fd, nil
}

func fill(fd int, sections []section, size uint64) (*Board, error) {
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return nil, err
	}
	// A file that shrank under a mapping would kill its readers (SIGBUS, mmap(2)).
	const fixed = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, fixed); err != nil {
		return nil, err
	}
	mem, err := mapShared(fd, size, unix.MAP_POPULATE)
	if err != nil {
		return nil, err
	}
	writeHeader(mem, sections)
	b, err := newBoard(mem)
	if err != nil {
		_ = unix.Munmap(mem)
		return nil, err
	}
	return b, nil
}

// Open maps the board behind fd, which stays the caller's and is not needed afterwards.
// It accepts sections that it does not know, and rows longer than it knows; a file that
// has less than it needs, or that contradicts itself, is an error that says how.
func Open(fd int) (*Board, error) { return openWith(fd, unix.MAP_POPULATE) }

// OpenSparse is Open for a process that looks at few of the rows, and at the words: of the
// board's memory it has what it has looked at.
func OpenSparse(fd int) (*Board, error) { return openWith(fd, 0) }

// OpenWords is Open for a board whose rows have a layout that this program does not know: it
// has no rows then, and no models.
func OpenWords(fd int) (*Board, error) {
	b, err := open(fd, 0, newWords)
	if err != nil {
		return nil, fmt.Errorf("open the scoreboard's words: %w", err)
	}
	return b, nil
}

func openWith(fd, flags int) (*Board, error) {
	b, err := open(fd, flags, newBoard)
	if err != nil {
		return nil, fmt.Errorf("open the scoreboard: %w", err)
	}
	return b, nil
}

func open(fd, flags int, view func([]byte) (*Board, error)) (*Board, error) {
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if errors.Is(err, unix.EINVAL) { // fcntl(2): the file system knows no seals
		return nil, errors.New("it is no memory file")
	}
	if err != nil {
		return nil, err
	}
	if seals&unix.F_SEAL_SHRINK == 0 {
		return nil, errors.New("its file may shrink")
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if limit := int64(1) << 30; st.Size < headerBytes || st.Size > limit {
		return nil, fmt.Errorf("it has %d bytes; a scoreboard has %d to %d", st.Size, headerBytes, limit)
	}
	mem, err := mapShared(fd, uint64(st.Size), flags)
	if err != nil {
		return nil, err
	}
	b, err := view(mem)
	if err != nil {
		_ = unix.Munmap(mem)
		return nil, err
	}
	return b, nil
}

// mapShared maps the file. With MAP_POPULATE its pages are present, so that no request pays
// for a page fault.
func mapShared(fd int, size uint64, flags int) ([]byte, error) {
	return unix.Mmap(fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|flags)
}

// newWords is newBoard without rows.
func newWords(mem []byte) (*Board, error) {
	sections, err := parseHeader(bytes.Clone(mem[:headerBytes]), uint64(len(mem)))
	if err != nil {
		return nil, err
	}
	b := &Board{mem: mem}
	return b, b.addWords(sections)
}

func (b *Board) addWords(sections map[string]section) error {
	words, err := need(sections, sectionWords, wordBytes, knownWords)
	if err != nil {
		return err
	}
	for i := range uint64(knownWords) {
		b.words = append(b.words, wordAt(b.mem, words.offset+i*words.rowBytes))
	}
	return nil
}

// newBoard checks the header in mem and points into the sections.
func newBoard(mem []byte) (*Board, error) {
	// The copy cannot change between check and use.
	sections, err := parseHeader(bytes.Clone(mem[:headerBytes]), uint64(len(mem)))
	if err != nil {
		return nil, err
	}
	b := &Board{mem: mem}
	if err := b.addWords(sections); err != nil {
		return nil, err
	}
	rows, err := need(sections, sectionRows, rowBytes, 1)
	if err != nil {
		return nil, err
	}
	if rows.rows > maxRows {
		return nil, fmt.Errorf("section %s: %d rows are more than %d", rows.name, rows.rows, maxRows)
	}
	latency, err := need(sections, sectionLatency, histogramBytes, rows.rows)
	if err != nil {
		return nil, err
	}
	models, err := wanted(sections, sectionModels, modelBytes, maxModels)
	if err != nil {
		return nil, err
	}
	tallies, err := wanted(sections, sectionTallies, tallyBytes, maxTallies)
	if err != nil {
		return nil, err
	}
	layers, err := wanted(sections, sectionLayers, layersBytes, maxRows)
	if err != nil {
		return nil, err
	}
	running, err := wanted(sections, sectionRunning, runningBytes, maxRows)
	if err != nil {
		return nil, err
	}
	queue, err := wanted(sections, sectionQueue, queueBytes, 1)
	if err != nil {
		return nil, err
	}
	if b.queue = new(Queue); queue.rows > 0 {
		b.queue = queueAt(mem, queue.offset)
	}
	for i := range rows.rows {
		r := &Row{
			Fields:  fieldsAt(mem, rows.offset+i*rows.rowBytes),
			Latency: histogramAt(mem, latency.offset+i*latency.rowBytes),
			Layers:  new(Layers),
			Running: new(Running),
			index:   int(i),
		}
		if i < layers.rows {
			r.Layers = layersAt(mem, layers.offset+i*layers.rowBytes)
		}
		if i < running.rows {
			r.Running = runningAt(mem, running.offset+i*running.rowBytes)
		}
		b.rows = append(b.rows, r)
	}
	for i := range models.rows {
		b.models = append(b.models, &Model{modelFields: modelAt(mem, models.offset+i*models.rowBytes), number: int(i) + 1})
	}
	for i := range tallies.rows {
		b.tallies = append(b.tallies, tallyAt(mem, tallies.offset+i*tallies.rowBytes))
	}
	return b, nil
}

// Close unmaps the board. No Row, Histogram or word of it may be used afterwards, by
// any goroutine: the access would end the process.
func (b *Board) Close() error {
	mem := b.mem
	b.mem, b.words, b.rows, b.models, b.tallies, b.queue = nil, nil, nil, nil, nil, nil
	return unix.Munmap(mem)
}

// Rows returns all rows, held or free, by index. The slice is the board's.
func (b *Board) Rows() []*Row { return b.rows }

// Generation is the last number given to a generation. A supervisor adds 1 and takes
// what it gets.
func (b *Board) Generation() *atomic.Uint64 { return b.words[wordGeneration] }

// Committed is the generation in charge; 0 before the first commit.
func (b *Board) Committed() *atomic.Uint64 { return b.words[wordCommitted] }

// Owner is the pid of the supervisor in charge; 0: none. It changes by compare-and-swap
// alone: from the predecessor's pid to one's own, by the anchor from a dead one's to 0.
func (b *Board) Owner() *atomic.Uint64 { return b.words[wordOwner] }

// Stopping is not 0 once the service was told to stop.
func (b *Board) Stopping() *atomic.Uint64 { return b.words[wordStopping] }

// Unready is not 0 once the service is about to stop: it serves on for a while, workers say
// that they are not ready, and each answer closes its connection.
func (b *Board) Unready() *atomic.Uint64 { return b.words[wordUnready] }

// Change is the last number given to a change of models. A supervisor adds 1 and takes what it gets.
func (b *Board) Change() *atomic.Uint64 { return b.words[wordChange] }

// Decided is the last change of models that is to be carried out: a worker that has prepared it,
// and hears no more of its supervisor, serves it; one that has prepared a later one does not.
func (b *Board) Decided() *atomic.Uint64 { return b.words[wordDecided] }

// Puts rises before and after a worker puts a connection into a queue that workers have in common: what it
// was when a queue was empty tells, as long as it is that, that it still is.
func (b *Board) Puts() *atomic.Uint64 { return b.words[wordPuts] }

// Taker is the lowest generation whose workers take connections that others hand over.
func (b *Board) Taker() *atomic.Uint64 { return b.words[wordTaker] }

// Heartbeat is marked by the supervisor's loop while it runs.
func (b *Board) Heartbeat() *Stamp { return stampOf(b.words[wordHeartbeat]) }
