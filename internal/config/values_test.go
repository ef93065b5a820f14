package config

import (
	"testing"
	"time"
)

func TestBytes(t *testing.T) {
	tests := []struct {
		in   string
		want Bytes
		text string
	}{
		{"0", 0, "0"},
		{"1", 1, "1"},
		{"1000B", 1000, "1kB"},
		{"1024", 1024, "1KiB"},
		{"16MiB", 16 << 20, "16MiB"},
		{"16mib", 16 << 20, "16MiB"},
		{"16MB", 16e6, "16MB"},
		{"1500KB", 1500e3, "1500kB"},
		{"3GiB", 3 << 30, "3GiB"},
		{"8TiB", 8 << 40, "8TiB"},
		{"9223372036854775807", 1<<63 - 1, "9223372036854775807"},
	}
	for _, test := range tests {
		var b Bytes
		if err := b.UnmarshalText([]byte(test.in)); err != nil || b != test.want || b.String() != test.text {
			t.Errorf("%s: %d, %s, %v", test.in, b, b, err)
		}
		var again Bytes
		if err := again.UnmarshalText([]byte(b.String())); err != nil || again != b {
			t.Errorf("%s comes back as %d, %v", b, again, err)
		}
	}
	refused := []struct{ in, want string }{
		{"", "is not a size"},
		{"MiB", "is not a size"},
		{"1.5MiB", "is not a size"},
		{"1 MiB", "is not a size"},
		{"16M", `has the unknown unit "M" (known are kB, MB, GB, TB, KiB, MiB, GiB, TiB)`},
		{"9000000TiB", "is too large"},
		{"99999999999999999999", "is not a size"},
	}
	for _, test := range refused {
		var b Bytes
		if err := b.UnmarshalText([]byte(test.in)); err == nil || err.Error() != test.want {
			t.Errorf("%q: %d, %v, want %s", test.in, b, err, test.want)
		}
	}
}

func TestWorkers(t *testing.T) {
	tests := []struct {
		in, err string
		want    Workers
	}{
		{"auto", "", Auto},
		{"1", "", 1},
		{"1024", "", 1024},
		{"0", "is too small", 0},
		{"-1", "is too small", 0},
		{"99999999999999999999", "is too large", 0},
		{"-99999999999999999999", "is too small", 0},
		{"Auto", "is not a whole number", 0},
		{"2.0", "is not a whole number", 0},
		{"010", "is not written as a plain decimal number", 0},
		{"+1", "is not written as a plain decimal number", 0},
	}
	for _, test := range tests {
		var w Workers
		err := w.UnmarshalText([]byte(test.in))
		if message(err) != test.err || w != test.want {
			t.Errorf("%s: %v, %v", test.in, w, err)
		}
		if err == nil && (w.String() != test.in || w.Auto() != (test.in == "auto")) {
			t.Errorf("%s is printed as %s", test.in, w)
		}
	}
}

// message returns an error's text, empty without an error.
func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestDuration(t *testing.T) {
	tests := []struct {
		in, err string
		want    time.Duration
		text    string
	}{
		{"75s", "", 75 * time.Second, "1m15s"},
		{"1m30s", "", 90 * time.Second, "1m30s"},
		{"500ms", "", 500 * time.Millisecond, "500ms"},
		{"2m", "", 2 * time.Minute, "2m"},
		{"10h", "", 10 * time.Hour, "10h"},
		{"1h5s", "", time.Hour + 5*time.Second, "1h0m5s"},
		{"0", "", 0, "0s"},
		{"30", "has no unit", 0, "0s"},
		{"0.5", "has no unit", 0, "0s"},
		{"2d", "is in days; in hours it is 48h", 0, "0s"},
		{"d", "is not a duration", 0, "0s"},
		{"99999d", "is not a duration", 0, "0s"},
		{"30 s", "is not a duration", 0, "0s"},
		{"", "is not a duration", 0, "0s"},
	}
	for _, test := range tests {
		d, err := parseDuration(test.in)
		if message(err) != test.err || d != test.want || durationText(d) != test.text {
			t.Errorf("%q: %s, %v", test.in, durationText(d), err)
		}
	}
}

func TestNearest(t *testing.T) {
	candidates := []string{"listen", "level", "log", "max_crashes", "PREFORKD_WORKERS"}
	tests := []struct{ word, want string }{
		{"listne", "listen"},
		{"Listen", "listen"},
		{"levle", "level"},
		{"max-crashes", "max_crashes"},
		{"maxcrashes", "max_crashes"},
		{"lok", "log"},
		{"dog", "log"},
		{"x", ""},
		{"", ""},
		{"workers", ""},
		{"PREFORKD_WORKER", "PREFORKD_WORKERS"},
		{"crashes", ""},
	}
	for _, test := range tests {
		if got := nearest(test.word, candidates); got != test.want {
			t.Errorf("%s: %q, want %q", test.word, got, test.want)
		}
	}
}
