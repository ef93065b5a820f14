package scoreboard

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTallies are one for all who open the board, by name, and go along with its sums.
func TestTallies(t *testing.T) {
	b, other := twice(t)
	b.Tally("a").Add(2)
	other.Tally("a").Add(3)
	other.Tally("b").Add(1)
	long := strings.Repeat("x", 48) // there is no room for its end
	b.Tally(long).Add(1)
	b.Tally(long).Add(1)
	want := map[string]uint64{"a": 5, "b": 1, long: 2}
	if got := b.Tallies(); !maps.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if got := other.Tallies(); got["a"] != 5 || got[long] != 0 {
		t.Errorf("%v", got)
	}
	for i := range 2 * newTallies { // more than it has
		b.Tally(fmt.Sprint(i)).Add(uint64(i))
		want[fmt.Sprint(i)] = uint64(i)
	}
	if got := b.Tallies(); !maps.Equal(got, want) {
		t.Errorf("%v", got)
	}
	next, nextFD, err := Create(1)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(nextFD)
	defer next.Close()
	next.Tally("a").Add(1)
	if err := next.Carry(b.Sums()); err != nil {
		t.Fatal(err)
	}
	if got := next.Tallies(); got["a"] != 6 || got[long] != 2 || got["7"] != 7 {
		t.Errorf("%v", got)
	}
}

// TestTalliesOfAnEarlierBoard: it has no section for them, and counts all the same.
func TestTalliesOfAnEarlierBoard(t *testing.T) {
	b := &Board{}
	b.Tally("a").Add(2)
	b.Tally("a").Add(2)
	if got := b.Tallies(); !maps.Equal(got, map[string]uint64{"a": 4}) {
		t.Errorf("%v", got)
	}
}
