package codec

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
)

// readFloat reads text, all of it, as a float32.
func readFloat(text string) (float32, bool) {
	s := scanner{b: []byte(text + ",")} // as in an array
	v, ok := s.float32()
	return v, ok && s.i == len(text)
}

// sameFloat checks text, a number in JSON, against strconv.
func sameFloat(t *testing.T, text string) {
	t.Helper()
	want, err := strconv.ParseFloat(text, 32)
	got, ok := readFloat(text)
	if ok != (err == nil) || ok && math.Float32bits(got) != math.Float32bits(float32(want)) {
		t.Errorf("%s = %x, %v; strconv says %x, %v", text, got, ok, float32(want), err)
	}
}

func TestFloat32EqualsStrconv(t *testing.T) {
	for _, text := range []string{
		"0", "-0", "0.0", "-0.0e5", "1", "16777216", "16777217", "16777219", "9007199254740993", "1e22", "1e23", "1e-22", "1e-23",
		"3.4028234663852886e38", "3.4028235677973366e38", "3.40282356779733661637539395458142568447e38", "3.5e38", "-3.5e38", "1e39", "1e400", "-1e400",
		"1.17549435e-38", "1.1754943508222875e-38", "1.1754942e-38", "1.401298464324817e-45", "7.006492321624085e-46", "7.0064923216240861e-46", "1e-400",
		"1e1048577", "1e-1048577", "1e99999999999999999999", "0e99999999999999999999", "0.00000000000000000000000000000000000000000000012",
		"18446744073709551615", "18446744073709551616", "99999999999999999999", "1000000000000000000000000000000000000",
		"1.00000005960464477539062", "1.000000059604644775390625", "1.00000005960464477539063", "0.1", "0.3", "2.5e-3", "255",
		strings.Repeat("9", 5000), "0." + strings.Repeat("0", 5000) + "1", "1" + strings.Repeat("0", 5000) + "e-5000",
	} {
		sameFloat(t, text)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	rounds := 300_000
	if testing.Short() {
		rounds = 30_000
	}
	for range rounds {
		v := float64(math.Float32frombits(rng.Uint32()))
		if v-v != 0 {
			continue
		}
		next := float64(math.Nextafter32(float32(v), float32(math.Inf(1))))
		middle := v + (next-v)/2 // exact: a float64 has 29 bits more
		sameFloat(t, strconv.FormatFloat(v, 'g', -1, 32))
		sameFloat(t, strconv.FormatFloat(v, 'g', -1, 64))
		sameFloat(t, strconv.FormatFloat(v, 'e', rng.IntN(25), 64))
		if middle-middle == 0 {
			// The hard ones: as near to the middle of two float32 as digits allow.
			for _, m := range []float64{math.Nextafter(middle, 0), middle, math.Nextafter(middle, math.Inf(1))} {
				sameFloat(t, strconv.FormatFloat(m, 'g', -1, 64))
				sameFloat(t, strconv.FormatFloat(m, 'e', 15+rng.IntN(10), 64))
			}
		}
		// What people send: few digits, small exponents.
		text := strconv.FormatUint(rng.Uint64()>>rng.IntN(64), 10)
		if cut := rng.IntN(len(text)); cut > 0 {
			text = text[:cut] + "." + text[cut:]
		}
		sameFloat(t, text)
		sameFloat(t, text+"e"+strconv.Itoa(rng.IntN(60)-30))
	}
}

func TestInt64(t *testing.T) {
	for _, c := range []struct {
		text string
		want int64
		err  string
	}{
		{"0", 0, ""},
		{"-0", 0, ""},
		{"-17", -17, ""},
		{"1234567", 1234567, ""},
		{"12345678", 12345678, ""},
		{"00", 0, "leading zero"},
		{"9223372036854775807", math.MaxInt64, ""},
		{"-9223372036854775808", math.MinInt64, ""},
		{"9223372036854775808", 0, "does not fit INT64"},
		{"-9223372036854775809", 0, "does not fit INT64"},
		{"18446744073709551617", 0, "does not fit INT64"},
		{"100000000000000000000", 0, "does not fit INT64"},
		{"1.0", 0, "1.0 is not written as an integer"},
		{"1e2", 0, "1e2 is not written as an integer"},
		{"01", 0, "leading zero"},
		{"-", 0, "']' where a digit is expected"},
		{"+1", 0, "'+' where an integer is expected"},
		{"true", 0, "'t' where an integer is expected"},
		{`"1"`, 0, "where an integer is expected"},
		{"NaN", 0, "'N' where an integer is expected"},
	} {
		s := scanner{b: []byte(c.text + "]")}
		v, ok := s.int64()
		if c.err == "" && (!ok || v != c.want || s.i != len(c.text)) || c.err != "" && (ok || !strings.Contains(s.err.Text, c.err)) {
			t.Errorf("%s = %d, %v, %v", c.text, v, ok, s.err)
		}
	}
}

func TestAppendFloat32ReadsBack(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 100_000 {
		v := math.Float32frombits(rng.Uint32())
		if v-v != 0 {
			continue
		}
		text := string(appendFloat(nil, float64(v), 32))
		if back, ok := readFloat(text); !ok || math.Float32bits(back) != math.Float32bits(v) || !json.Valid([]byte(text)) {
			t.Fatalf("%x is written as %s", v, text)
		}
	}
	for v, want := range map[float32]string{
		0: "0", 1: "1", -0.5: "-0.5", 1e-6: "0.000001", 9e-7: "9e-07", 1e20: "100000000000000000000", 1e21: "1e+21", 16777216: "16777216",
	} {
		if got := string(appendFloat(nil, float64(v), 32)); got != want {
			t.Errorf("%g is written as %s, want %s", v, got, want)
		}
	}
}

func FuzzFloat32(f *testing.F) {
	f.Add("1.000000059604644775390625", uint64(16777217), 0)
	f.Add("-1e-46", uint64(1<<53+1), -22)
	f.Fuzz(func(t *testing.T, text string, mantissa uint64, exponent int) {
		if json.Valid([]byte(text)) && startsNumber(text[0]) && len(strings.TrimSpace(text)) == len(text) {
			sameFloat(t, text)
		} else if _, ok := readFloat(text); ok {
			t.Errorf("%q is no number in JSON", text)
		}
		sameFloat(t, strconv.FormatUint(mantissa, 10)+"e"+strconv.Itoa(exponent))
		sameFloat(t, "0."+strconv.FormatUint(mantissa, 10)+"E"+strconv.Itoa(exponent%64))
	})
}
