package scoreboard

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// The header, in the byte order of the machine, which no board leaves:
//
//	0   8  magic
//	8   4  layout version
//	12  4  number of sections
//	16  8  size of the file in bytes
//	64  64 per section: name (32, padded with zeros), offset, bytes of a row, rows, spare (8 each)
//
// It is written once, before anybody else can see the file.
const (
	magic         = "preforkd"
	layoutVersion = 1

	lineBytes   = 64 // a cache line of x86-64 and of most arm64; every section and row starts on one
	tableOffset = lineBytes
	entryBytes  = lineBytes
	nameBytes   = 32
	maxSections = 63
	headerBytes = tableOffset + maxSections*entryBytes // 4 KiB

	maxRows = 4096 // as many worker processes; 16 MiB
)

// Sections. A name is never given another meaning: another layout gets another name.
const (
	sectionWords   = "words"
	sectionLatency = "latency"
	sectionModels  = "models"  // a board of an earlier version has none
	sectionTallies = "tallies" // likewise
	sectionLayers  = "layers"  // likewise
	sectionRunning = "running" // likewise
	sectionQueue   = "queue"   // likewise
)

// sectionRows is one of them. A linker can set it, so that a test has programs that do not
// understand each other's boards.
var sectionRows = "rows"

// The words, by row of their section. The section has room for more, which are zero
// until a later version gives them a meaning.
const (
	wordGeneration = iota
	wordCommitted
	wordOwner
	wordStopping
	wordTaker
	wordHeartbeat
	wordUnready
	wordChange
	wordDecided
	wordPuts
	knownWords

	wordBytes = lineBytes
	roomWords = 16
)

// section is one entry of the table.
type section struct {
	name                   string
	offset, rowBytes, rows uint64
}

func (s section) end() uint64 { return s.offset + s.rowBytes*s.rows }

// plan returns the sections of a new board with rows rows, and its size in bytes.
func plan(rows int) ([]section, uint64) {
	sections := []section{
		{name: sectionWords, rowBytes: wordBytes, rows: roomWords},
		{name: sectionRows, rowBytes: rowBytes, rows: uint64(rows)},
		{name: sectionLatency, rowBytes: histogramBytes, rows: uint64(rows)},
		{name: sectionModels, rowBytes: modelBytes, rows: newModels},
		{name: sectionTallies, rowBytes: tallyBytes, rows: newTallies},
		{name: sectionLayers, rowBytes: layersBytes, rows: uint64(rows)},
		{name: sectionRunning, rowBytes: runningBytes, rows: uint64(rows)},
		{name: sectionQueue, rowBytes: queueBytes, rows: 1},
	}
	size := uint64(headerBytes)
	for i := range sections {
		sections[i].offset = size
		size = sections[i].end()
	}
	return sections, size
}

// writeHeader describes sections at the start of mem.
func writeHeader(mem []byte, sections []section) {
	for i, s := range sections {
		entry := mem[tableOffset+i*entryBytes:][:entryBytes]
		copy(entry[:nameBytes], s.name)
		binary.NativeEndian.PutUint64(entry[32:], s.offset)
		binary.NativeEndian.PutUint64(entry[40:], s.rowBytes)
		binary.NativeEndian.PutUint64(entry[48:], s.rows)
	}
	binary.NativeEndian.PutUint32(mem[8:], layoutVersion)
	binary.NativeEndian.PutUint32(mem[12:], uint32(len(sections)))
	binary.NativeEndian.PutUint64(mem[16:], uint64(len(mem)))
	copy(mem, magic)
}

// parseHeader returns the sections of a file of size bytes that begins with header.
// Sections that this version does not know are checked like the others.
func parseHeader(header []byte, size uint64) (map[string]section, error) {
	if len(header) < tableOffset {
		return nil, fmt.Errorf("%d bytes are too few for a scoreboard", size)
	}
	if string(header[:len(magic)]) != magic {
		return nil, fmt.Errorf("it begins with %q, a scoreboard with %q", header[:len(magic)], magic)
	}
	if v := binary.NativeEndian.Uint32(header[8:]); v != layoutVersion {
		return nil, fmt.Errorf("its layout is version %d, this program knows version %d", v, layoutVersion)
	}
	if said := binary.NativeEndian.Uint64(header[16:]); said != size {
		return nil, fmt.Errorf("its header says %d bytes, the file has %d", said, size)
	}
	n := int(binary.NativeEndian.Uint32(header[12:]))
	if n > maxSections || tableOffset+n*entryBytes > len(header) {
		return nil, fmt.Errorf("%d sections do not fit its header", n)
	}
	sections := make(map[string]section, n)
	for i := range n {
		s, err := parseEntry(header[tableOffset+i*entryBytes:][:entryBytes])
		if err != nil {
			return nil, fmt.Errorf("section %d: %w", i, err)
		}
		if err := s.check(uint64(tableOffset+n*entryBytes), size); err != nil {
			return nil, fmt.Errorf("section %s: %w", s.name, err)
		}
		for _, other := range sections {
			if s.name == other.name {
				return nil, fmt.Errorf("two sections are called %s", s.name)
			}
			if s.offset < other.end() && other.offset < s.end() {
				return nil, fmt.Errorf("sections %s and %s overlap", other.name, s.name)
			}
		}
		sections[s.name] = s
	}
	return sections, nil
}

func parseEntry(entry []byte) (section, error) {
	name, rest, _ := bytes.Cut(entry[:nameBytes], []byte{0})
	if len(name) == 0 || len(bytes.Trim(rest, "\x00")) > 0 {
		return section{}, fmt.Errorf("its name is %q", entry[:nameBytes])
	}
	for _, c := range name {
		if c <= ' ' || c > '~' { // it reaches messages
			return section{}, fmt.Errorf("its name is %q", name)
		}
	}
	return section{
		name:     string(name),
		offset:   binary.NativeEndian.Uint64(entry[32:]),
		rowBytes: binary.NativeEndian.Uint64(entry[40:]),
		rows:     binary.NativeEndian.Uint64(entry[48:]),
	}, nil
}

// check tells what is wrong with a section of a file of size bytes whose header ends
// at begin. No sum or product in it can overflow.
func (s section) check(begin, size uint64) error {
	switch {
	case s.offset%lineBytes != 0 || s.rowBytes%lineBytes != 0:
		return fmt.Errorf("offset %d or rows of %d bytes are no multiple of %d", s.offset, s.rowBytes, lineBytes)
	case s.rowBytes == 0:
		return fmt.Errorf("its rows have no bytes")
	case s.offset < begin:
		return fmt.Errorf("offset %d is inside the header", s.offset)
	case s.offset > size || s.rows > (size-s.offset)/s.rowBytes:
		return fmt.Errorf("%d rows of %d bytes at %d reach beyond the file's %d", s.rows, s.rowBytes, s.offset, size)
	}
	return nil
}

// need returns the section called name if its rows have the bytes that this version
// knows, or more, and if it has at least rows of them.
func need(sections map[string]section, name string, bytes, rows uint64) (section, error) {
	s, ok := sections[name]
	switch {
	case !ok:
		return s, fmt.Errorf("it has no section %s", name)
	case s.rowBytes < bytes:
		return s, fmt.Errorf("section %s: its rows have %d bytes, this program needs %d", name, s.rowBytes, bytes)
	case s.rows < rows:
		return s, fmt.Errorf("section %s: it has %d rows, this program needs %d", name, s.rows, rows)
	}
	return s, nil
}

// wanted is need for a section that boards of an earlier version have not: it has no rows then.
func wanted(sections map[string]section, name string, bytes, most uint64) (s section, err error) {
	if _, ok := sections[name]; !ok {
		return section{}, nil
	}
	if s, err = need(sections, name, bytes, 1); err != nil {
		return s, err
	}
	if s.rows > most {
		return s, fmt.Errorf("section %s: %d rows are more than %d", name, s.rows, most)
	}
	return s, nil
}
