package codec

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"preforkd/internal/inference"
)

func TestKeys(t *testing.T) {
	names := []string{"user", "item"}
	for _, c := range []struct{ body, want string }{
		{`{"user":"a","item":7}`, "a/7"},
		{`{"item":-1,"other":{"x":[1]},"user":"\u00e4"}`, "ä/-1"},
		{`{"user":["a","b"],"item":7}`, "a/7 b/7"},
		{`{"user":["a","b"],"item":[1,2]}`, "a/1 b/2"},
		{`{"user":"a"}`, "item: missing"},
		{`{"user":"a","item":1.5}`, "1.5 is not written as an integer"},
		{`{"user":"a","item":null}`, "a string or an integer"},
		{`{"user":"","item":1}`, "user: empty"},
		{`{"user":[],"item":1}`, "user: empty"},
		{`{"user":"` + strings.Repeat("x", 513) + `","item":1}`, "longer than 512 bytes"},
		{`{"user":["a","b","c","d"],"item":1}`, "more than 3 rows"},
		{`{"user":["a","b"],"item":[1,2,3]}`, "item: 3 values, user has 2"},
		{`{"user":"a","user":"b","item":1}`, "given twice"},
		{`{"user":"a","item":1} x`, "text after the end"},
		{``, "empty"},
	} {
		var r KeysRequest
		r.Begin(names, 3)
		var got []string
		if err := r.Decode([]byte(c.body)); err != nil {
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %s", c.body, err, c.want)
			}
			continue
		}
		for row := range r.Rows {
			got = append(got, string(r.Value(0, row))+"/"+string(r.Value(1, row)))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q, want %s", c.body, got, c.want)
		}
	}
	var r KeysRequest
	r.Begin(names, 3)
	if err := r.Set(0, []byte("a")); err != nil || string(r.Value(0, 5)) != "a" {
		t.Error(err)
	}
	if err := r.Set(1, nil); err == nil || err.Error() != "item: missing" {
		t.Error(err)
	}
}

// FuzzKeys: what is read has a value for each name and row.
func FuzzKeys(f *testing.F) {
	f.Add([]byte(`{"user":["a","b"],"item":[1,2]}`))
	f.Add([]byte(`{"user":"a","item":-7,"x":null}`))
	var r KeysRequest
	f.Fuzz(func(t *testing.T, body []byte) {
		before := bytes.Clone(body)
		r.Begin([]string{"user", "item"}, 10)
		err := r.Decode(body)
		if !bytes.Equal(before, body) {
			t.Fatal("the body was changed")
		}
		if err != nil {
			return
		}
		if r.Rows < 1 || r.Rows > 10 {
			t.Fatalf("%d rows", r.Rows)
		}
		for row := range r.Rows {
			for name := range 2 {
				if n := len(r.Value(name, row)); n == 0 || n > maxKey {
					t.Fatalf("a value of %d bytes", n)
				}
			}
		}
	})
}

func tensorOf(t *testing.T, dt inference.DataType, n int64) *inference.Tensor {
	t.Helper()
	var x inference.Tensor
	if err := x.Reset(dt, []int64{n}); err != nil {
		t.Fatal(err)
	}
	return &x
}

func TestRows(t *testing.T) {
	var r RowReader
	x := tensorOf(t, inference.FP32, 3)
	for i, text := range []string{"1.5", " -2e1 ", "NaN"} {
		if err := r.Number(x, i, []byte(text)); err != nil {
			t.Error(err)
		}
	}
	if v := x.Float32s(); v[0] != 1.5 || v[1] != -20 || v[2] == v[2] {
		t.Error(v)
	}
	for _, text := range []string{"", "1,2", "a", "1]", "[1]x", "0x1", "+1"} {
		if err := r.Number(x, 0, []byte(text)); err == nil {
			t.Errorf("%q was read", text)
		}
	}
	if err := r.Numbers(x, 0, 3, []byte("[1,[2,3]]")); err != nil || x.Float32s()[2] != 3 {
		t.Error(err, x.Float32s())
	}
	if err := r.Numbers(x, 0, 3, []byte("[1,2]")); err == nil || !strings.Contains(err.Error(), "2 numbers where 3 are expected") {
		t.Error(err)
	}
	fields := map[string]int{"a": 0, "b": 1, "c": 2}
	gone := ""
	missing := func(i int) error { gone += string("abc"[i]); Blank(x, i, true); return nil }
	if err := r.Members(x, 0, fields, []byte(`{"c":7,"x":[{}],"b":null}`), missing); err != nil || gone != "ab" || x.Float32s()[2] != 7 || !math.IsNaN(float64(x.Float32s()[1])) {
		t.Error(err, gone, x.Float32s())
	}
	for text, want := range map[string]string{
		`{"a":1,"a":2}`: "given twice", `{"a":"1"}`: `"1" is no FP32`, `[1,2,3]`: "'{' is expected", `{"a":[1,2]}`: "is no FP32", `{"a":1`: "ends where",
	} {
		if err := r.Members(x, 0, fields, []byte(text), missing); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	n := tensorOf(t, inference.Int64, 2)
	if err := r.Number(n, 0, []byte("9007199254740993")); err != nil {
		t.Error(err)
	}
	if err := r.Number(n, 1, []byte("1.5")); err == nil {
		t.Error("1.5 was read as an integer")
	}
	if v := inference.View[int64](n); v[0] != 9007199254740993 {
		t.Error(v)
	}
	if err := r.Bytes(n, 0, 2, make([]byte, 16)); err != nil || inference.View[int64](n)[0] != 0 {
		t.Error(err)
	}
	if err := r.Bytes(n, 0, 2, make([]byte, 15)); err == nil || !strings.Contains(err.Error(), "15 bytes where 16 are expected, 2 of INT64") {
		t.Error(err)
	}
	if err := r.Bytes(tensorOf(t, inference.Bool, 1), 0, 1, []byte{2}); err == nil {
		t.Error("2 was read as a BOOL")
	}
}

// FuzzRow: whatever a store holds, nothing but the row is written.
func FuzzRow(f *testing.F) {
	for _, text := range []string{`{"a":1,"b":2}`, `[1,2]`, `NaN`, `{"a":null}`, "\x00\x00\x80\x3f\x00\x00\x80\x3f"} {
		f.Add([]byte(text))
	}
	fields := map[string]int{"a": 0, "b": 1}
	f.Fuzz(func(t *testing.T, text []byte) {
		var r RowReader
		x := tensorOf(t, inference.FP32, 4)
		check := func() {
			if v := x.Float32s(); v[0] != 7 || v[3] != 7 {
				t.Fatalf("%v", v)
			}
		}
		for i := range x.Float32s() {
			x.Float32s()[i] = 7
		}
		_ = r.Number(x, 1, text)
		check()
		_ = r.Numbers(x, 1, 3, text)
		check()
		_ = r.Members(x, 1, fields, text, func(i int) error { Blank(x, 1+i, false); return nil })
		check()
		_ = r.Bytes(x, 1, 3, text)
		check()
	})
}
