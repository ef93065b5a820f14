package task

import (
	"context"
	"time"
)

// Numbers are what one looks at to see whether there are runners enough.
type Numbers struct {
	Depth   uint64        // tasks that wait
	Running uint64        // tasks that run, or wait to be tried again
	Oldest  time.Duration // since the oldest of both was accepted
	Dead    uint64        // tasks that are parked
	Used    uint64        // bytes, of all streams of this queue
	Limit   uint64        // how many those may be; 0: not known
	Full    bool          // nothing new is taken
}

// Numbers asks the queue how much there is to do.
func (q *Queue) Numbers(ctx context.Context) (n Numbers, err error) {
	r, err := q.get()
	if err != nil {
		return n, err
	}
	ctx, cancel := context.WithTimeout(ctx, setupLimit)
	defer cancel()
	for _, m := range r.models {
		info, err := m.stream.Info(ctx)
		if err != nil {
			return n, unavailable(err)
		}
		n.Used += info.State.Bytes
		if info.State.Msgs > 0 {
			n.Oldest = max(n.Oldest, time.Since(info.State.FirstTime))
		}
		for _, c := range m.consumers {
			ci, err := c.Info(ctx)
			if err != nil {
				return n, unavailable(err)
			}
			n.Depth += ci.NumPending
			n.Running += uint64(ci.NumAckPending)
		}
	}
	dead, err := r.dead.Info(ctx)
	if err != nil {
		return n, unavailable(err)
	}
	n.Dead = dead.State.Msgs
	if s := q.state.Load(); s != nil {
		n.Used, n.Limit, n.Full = s.Used, s.Limit, s.Full != ""
	}
	return n, nil
}
