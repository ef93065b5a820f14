package scoreboard

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func key(name, version string, content byte) ModelKey {
	return ModelKey{name, version, strings.Repeat(fmt.Sprintf("%02x", content), 32)}
}

func claimModel(t testing.TB, b *Board, k ModelKey) *Model {
	t.Helper()
	m, err := b.ClaimModel(k)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := m.Key(); !ok || got != k || b.Model(m.Number()) != m {
		t.Fatalf("row %d is of %+v, want %+v", m.Number(), got, k)
	}
	return m
}

// TestModelKeepsItsRow: another process sees it, the same content finds it again, other
// content does not, and a row that nobody names begins anew.
func TestModelKeepsItsRow(t *testing.T) {
	b, fd := boardFD(t, 1)
	defer unix.Close(fd)
	bad := claimModel(t, b, key("bad", "3", 1))
	good := claimModel(t, b, key("good", "3", 1))
	want := Quarantine{Count: 3, Window: time.Minute, Cause: "crash: exit status 2", Request: 1<<63 | 5, Since: time.Unix(1700000000, 1)}
	bad.Blame(7)
	bad.Blame(want.Request)
	bad.Quarantine(want)

	other, err := Open(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	seen := other.Model(bad.Number())
	if got := seen.Why(); !seen.Quarantined() || got != want || seen.Deaths.Load() != 2 || seen.Request() != want.Request {
		t.Errorf("%+v, %d deaths, want %+v", got, seen.Deaths.Load(), want)
	}
	if other.Model(good.Number()).Quarantined() {
		t.Error("the other model is quarantined")
	}
	if again := claimModel(t, other, key("bad", "3", 1)); again != seen {
		t.Error("the same model has another row")
	}
	for _, k := range []ModelKey{key("bad", "3", 2), key("bad", "4", 1), key("worse", "3", 1)} {
		if m := claimModel(t, b, k); m == bad || m.Quarantined() {
			t.Errorf("%+v has the row of another model", k)
		}
	}
	seen.Release()
	if bad.Quarantined() || bad.Deaths.Load() != 2 {
		t.Error("not released")
	}

	bad.Quarantine(want)
	b.FreeModels(func(m *Model) bool { return m == good })
	if k, ok := seen.Key(); ok {
		t.Errorf("%+v kept its row", k)
	}
	if _, ok := other.Model(good.Number()).Key(); !ok {
		t.Error("the model that was to be kept was not")
	}
	next := claimModel(t, b, key("bad", "3", 1))
	if next.Quarantined() || next.Deaths.Load() != 0 || next.Request() != 0 || next.Why().Cause != "" || next.Number() != bad.Number() {
		t.Errorf("a free row had something to say: %+v", next.Why())
	}
}

func TestModelRowsAreFew(t *testing.T) {
	b := board(t, 1)
	for i := range newModels {
		claimModel(t, b, key(fmt.Sprint("m", i), "1", 0))
	}
	if _, err := b.ClaimModel(key("late", "1", 0)); err != ErrNoModelRow {
		t.Error(err)
	}
	claimModel(t, b, key("m7", "1", 0))
	for _, n := range []int{-1, 0, newModels + 1} {
		if b.Model(n) != nil {
			t.Errorf("there is a row %d", n)
		}
	}
}

func TestModelKeys(t *testing.T) {
	b := board(t, 1)
	for name, k := range map[string]ModelKey{
		"no name":      key("", "1", 0),
		"long name":    key(strings.Repeat("n", 256), "1", 0),
		"zero":         key("a\x00b", "1", 0),
		"no version":   key("a", "", 0),
		"long version": key("a", strings.Repeat("1", 32), 0),
		"no digest":    {"a", "1", ""},
		"short digest": {"a", "1", strings.Repeat("0", 62)},
		"odd digest":   {"a", "1", strings.Repeat("0", 63)},
		"no hex":       {"a", "1", strings.Repeat("g", 64)},
	} {
		if m, err := b.ClaimModel(k); err == nil {
			t.Errorf("%s: row %d", name, m.Number())
		}
	}
	claimModel(t, b, key(strings.Repeat("n", 255), strings.Repeat("1", 31), 255))
}

// TestLongCause: it is cut, not through a character.
func TestLongCause(t *testing.T) {
	m := claimModel(t, board(t, 1), key("m", "1", 0))
	m.Quarantine(Quarantine{Cause: "x" + strings.Repeat("é", 100)})
	if got := m.Why().Cause; got != "x"+strings.Repeat("é", 63) {
		t.Errorf("%q", got)
	}
	m.Quarantine(Quarantine{Cause: strings.Repeat("c", 128)})
	if got := m.Why().Cause; got != strings.Repeat("c", 128) {
		t.Errorf("%q", got)
	}
}

// TestModelClaimsExclude: two models never share a row.
func TestModelClaimsExclude(t *testing.T) {
	b := board(t, 1)
	var wg sync.WaitGroup
	var mu sync.Mutex
	rows := map[int]string{}
	for g := range 8 {
		wg.Go(func() {
			for i := range newModels / 8 {
				name := fmt.Sprint(g, "-", i)
				m, err := b.ClaimModel(key(name, "1", byte(g)))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if other := rows[m.Number()]; other != "" {
					t.Errorf("%s and %s share row %d", name, other, m.Number())
				}
				rows[m.Number()] = name
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

// TestEntered: a row names a model only between Enter and Leave, and never after its
// process was settled.
func TestEntered(t *testing.T) {
	b := board(t, 1)
	r, err := b.Claim(Holder{})
	if err != nil {
		t.Fatal(err)
	}
	r.SetPID(5)
	r.Enter(3, 99)
	if model, request := r.Entered(); model != 3 || request != 99 {
		t.Error(model, request)
	}
	r.Leave()
	if model, _ := r.Entered(); model != 0 {
		t.Error(model)
	}
	r.Enter(4, 100)
	r.Settle(5, 0, ExitUnknown)
	if model, request := r.Entered(); model != 0 || request != 0 {
		t.Error("settled:", model, request)
	}
	if n := testing.AllocsPerRun(10, func() { r.Enter(1, 2); r.Leave() }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// useModels does with the models of a board that somebody made whatever can be done.
func useModels(t *testing.T, b *Board) {
	for n := range 3 {
		if m := b.Model(n); m != nil {
			m.Key()
			m.Why().Describe("m", "1")
			m.Blame(1)
			m.Quarantine(Quarantine{Cause: strings.Repeat("c", 200)})
		}
	}
	b.FreeModels(func(*Model) bool { return false })
	if m, err := b.ClaimModel(key("m", "1", 1)); err == nil && (m.Quarantined() || m.Deaths.Load() != 0) {
		t.Errorf("a free row had something to say: %+v", m.Why())
	}
}

// twice is a board of one row, as two processes have it.
func twice(t *testing.T) (b, other *Board) {
	t.Helper()
	b, fd, err := Create(1)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	t.Cleanup(func() { b.Close() })
	if other, err = Open(fd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	return b, other
}

// TestServedIsOneForAll who hold the row, and begins anew with another model.
func TestServedIsOneForAll(t *testing.T) {
	b, other := twice(t)
	m, err := b.ClaimModel(ModelKey{"m", "1", strings.Repeat("ab", 32)})
	if err != nil {
		t.Fatal(err)
	}
	now := time.UnixMilli(1234567)
	for _, row := range []*Model{m, other.Model(m.Number())} {
		row.Requests.Add(2)
		row.Inferences.Add(7)
		row.Failures.Add(1)
		row.OutputNs.Add(5)
		row.Mark(now)
	}
	if last, ok := m.Last(); m.Requests.Load() != 4 || m.Inferences.Load() != 14 || m.Failures.Load() != 2 || m.OutputNs.Load() != 10 || !ok || !last.Equal(now) {
		t.Errorf("%d, %d, %d, %d, %v", m.Requests.Load(), m.Inferences.Load(), m.Failures.Load(), m.OutputNs.Load(), last)
	}
	b.FreeModels(func(*Model) bool { return false })
	if m, err = b.ClaimModel(ModelKey{"n", "1", strings.Repeat("cd", 32)}); err != nil || m.Number() != 1 {
		t.Fatal(m.Number(), err)
	}
	if _, ok := m.Last(); m.Requests.Load()+m.Inferences.Load()+m.Failures.Load()+m.OutputNs.Load() > 0 || ok {
		t.Error("another model's numbers")
	}
}
