package fifo

// Line is a line of elements of type T. The zero value is empty.
type Line[T any] struct {
	first, last *Place[T]
	length      int
}

// Place is an element's place in a line; it may be used again once the element has left. The
// zero value is in none.
type Place[T any] struct {
	Of         T // whose place it is
	prev, next *Place[T]
	stands     bool
}

// Len returns how many stand in l.
func (l *Line[T]) Len() int { return l.length }

// First returns the place of who came first, nil if nobody stands in l.
func (l *Line[T]) First() *Place[T] { return l.first }

// Next returns the place behind p, nil if p is the last one or in no line.
func (p *Place[T]) Next() *Place[T] { return p.next }

// Stands tells whether p is in a line.
func (p *Place[T]) Stands() bool { return p.stands }

// Push puts p, which is in no line, at the end of l.
func (l *Line[T]) Push(p *Place[T]) {
	if p.prev = l.last; l.last != nil {
		l.last.next = p
	} else {
		l.first = p
	}
	l.last, p.stands = p, true
	l.length++
}

// Remove takes p, which is in l, out of it.
func (l *Line[T]) Remove(p *Place[T]) {
	if p.prev != nil {
		p.prev.next = p.next
	} else {
		l.first = p.next
	}
	if p.next != nil {
		p.next.prev = p.prev
	} else {
		l.last = p.prev
	}
	p.prev, p.next, p.stands = nil, nil, false
	l.length--
}
