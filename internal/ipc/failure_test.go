package ipc

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"
)

func TestFailureCrossesInOneLine(t *testing.T) {
	f := &Failure{Exit: ExitBoot, What: "two\nlines", Try: "another \"model\""}
	line := EncodeFailure(f)
	for _, r := range line {
		if r == '\n' {
			t.Fatalf("%q has a line break", line)
		}
	}
	got, err := DecodeFailure(line)
	if err != nil || *got != *f {
		t.Errorf("%+v, %v", got, err)
	}
	if got.Error() != "two\nlines\n  try: another \"model\"" {
		t.Errorf("%q", got)
	}
}

func TestExitStatus(t *testing.T) {
	f := &Failure{Exit: ExitConfig, What: "x", Err: fs.ErrNotExist}
	wrapped := fmt.Errorf("serve: %w", f)
	if ExitStatus(nil) != 0 || ExitStatus(errors.New("x")) != 1 || ExitStatus(wrapped) != 78 {
		t.Error(ExitStatus(nil), ExitStatus(errors.New("x")), ExitStatus(wrapped))
	}
	if !errors.Is(wrapped, fs.ErrNotExist) {
		t.Error("the cause is lost")
	}
}

func FuzzDecodeFailure(f *testing.F) {
	f.Add(`{"exit":3,"what":"x"}`)
	f.Add(`{"exit":0,"what":"x"}`)
	f.Add(`{"exit":300,"what":""}`)
	f.Add(`null`)
	f.Fuzz(func(t *testing.T, s string) {
		got, err := DecodeFailure(s)
		if (got == nil) == (err == nil) {
			t.Fatalf("%v, %v", got, err)
		}
		if got != nil && (got.Exit < 1 || got.Exit > 255 || got.What == "") {
			t.Errorf("no process can end with %+v", got)
		}
	})
}
