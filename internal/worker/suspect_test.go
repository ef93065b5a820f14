package worker

import (
	"bytes"
	"strings"
	"testing"
)

func TestRequestDigest(t *testing.T) {
	// printf '' | xxh64sum; printf abc | xxh64sum
	for body, want := range map[string]uint64{"": 0xef46db3751d8e999, "abc": 0x44bc2cf5ad770999} {
		if got := requestDigest([]byte(body)); got != want {
			t.Errorf("%q: %016x, want %016x", body, got, want)
		}
	}
	long := bytes.Repeat([]byte("x"), digestedBytes+2)
	seen := map[uint64]int{}
	for _, n := range []int{digestedBytes - 1, digestedBytes, digestedBytes + 1, digestedBytes + 2} {
		if other, twice := seen[requestDigest(long[:n])]; twice {
			t.Errorf("%d bytes have the digest of %d bytes", n, other)
		}
		seen[requestDigest(long[:n])] = n
	}
	same := bytes.Clone(long)
	same[digestedBytes]++
	if requestDigest(same) != requestDigest(long) {
		t.Error("more is looked at than the beginning")
	}
	body := []byte(strings.Repeat("1234567,", 40))
	if n := testing.AllocsPerRun(100, func() { requestDigest(body) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRequestDigest(b *testing.B) {
	for name, n := range map[string]int{"300B": 300, "64KiB": 64 << 10, "1MiB": 1 << 20} {
		b.Run(name, func(b *testing.B) {
			body := bytes.Repeat([]byte("5"), n)
			b.ReportAllocs()
			for b.Loop() {
				requestDigest(body)
			}
		})
	}
}
