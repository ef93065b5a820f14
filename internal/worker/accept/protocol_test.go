package accept

import "testing"

// The protocol of permits and queue, as docs/internals/queue.md has it, as a machine that is small
// enough to go through every order of steps: two workers with a permit each, as many requests as
// given, one of which may find the queue full, and one death, at any step.

const (
	modelWorkers  = 2
	modelRequests = 4
)

// Where a request that has just come to a worker is.
const (
	noArrival  int8 = iota
	arrived         // it may look whether anybody waits
	looked          // the word differs: it asks the kernel
	unaware         // nobody waits: it takes a permit, if there is one
	toPut           // it raises the word
	putting         // it sends
	put             // it raises the word again
	toLineHere      // it could not be sent, and waits in the worker's line
)

// Where a taker is.
const (
	asleep   int8 = iota // until the queue is readable
	awake                // it looks for a permit
	standing             // in the worker's line
	holding              // a permit; it receives
)

// lineRoom is as many as may stand in a worker's line: its taker, and requests.
const lineRoom = modelRequests + 1

type modelWorker struct {
	free, running int8
	taker         int8
	line          [lineRoom]int8 // 0: none, 1: the taker, 2: a request
	arrival       int8
	at            int8 // what the word was for the arrival
	emptyAt       int8
	edge          bool // it has been told that the queue has become readable; of a broken taker
}

type model struct {
	workers [modelWorkers]modelWorker
	queue   int8
	word    int8
	left    int8 // requests to come
	full    int8 // times that the queue may yet be full
	deaths  int8
}

// rules are how a taker behaves; the zero value is how ours does.
type rules struct {
	edges   bool // it sleeps until something is put, though something may be there
	forgets bool // it gives the permit of an empty receive to nobody who stands in line
}

// next calls visit with each state that one step leads to.
func (m model) next(r rules, visit func(model)) {
	for i := range m.workers {
		m.arrive(i, visit)
		m.take(i, r, visit)
		w := &m.workers[i]
		if w.running > 0 { // one ends
			n := m
			n.workers[i].running--
			n.workers[i].release()
			visit(n)
		}
		if m.deaths > 0 {
			n := m
			n.deaths--
			n.workers[i] = fresh(m.word)
			visit(n)
		}
	}
}

func fresh(word int8) modelWorker { return modelWorker{free: 1, emptyAt: word - 1} }

// arrive is a step of a request that has come to worker i.
func (m model) arrive(i int, visit func(model)) {
	n := m
	w := &n.workers[i]
	switch w.arrival {
	case noArrival:
		if m.left == 0 {
			return
		}
		n.left--
		w.arrival = arrived
	case arrived:
		w.at = n.word
		if w.arrival = looked; w.at == w.emptyAt {
			w.arrival = unaware
		}
	case looked:
		if w.arrival = toPut; n.queue == 0 {
			w.arrival, w.emptyAt = unaware, w.at
		}
	case unaware:
		if w.arrival = toPut; w.free > 0 {
			w.free--
			w.running++
			w.arrival = noArrival
		}
	case toPut:
		n.word++
		w.arrival = putting
	case putting:
		if m.full > 0 {
			f := n
			f.full--
			f.workers[i].arrival = toLineHere
			visit(f)
		}
		n.queue++
		for j := range n.workers {
			n.workers[j].edge = true
		}
		w.arrival = put
	case put:
		n.word++
		w.arrival = noArrival
	case toLineHere:
		w.arrival = noArrival
		if w.free > 0 {
			w.free--
			w.running++
		} else {
			w.stand(2)
		}
	}
	visit(n)
}

// take is a step of worker i's taker.
func (m model) take(i int, r rules, visit func(model)) {
	n := m
	w := &n.workers[i]
	switch w.taker {
	case asleep:
		if m.queue == 0 || r.edges && !w.edge {
			return
		}
		w.taker, w.edge = awake, false
	case awake:
		if w.free > 0 {
			w.free--
			w.taker = holding
		} else {
			w.stand(1)
			w.taker = standing
		}
	case standing:
		return
	case holding:
		w.taker = asleep
		switch {
		case n.queue > 0:
			n.queue--
			w.running++
		case r.forgets:
			w.free++
		default:
			w.release()
		}
	}
	visit(n)
}

func (w *modelWorker) stand(who int8) {
	for i := range w.line {
		if w.line[i] == 0 {
			w.line[i] = who
			return
		}
	}
	panic("the line is too long for the model")
}

// release hands a permit on.
func (w *modelWorker) release() {
	first := w.line[0]
	copy(w.line[:], w.line[1:])
	w.line[lineRoom-1] = 0
	switch first {
	case 0:
		w.free++
	case 1:
		w.taker = holding
	case 2:
		w.running++
	}
}

// wrong says what must not be in any state; at the end of a history nobody waits.
func (m *model) wrong(end bool) string {
	for i := range m.workers {
		w := &m.workers[i]
		held := w.running
		if w.taker == holding {
			held++
		}
		switch {
		case w.free < 0 || w.free+held != 1:
			return "permits came or went"
		case w.free > 0 && w.line[0] != 0:
			return "somebody stands in line while a permit is free"
		case end && w.line[0] != 0:
			return "somebody stands in line for ever"
		case end && m.queue > 0:
			return "a request is in the queue for ever"
		}
	}
	return ""
}

// explore goes through all histories and returns what went wrong; empty: nothing.
func explore(r rules) (states int, wrong string) {
	begin := model{left: modelRequests, full: 1, deaths: 1}
	for i := range begin.workers {
		begin.workers[i] = fresh(0)
	}
	seen := map[model]bool{begin: true}
	for todo := []model{begin}; len(todo) > 0; {
		m := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		steps := 0
		m.next(r, func(n model) {
			steps++
			if !seen[n] {
				seen[n] = true
				todo = append(todo, n)
			}
		})
		// Nobody need die, so a state from which only deaths lead on is an end, too.
		if wrong := m.wrong(steps == 0 || m.deaths > 0 && steps == modelWorkers); wrong != "" {
			return len(seen), wrong
		}
	}
	return len(seen), ""
}

// TestNoWakeUpIsLost goes through every order of steps: none ends with a request in the queue and a
// permit free. Takers that are a little less careful are found out.
func TestNoWakeUpIsLost(t *testing.T) {
	states, wrong := explore(rules{})
	t.Logf("%d states", states)
	if wrong != "" || states < 1000 {
		t.Errorf("%d states: %s", states, wrong)
	}
	for name, r := range map[string]rules{"edges": {edges: true}, "forgets": {forgets: true}} {
		if _, wrong := explore(r); wrong == "" {
			t.Errorf("%s: nothing was found", name)
		}
	}
}
