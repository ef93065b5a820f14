package scoreboard

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestLayersOutliveTheirProcess: what a settled row has refused stays, what ran and waited in it
// does not; and a board of another layout goes on from there.
func TestLayersOutliveTheirProcess(t *testing.T) {
	b := board(t, 2)
	for i, pid := range []int{11, 12} {
		r, err := b.Claim(Holder{Slot: i})
		if err != nil {
			t.Fatal(err)
		}
		r.SetPID(pid)
		r.Layers[LayerAsync].Running.Add(2)
		r.Layers[LayerSync].Waiting.Set(5)
		r.Layers[LayerSync].Refused.Add(3)
		r.Layers[LayerCompute].Running.Set(1)
	}
	if _, ok := b.Rows()[0].Settle(11, 0, ExitUnknown); !ok {
		t.Fatal("it was not settled")
	}
	want := [knownLayers]LayerState{{Running: 2}, {Waiting: 5, Refused: 6}, {Running: 1}}
	if got := b.LayerStates(); got != want {
		t.Errorf("%+v", got)
	}
	next, fd, err := Create(2)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	defer next.Close()
	if err := next.Carry(b.Sums()); err != nil {
		t.Fatal(err)
	}
	if got := next.LayerStates(); got != [knownLayers]LayerState{LayerSync: {Refused: 6}} {
		t.Errorf("carried: %+v", got)
	}
}

// TestLayersOfAnEarlierBoard: it has no section for them, and a worker counts for itself.
func TestLayersOfAnEarlierBoard(t *testing.T) {
	whole := image(t, 2)
	sections, err := parseHeader(whole, uint64(len(whole)))
	if err != nil {
		t.Fatal(err)
	}
	delete(sections, sectionLayers)
	var earlier []section
	for _, s := range sections {
		earlier = append(earlier, s)
	}
	clear(whole[:headerBytes])
	writeHeader(whole, earlier)
	fd := file(t, whole, fixedSize)
	defer unix.Close(fd)
	b, err := Open(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	r, err := b.Claim(Holder{})
	if err != nil {
		t.Fatal(err)
	}
	r.Layers[LayerSync].Refused.Add(1)
	if got := b.LayerStates()[LayerSync].Refused; got != 1 {
		t.Errorf("%d", got)
	}
}
