package broker

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"preforkd/internal/ipc"
)

// contents are the streams of a store, each with its consumers.
type contents map[string][]string

// stored is what lies on the disk, in dir: a directory a stream, and in it one a consumer.
func stored(dir string) contents {
	all := contents{}
	for _, name := range directories(filepath.Join(dir, "streams")) {
		all[name] = directories(filepath.Join(dir, "streams", name, "obs"))
	}
	return all
}

func directories(dir string) (names []string) {
	entries, _ := os.ReadDir(dir) // a directory that there is not has none
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names
}

// recovered is what the server says that it has.
type recovered map[string]*server.StreamDetail

func (e *engine) found() (recovered, error) {
	info, err := e.srv.Jsz(&server.JSzOptions{Accounts: true, Streams: true, Consumer: true, DirectConsumer: true})
	if err != nil {
		return nil, fmt.Errorf("ask the task queue's server what it has: %w", err)
	}
	all := recovered{}
	for _, a := range info.AccountDetails {
		for i := range a.Streams {
			all[a.Streams[i].Name] = &a.Streams[i]
		}
	}
	return all, nil
}

// counts is what a mark keeps of it.
func (r recovered) counts() map[string]count {
	all := map[string]count{}
	for name, s := range r {
		if name != canaryStream {
			all[name] = count{Messages: s.State.Msgs, Last: s.State.LastSeq}
		}
	}
	return all
}

// judge compares what lay on the disk with what the server has made of it. A stream that is
// missing is an error. Consumers that are missing are moved aside, as the server would refuse to
// make them again; they hold only what is being worked on, and tasks are then given out once more:
// again says that the server has to look anew. Messages that are missing are said, loudly.
func (b *broker) judge(before contents, found recovered) (again bool, err error) {
	var lost []string
	for name := range before {
		if found[name] == nil {
			lost = append(lost, name)
		}
	}
	if len(lost) > 0 {
		slices.Sort(lost)
		dir := filepath.Join(b.serverDir(), "streams")
		return false, &ipc.Failure{
			Exit: ipc.ExitUnavailable,
			What: fmt.Sprintf("the task queue's store is damaged: of its streams %s cannot be read, in %s; nothing of them is served, and nothing is written over them", strings.Join(lost, ", "), dir),
			Try:  "put the directories back from a copy, or move them away: what is in them is lost then",
		}
	}
	for name, consumers := range before {
		for _, c := range consumers {
			if found.has(name, c) {
				continue
			}
			if err := b.setAside(name, c); err != nil {
				return false, err
			}
			again = true
		}
	}
	if !again {
		b.compare(found)
	}
	return again, nil
}

// has tells whether the stream has a consumer called name.
func (r recovered) has(stream, name string) bool {
	s := r[stream]
	return s != nil && slices.ContainsFunc(append(slices.Clone(s.Consumer), s.DirectConsumer...), func(c *server.ConsumerInfo) bool { return c.Name == name })
}

// setAside moves the state of a consumer that cannot be read out of the server's way.
func (b *broker) setAside(stream, consumer string) error {
	from := filepath.Join(b.serverDir(), "streams", stream, "obs", consumer)
	to := filepath.Join(b.Dir, "damaged", time.Now().UTC().Format("20060102T150405.000000000"), stream+"."+consumer)
	err := os.MkdirAll(filepath.Dir(to), 0o700)
	if err == nil {
		err = os.Rename(from, to)
	}
	if err != nil {
		return fmt.Errorf("move what is damaged of the task queue aside: %w", err)
	}
	b.Log.Error("task queue damaged: who works on what is not known any more; those tasks are given out again", "stream", stream, "consumer", consumer, "moved", to)
	return nil
}

// compare says which messages are missing that were there.
func (b *broker) compare(found recovered) {
	m, err := readMark(b.Dir)
	if err != nil {
		b.Log.Warn("whether the task queue has lost anything is not known", "err", err)
		return
	}
	for name, s := range found {
		missing := uint64(0)
		if s.State.Lost != nil {
			missing = uint64(len(s.State.Lost.Msgs))
		}
		if was, ok := m.Streams[name]; ok {
			if s.State.LastSeq < was.Last {
				missing = max(missing, was.Last-s.State.LastSeq)
			}
			if m.Clean && s.State.Msgs < was.Messages {
				missing = max(missing, was.Messages-s.State.Msgs)
			}
		}
		if missing > 0 {
			b.Log.Error("task queue damaged: messages are lost", "stream", name, "lost", missing, "left", s.State.Msgs, "store", b.Dir)
			b.tell(fmt.Sprintf("X_PREFORKD_LOST=%s %d", name, missing))
		}
	}
}

// mark is what a broker had, as it knew last.
type mark struct {
	// Clean says that nothing was written after it.
	Clean   bool             `json:"clean"`
	Streams map[string]count `json:"streams"`
}

type count struct {
	Messages uint64 `json:"messages"`
	Last     uint64 `json:"last"` // the last one's number
}

const markName = "mark.json"

func writeMark(dir string, m mark) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, markName)
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func readMark(dir string) (m mark, err error) {
	data, err := os.ReadFile(filepath.Join(dir, markName))
	if os.IsNotExist(err) {
		return m, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	return m, err
}
