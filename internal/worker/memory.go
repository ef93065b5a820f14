package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
)

// A worker says every memoryEvery how much memory it has, and every mapsEvery what of its models'
// weights it has mapped. The kernel walks its page tables for either answer, in a time
// that grows with the memory there is; no request waits for it. A worker that is so large that it
// takes more than 5 ms asks more seldom: it spends a thousandth of one core on it at most.
const (
	memoryEvery = 5 * time.Second
	mapsEvery   = time.Minute
	memoryShare = 1000
)

// keepMemory writes the memory of this process into its row until ctx ends, after what large
// requests have needed is given back.
func (w *worker) keepMemory(ctx context.Context) {
	timer := time.NewTimer(memoryEvery)
	defer timer.Stop()
	mapsAt := time.Now().Add(2 * memoryEvery) // by then the first requests have touched some
	for {
		select {
		case <-timer.C:
			w.api.GiveBack()
			began := time.Now()
			w.measureMemory()
			timer.Reset(max(memoryEvery, memoryShare*time.Since(began)))
			if began.After(mapsAt) {
				began = time.Now()
				w.reportModels()
				mapsAt = time.Now().Add(max(mapsEvery, memoryShare*time.Since(began)))
			}
		case <-ctx.Done():
			return
		}
	}
}

// measureMemory writes it once. What cannot be read is said once, and is no error: there
// are kernels without smaps_rollup.
func (w *worker) measureMemory() {
	u, err := readUsage()
	if err == nil {
		w.row.PSS.Set(u.pss)
		w.row.Private.Set(u.anonymous)
		w.row.Shared.Set(u.rss - min(u.anonymous, u.rss))
		return
	}
	if !w.memoryUnknown {
		w.memoryUnknown = true
		w.log.Warn("memory of this worker not known", "err", err)
	}
}

// usage is what smaps_rollup says of a process (proc_pid_smaps(5)), in bytes. What is not
// anonymous is in the page cache, once for all who map it, whether others do so by now or not:
// that is why the lines Private and Shared tell less.
type usage struct {
	pss, rss        int64
	anonymous, swap int64
}

// own is what the process has of its own, also where that is swapped out.
func (u usage) own() int64 { return u.anonymous + u.swap }

func readUsage() (usage, error) {
	data, err := os.ReadFile("/proc/self/smaps_rollup")
	if err != nil {
		return usage{}, err
	}
	return parseUsage(data)
}

func parseUsage(rollup []byte) (u usage, err error) {
	for line := range bytes.Lines(rollup) {
		name, rest, _ := bytes.Cut(line, []byte(":"))
		into, must := u.field(string(name))
		if into == nil {
			continue
		}
		fields := bytes.Fields(rest)
		n := int64(-1)
		if len(fields) == 2 && string(fields[1]) == "kB" {
			n, err = strconv.ParseInt(string(fields[0]), 10, 52)
		}
		if n < 0 || err != nil {
			return usage{}, fmt.Errorf("smaps_rollup: %q is no number of kB", bytes.TrimSpace(line))
		}
		if *into = n << 10; must {
			*into = max(*into, 1) // it is said, as no process has nothing
		}
	}
	if u.pss == 0 || u.rss == 0 {
		return usage{}, errors.New("smaps_rollup has no lines that begin with Pss and Rss")
	}
	return u, nil
}

// field returns where the line of that name goes, nil for others, and whether it must be there.
func (u *usage) field(name string) (into *int64, must bool) {
	switch name {
	case "Pss":
		return &u.pss, true
	case "Rss":
		return &u.rss, true
	case "Anonymous":
		return &u.anonymous, false
	case "Swap":
		return &u.swap, false
	}
	return nil, false
}
