package worker

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"preforkd/internal/ipc"
	"preforkd/internal/ipc/control"
)

const smapsText = `7f0000000000-7f0000200000 r--p 00000000 fe:01 4711                       /c/prepared/k/weights.bin
Size:               2048 kB
Rss:                1024 kB
Pss:                 512 kB
VmFlags: rd mr mw me
7f0000200000-7f0000300000 r--p 00200000 fe:01 4711                       /c/prepared/k/weights.bin
Rss:                   4 kB
7f0000300000-7f0000400000 rw-p 00000000 00:00 0
Rss:                 900 kB
7f0000400000-7f0000500000 rw-p 00000000 00:00 0                          [heap]
Rss:                 800 kB
7f0000500000-7f0000600000 r--p 00000000 fe:01 4712                       /c/with a space/x (deleted)
Rss:                   8 kB
7f0000600000-7f0000700000 r--s 00000000 00:05 4711                       /memfd:scoreboard (deleted)
Rss:                  16 kB
`

func TestResident(t *testing.T) {
	got, err := resident(strings.NewReader(smapsText))
	if err != nil || len(got) != 3 || got["fe:01 4711"] != 1028<<10 || got["fe:01 4712"] != 8<<10 || got["00:05 4711"] != 16<<10 {
		t.Errorf("%v, %v", got, err)
	}
	for _, text := range []string{
		"", "Rss: 5 kB\n", "nonsense\nRss: 5 kB\n", "1-2 r--p 0 fe:01 7 /x\nRss:\nRss: -5 kB\nRss: max\nRss: 99999999999999999999 kB\n",
		"1-2 r--p 0 fe:01 0 /x\nRss: 5 kB\n", "1-2 r--p 0 fe:01\nRss: 5 kB\n",
	} {
		if got, err := resident(strings.NewReader(text)); err != nil || len(got) > 0 {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	if _, err := resident(strings.NewReader("1-2 r--p 0 fe:01 7 /" + strings.Repeat("x", 1<<20))); err == nil {
		t.Error("a line without end is read")
	}
}

// TestMappedBelow maps a file, touches half of it, and renames its directory.
func TestMappedBelow(t *testing.T) {
	const bytes = 4 << 20
	dir := filepath.Join(t.TempDir(), "entry")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "weights.bin")
	if err := os.WriteFile(file, make([]byte, bytes), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	mem, err := syscall.Mmap(int(f.Fd()), 0, bytes, syscall.PROT_READ, syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Munmap(mem)
	files := mappedBelow(dir)
	if len(files) != 1 || len(mappedBelow(dir[:len(dir)-1])) > 0 || len(mappedBelow("/nowhere")) > 0 {
		t.Fatalf("%q", files)
	}
	if err := os.Rename(dir, dir+"-aside"); err != nil {
		t.Fatal(err)
	}
	sum := byte(0)
	for i := 0; i < bytes/2; i += 4096 {
		sum += mem[i]
	}
	smaps, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer smaps.Close()
	got, err := resident(smaps)
	if n := got[files[0]]; err != nil || n < bytes/2 || n > bytes || sum != 0 {
		t.Errorf("%d of %d, %v", n, bytes, err)
	}
}

func TestLost(t *testing.T) {
	const mib = 1 << 20
	mapped := []string{"fe:01 4711"}
	for name, c := range map[string]struct {
		bytes, shared, graph int64
		l                    loaded
		want                 string
	}{
		"not prepared":                {64 * mib, 0, 0, loaded{own: 64 * mib}, ""},
		"trees":                       {64 * mib, 0, 64 * mib, loaded{own: 256 * mib}, ""},
		"shared":                      {64 * mib, 128 * mib, 4 << 10, loaded{own: 2 * mib, files: mapped}, ""},
		"packed anew":                 {64 * mib, 128 * mib, 4 << 10, loaded{own: 64 * mib, files: mapped}, "packed the weights anew: loading took 64.0 MiB"},
		"a part of it":                {64 * mib, 128 * mib, 4 << 10, loaded{own: 40 * mib, files: mapped}, "packed the weights anew"},
		"less than half of it":        {64 * mib, 128 * mib, 4 << 10, loaded{own: 35 * mib, files: mapped}, ""},
		"trees beside a layer":        {40 * mib, 16 * mib, 32 * mib, loaded{own: 120 * mib, files: mapped}, ""},
		"nothing is packed":           {64 * mib, 64 * mib, 4 << 10, loaded{own: 64 * mib, files: mapped}, ""},
		"nothing is mapped":           {64 * mib, 128 * mib, 4 << 10, loaded{own: 2 * mib}, "has not mapped the prepared weights (128.0 MiB)"},
		"requests ran meanwhile":      {64 * mib, 128 * mib, 4 << 10, loaded{own: 900 * mib, beside: true, files: mapped}, ""},
		"memory is not known":         {64 * mib, 128 * mib, 4 << 10, loaded{own: -1, files: mapped}, ""},
		"too small to be worth while": {mib, 2 * mib, 4 << 10, loaded{own: 4 * mib, files: mapped}, ""},
	} {
		got := lost(&ipc.ModelFile{Bytes: c.bytes, Shared: c.shared}, c.l, c.graph)
		if !strings.Contains(got, c.want) || (got == "") != (c.want == "") {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestLostIsMonotonous: a load that takes less of a process's own, or has a larger graph, is never
// the one that is warned of.
func TestLostIsMonotonous(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		f := &ipc.ModelFile{Bytes: r.Int64N(1 << r.IntN(40)), Shared: r.Int64N(1 << r.IntN(40))}
		l, graph := loaded{own: r.Int64N(1 << r.IntN(40)), files: []string{"x"}}, r.Int64N(1<<r.IntN(36))
		if lost(f, l, graph) != "" {
			continue
		}
		less := l
		if less.own = r.Int64N(l.own + 1); lost(f, less, graph) != "" || lost(f, l, graph+r.Int64N(1<<30)) != "" {
			t.Fatalf("%+v %+v %d", f, l, graph)
		}
	}
}

// TestReportComesInParts: more models than fit into one message are all reported, and of the parts
// the first alone says that what was said before no longer holds.
func TestReportComesInParts(t *testing.T) {
	w := complete(t)
	theirs, own, err := control.Pair()
	if err != nil {
		t.Fatal(err)
	}
	parts := make(chan ipc.MemoryReport, 8)
	heard, err := control.New(theirs, map[string]control.Handler{ipc.ControlMemory: func(_ context.Context, body json.RawMessage) (any, error) {
		var part ipc.MemoryReport
		err := json.Unmarshal(body, &part)
		parts <- part
		return nil, err
	}})
	if err != nil {
		t.Fatal(err)
	}
	if w.control, err = control.New(own, nil); err != nil {
		t.Fatal(err)
	}
	defer alongside(func(ctx context.Context) { _ = w.control.Run(ctx) })()
	defer alongside(func(ctx context.Context) { _ = heard.Run(ctx) })()
	set := &ipc.ModelSet{}
	for range ipc.MemoryReportModels + 3 {
		set.Models = append(set.Models, ipc.ModelFile{Name: "digits", Version: "1"}, ipc.ModelFile{Name: "gone", Version: "1"})
	}
	w.set.Store(set)
	w.reportModels()
	if len(parts) != 2 {
		t.Fatalf("%d parts", len(parts))
	}
	first, second := <-parts, <-parts
	if !first.First || second.First || len(first.Models) != ipc.MemoryReportModels || len(second.Models) != 3 {
		t.Fatalf("%+v %+v", first, second)
	}
	if m := first.Models[0]; m.Name != "digits" || m.Version != "1" || m.Private < 0 || m.Lost != "" || m.Plain != "" {
		t.Errorf("%+v", m)
	}
}

func FuzzResident(f *testing.F) {
	f.Add(smapsText)
	f.Fuzz(func(t *testing.T, text string) {
		got, _ := resident(strings.NewReader(text))
		for file, n := range got {
			if n < 0 || file == "" {
				t.Errorf("%q: %d", file, n)
			}
		}
	})
}
