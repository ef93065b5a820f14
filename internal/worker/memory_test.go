package worker

import (
	"fmt"
	"os"
	"syscall"
	"testing"
)

func TestUsage(t *testing.T) {
	u, err := readUsage()
	if err != nil {
		t.Fatal(err)
	}
	if u.pss < 1<<20 || u.pss > 1<<40 || u.rss < u.pss || u.anonymous == 0 || u.anonymous > u.rss {
		t.Errorf("%+v", u)
	}
	for text, want := range map[string]usage{
		"5-6 ---p 0 [rollup]\nRss:    20 kB\nPss:     12 kB\nPss_Dirty: 3 kB\nAnonymous: 8 kB\nSwap: 4 kB\nSwapPss: 1 kB\n": {12 << 10, 20 << 10, 8 << 10, 4 << 10},
		"Pss: 12 kB\nRss: 20 kB\n":                   {pss: 12 << 10, rss: 20 << 10},
		"":                                           {},
		"Pss: 12 kB\n":                               {},
		"Rss: 20 kB\nPss: 12\n":                      {},
		"Rss: 20 kB\nPss: -1 kB\n":                   {},
		"Rss: 20 kB\nPss: x kB":                      {},
		"Rss: 20 kB\nPss_Anon: 12 kB\n":              {},
		"Rss: 20 kB\nPss: 1 kB\nSwap: max kB\n":      {},
		"Rss: 20 kB\nPss: 99999999999999999999 kB\n": {},
	} {
		if u, err := parseUsage([]byte(text)); u != want || (err != nil) != (want == usage{}) {
			t.Errorf("%q: %+v, %v", text, u, err)
		}
	}
}

func FuzzUsage(f *testing.F) {
	f.Add([]byte("Rss: 20 kB\nPss: 12 kB\nAnonymous: 8 kB\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if u, err := parseUsage(text); err == nil && (u.pss <= 0 || u.rss <= 0 || u.own() < 0) {
			t.Errorf("%+v", u)
		}
	})
}

// BenchmarkUsage is what one look costs a worker of so many MiB, in pages of 4 KiB.
func BenchmarkUsage(b *testing.B) {
	for _, size := range []int{32, 256, 1024} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			defer touched(b, size<<20)()
			for b.Loop() {
				if _, err := readUsage(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkResident is the same for the look at the mappings.
func BenchmarkResident(b *testing.B) {
	for _, size := range []int{32, 256, 1024} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			defer touched(b, size<<20)()
			for b.Loop() {
				smaps, err := os.Open("/proc/self/smaps")
				if err != nil {
					b.Fatal(err)
				}
				if _, err := resident(smaps); err != nil {
					b.Fatal(err)
				}
				smaps.Close()
			}
		})
	}
}

// touched maps so many bytes and has all of them present, until the function that it returns is
// called.
func touched(b *testing.B, bytes int) (unmap func()) {
	b.Helper()
	mem, err := syscall.Mmap(-1, 0, bytes, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		b.Fatal(err)
	}
	_ = syscall.Madvise(mem, syscall.MADV_NOHUGEPAGE) // a kernel without large pages knows no such advice
	for i := 0; i < bytes; i += os.Getpagesize() {
		mem[i] = 1
	}
	return func() {
		if err := syscall.Munmap(mem); err != nil {
			b.Error(err)
		}
	}
}
