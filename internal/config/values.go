package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Workers is a number of worker processes, or Auto.
type Workers int

// Auto leaves the number of workers to the supervisor, which looks at the machine.
const Auto Workers = 0

// Auto says whether the supervisor chooses the number.
func (w Workers) Auto() bool { return w == Auto }

// String returns "auto" or the number.
func (w Workers) String() string {
	if w == Auto {
		return "auto"
	}
	return strconv.Itoa(int(w))
}

// MarshalText returns what String does.
func (w Workers) MarshalText() ([]byte, error) { return []byte(w.String()), nil }

// UnmarshalText reads "auto" or a number of at least 1.
func (w *Workers) UnmarshalText(text []byte) error {
	if string(text) == "auto" {
		*w = Auto
		return nil
	}
	n, err := parseInt(string(text))
	if err != nil {
		return err
	}
	if n < 1 { // 0 is Auto in memory; written, it would ask for none
		return errors.New("is too small")
	}
	*w = Workers(min(n, math.MaxInt32)) // the range is the check's affair
	return nil
}

// Bytes is a size.
type Bytes int64

// units of Bytes, the largest first and of equal ones the binary; written as in IEC 80000-13.
var units = []struct {
	name string
	size Bytes
}{
	{"TiB", 1 << 40},
	{"TB", 1e12},
	{"GiB", 1 << 30},
	{"GB", 1e9},
	{"MiB", 1 << 20},
	{"MB", 1e6},
	{"KiB", 1 << 10},
	{"kB", 1e3},
	{"B", 1},
}

// String returns the size exactly, in the largest unit that needs no fraction.
func (b Bytes) String() string {
	for _, u := range units {
		if b != 0 && b%u.size == 0 && u.size > 1 {
			return strconv.FormatInt(int64(b/u.size), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// MarshalText returns what String does.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// UnmarshalText reads a whole number of bytes, or of the unit that follows it at
// once: kB, MB, GB, TB are powers of 1000, KiB, MiB, GiB, TiB of 1024.
func (b *Bytes) UnmarshalText(text []byte) error {
	s := string(text)
	digits := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	n, err := parseInt(digits)
	if err != nil {
		return errors.New("is not a size")
	}
	size := Bytes(1)
	if name := s[len(digits):]; name != "" {
		if size = unit(name); size == 0 {
			return fmt.Errorf("has the unknown unit %q (known are kB, MB, GB, TB, KiB, MiB, GiB, TiB)", name)
		}
	}
	if n > math.MaxInt64/int64(size) {
		return errors.New("is too large")
	}
	*b = Bytes(n) * size
	return nil
}

// unit returns the size of the unit called name, in any case; 0: there is none.
func unit(name string) Bytes {
	for _, u := range units {
		if strings.EqualFold(u.name, name) {
			return u.size
		}
	}
	return 0
}

// parseInt reads a decimal number as people write it: no leading zeros (octal in
// YAML 1.1), no underscores, no sign but minus.
func parseInt(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if errors.Is(err, strconv.ErrRange) {
		if s[0] == '-' {
			return 0, errors.New("is too small")
		}
		return 0, errors.New("is too large")
	}
	if err != nil {
		return 0, errors.New("is not a whole number")
	}
	if strconv.FormatInt(n, 10) != s {
		return 0, errors.New("is not written as a plain decimal number")
	}
	return n, nil
}

// parseDuration reads a duration as Go writes it. Only 0 needs no unit.
func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err == nil {
		return d, nil
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return 0, errors.New("has no unit")
	}
	if n, ok := strings.CutSuffix(s, "d"); ok {
		if days, err := parseInt(n); err == nil && days > 0 && days < 36500 {
			return 0, fmt.Errorf("is in days; in hours it is %dh", days*24)
		}
	}
	return 0, errors.New("is not a duration")
}

// durationText returns d without the zeros that Duration.String adds: 2m, not 2m0s.
func durationText(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}
