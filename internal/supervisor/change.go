package supervisor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"preforkd/internal/ipc"
	"preforkd/internal/ipc/activation"
	"preforkd/internal/ipc/control"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/supervisor/cache"
	"preforkd/internal/supervisor/rollout"
	"preforkd/internal/supervisor/sizing"
	"preforkd/internal/supervisor/slot"
)

// A change of models loads or unloads a model while the generation goes on. A process of its
// own tries what is new first: it may end of it, and serves nobody. Then come two phases, as
// docs/internals/models.md has them: every worker prepares; if all have, the manifest is made
// anew, which is the decision, and every worker serves what it has prepared.

// modelOrder is what somebody wants to have done to a model.
type modelOrder struct {
	name    string
	unload  bool   // else load
	version string // to load; empty: as its settings choose
	pool    string // whose directory; empty: that of the main pool
	dir     string // the model's files, which an operator has sent; empty: those in the directory
	by      string // who wants it, for the log
	noWait  bool
}

// String is what operators call it.
func (o modelOrder) String() string {
	if o.unload {
		return "unload model " + o.name
	}
	return "load model " + o.name
}

// phases of a change.
type changePhase uint8

const (
	changeCollects changePhase = iota
	changeTries
	changePrepares
	changeCommits
	changeDrops
)

var changePhases = [...]string{"collect", "try", "prepare", "commit", "drop"}

// changing is the change of models under way, or one that waits.
type changing struct {
	modelOrder
	done chan changeEnd // with room for one; nil: nobody waits

	phase   changePhase
	began   time.Duration
	pools   []*pool
	next    map[*pool]ipc.ModelSet
	lease   *cache.Lease // of what is new
	found   []ipc.ModelFile
	made    map[*pool][]ipc.ModelFile // the same, with what is prepared for each
	trials  map[*poolSlot]bool        // true: passed
	number  uint64
	staged  []string         // directories to remove
	asked   map[*worker]bool // who has not answered in this phase
	queue   []*worker        // who is to prepare when others have
	atOnce  int              // how many prepare at a time
	refusal error            // why it is being dropped
}

type changeEnd struct {
	result admin.ModelResult
	err    error
}

func (ch *changing) end(e changeEnd) {
	if ch != nil && ch.done != nil {
		ch.done <- e
	}
}

// tries tells whether sl is that of a process that tries models for ch.
func (ch *changing) tries(sl *poolSlot) bool {
	if ch == nil {
		return false
	}
	_, ok := ch.trials[sl]
	return ok
}

// collectedEvent: the files of a model are in the cache, or cannot be.
type collectedEvent struct {
	ch    *changing
	found *cache.Collection
	made  map[*pool][]ipc.ModelFile
	err   error
}

// changeModels begins ch, or has it wait.
func (s *Supervisor) changeModels(ch *changing) {
	if err := s.mayOperate(ch.String(), ch.noWait); err != nil {
		ch.end(changeEnd{err: err})
		return
	}
	s.queued = append(s.queued, queued{change: ch})
	s.next()
}

// beginChange finds out which pools it is about, and has the files collected.
func (s *Supervisor) beginChange(ch *changing) {
	s.change, ch.began = ch, s.now()
	ch.trials, ch.next = map[*poolSlot]bool{}, map[*pool]ipc.ModelSet{}
	s.log.Info("change of models begins", "what", ch.String(), "by", ch.by)
	s.freeChanged()
	named, err := s.gen.poolNamed(ch.pool)
	if err == nil && named.other {
		err = &ipc.Failure{Exit: ipc.ExitUsage, What: fmt.Sprintf("%s: the workers of pool %s are not ours and have no models", ch, named.name), Try: "name another with --pool"}
	}
	if err != nil {
		s.endChange(err)
		return
	}
	for _, p := range s.gen.pools {
		if !p.other && p.cfg.Models.Dir == named.cfg.Models.Dir {
			ch.pools = append(ch.pools, p)
		}
	}
	if ch.unload {
		s.planChange(ch)
		return
	}
	o := named.cacheOptions()
	o.Version = ch.version
	dir := ch.dir
	if dir == "" {
		dir = filepath.Join(o.Models, ch.name)
	}
	workers := 0
	for _, p := range ch.pools {
		workers += p.size
	}
	fits := func(bytes uint64) error { // before anything is written; which of it can be shared is not known yet
		m := sizing.Models{Copied: bytes}
		if named.prepares(&ipc.ModelFile{Bytes: int64(min(bytes, 1<<62))}) {
			m = sizing.Models{Shared: bytes}
		}
		return s.fits(ch, named, workers, m)
	}
	pools := ch.pools
	go func() { // ends with its event
		found, err := cache.CollectOne(o, ch.name, dir, fits)
		made := map[*pool][]ipc.ModelFile{}
		for _, p := range pools {
			if err == nil {
				made[p] = slices.Clone(found.Models)
				s.prepareModels(p, made[p], found.Lease)
			}
		}
		s.send(collectedEvent{ch, found, made, err})
	}()
}

func (s *Supervisor) onCollected(e collectedEvent) {
	ch := e.ch
	if s.change != ch { // the service has stopped meanwhile
		if e.found != nil {
			e.found.Lease.Close()
		}
		return
	}
	if errors.Is(e.err, cache.ErrNoModel) {
		e.err = &ipc.Failure{
			Exit: ipc.ExitUsage, What: fmt.Sprintf("%s: %v", ch, e.err), Err: e.err,
			Try: "put it there, as NAME/1/" + ipc.DefaultModelFile + ", or send it along: preforkd models load NAME --file " + ipc.DefaultModelFile,
		}
	}
	if e.err != nil {
		s.endChange(e.err)
		return
	}
	for _, w := range e.found.Warnings {
		s.log.Warn("model directory", "warning", w)
	}
	ch.found, ch.made, ch.lease = e.found.Models, e.made, e.found.Lease
	if err := s.fitsMade(ch); err != nil {
		s.endChange(err)
		return
	}
	if ch.dir != "" {
		for i := range ch.found {
			m := &ch.found[i]
			m.Source = filepath.Join("uploaded", m.Name, m.Version, filepath.Base(m.Source))
			m.Options.File = strings.Replace(m.Options.File, ch.dir, filepath.Join("uploaded", m.Name), 1)
		}
	}
	s.planChange(ch)
}

// planChange says what each pool shall have, and begins, unless it has that already, or it
// cannot be.
func (s *Supervisor) planChange(ch *changing) {
	s.claimModels(ch.found)
	changes := false
	for _, p := range ch.pools {
		set := ch.after(p)
		ch.next[p] = set
		changes = changes || !reflect.DeepEqual(set.Models, p.models) || !slices.Equal(set.Unloaded, p.unloaded)
	}
	if err := s.mayChange(ch); err != nil {
		s.endChange(err)
		return
	}
	if !changes {
		s.endChange(nil)
		return
	}
	ch.phase = changeTries
	for _, p := range ch.pools {
		if fresh := ch.fresh(p); len(fresh) > 0 {
			if err := s.tryModels(ch, p, fresh); err != nil {
				s.endChange(err)
			}
			if s.change != ch { // it could not be started
				return
			}
		}
	}
	s.prepareWhenTried(ch)
}

// after returns what p has when ch has ended.
func (ch *changing) after(p *pool) (set ipc.ModelSet) {
	for _, m := range p.models {
		if m.Name != ch.name {
			set.Models = append(set.Models, m)
		} else if !slices.ContainsFunc(ch.found, func(f ipc.ModelFile) bool { return f.Version == m.Version }) {
			set.Unloaded = append(set.Unloaded, ipc.UnloadedModel{Name: m.Name, Version: m.Version, Reason: "unloaded"})
		}
	}
	for _, u := range p.unloaded {
		served := slices.ContainsFunc(ch.found, func(f ipc.ModelFile) bool { return f.Name == u.Name && f.Version == u.Version })
		if !served && !slices.Contains(set.Unloaded, u) {
			set.Unloaded = append(set.Unloaded, u)
		}
	}
	for i, m := range ch.found {
		m.Prepared, m.Shared = ch.made[p][i].Prepared, ch.made[p][i].Shared
		set.Models = append(set.Models, m)
	}
	slices.SortStableFunc(set.Models, func(a, b ipc.ModelFile) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(set.Unloaded, func(a, b ipc.UnloadedModel) int {
		return strings.Compare(a.Name+"/"+a.Version, b.Name+"/"+b.Version)
	})
	return set
}

// fresh returns the models that p gets by ch and has not as they are.
func (ch *changing) fresh(p *pool) (fresh []ipc.ModelFile) {
	for _, m := range ch.next[p].Models {
		if !slices.ContainsFunc(p.models, func(o ipc.ModelFile) bool { return reflect.DeepEqual(o, m) }) {
			fresh = append(fresh, m)
		}
	}
	return fresh
}

// mayChange says why ch cannot be carried out.
func (s *Supervisor) mayChange(ch *changing) error {
	known := false
	for _, p := range ch.pools {
		of := func(name string) bool { return name == ch.name }
		if p.count(slot.Ready) == 0 {
			return &ipc.Failure{
				Exit: ipc.ExitTryAgain, What: fmt.Sprintf("%s: no worker of pool %s is ready", ch, p.name), Try: "preforkd status shows why; try again when one is",
			}
		}
		known = known || slices.ContainsFunc(p.models, func(m ipc.ModelFile) bool { return of(m.Name) }) ||
			slices.ContainsFunc(p.unloaded, func(u ipc.UnloadedModel) bool { return of(u.Name) })
		if want := p.cfg.Predict.Model; ch.unload && of(want) {
			return &ipc.Failure{
				Exit: ipc.ExitConfig, What: fmt.Sprintf("%s: it is that of POST /predict, %s", ch, p.key("predict.model")),
				Try: "name another there and preforkd reload, or remove the setting",
			}
		}
	}
	if ch.unload && !known {
		return &ipc.Failure{Exit: ipc.ExitUsage, What: fmt.Sprintf("%s: there is no such model", ch), Try: "preforkd models ls shows which there are"}
	}
	return nil
}

// fits says why models cannot be loaded by so many workers.
func (s *Supervisor) fits(ch *changing, p *pool, workers int, m sizing.Models) error {
	if why := sizing.RefuseModels(s.room(p), workers, m); why != "" {
		return &ipc.Failure{Exit: ipc.ExitTryAgain, What: fmt.Sprintf("%s: %s", ch, why), Try: "unload another, free memory, or scale down"}
	}
	return nil
}

// fitsMade is fits once it is known what can be shared, as that of trees cannot.
func (s *Supervisor) fitsMade(ch *changing) error {
	for _, p := range ch.pools {
		var m sizing.Models
		for _, f := range ch.made[p] {
			if slices.ContainsFunc(p.models, func(o ipc.ModelFile) bool { return o.Digest == f.Digest && o.Prepared == f.Prepared }) {
				continue // it is loaded
			}
			shared := min(f.Bytes, f.Shared)
			m.Shared, m.Copied = m.Shared+uint64(shared), m.Copied+uint64(f.Bytes-shared)
		}
		if m == (sizing.Models{}) {
			continue
		}
		if err := s.fits(ch, p, p.size, m); err != nil {
			return err
		}
	}
	return nil
}

// trialNice is the priority of a process that tries models: where others want the core it gets
// a seventieth of it (sched(7)).
const trialNice = 19

// tryModels starts a process that loads models of p and nothing else, and serves nobody.
func (s *Supervisor) tryModels(ch *changing, p *pool, models []ipc.ModelFile) error {
	alone := *p
	alone.models, alone.unloaded, alone.slots, alone.manifest, alone.trial = models, nil, nil, -1, true
	if err := alone.seal(); err != nil {
		return err
	}
	sl := &poolSlot{pool: &alone, index: p.size, startHeld: true}
	ch.trials[sl] = false
	s.start(sl)
	activation.Close(alone.manifest)
	return nil
}

// changeHears takes notice of what has happened to w.
func (s *Supervisor) changeHears(w *worker, kind rollout.Kind, why string) {
	ch := s.change
	if ch == nil || kind != rollout.OnReady && kind != rollout.OnLost && kind != rollout.OnEnded {
		return
	}
	if passed, trial := ch.trials[w.slot]; trial {
		s.trialHears(ch, w, kind, why, passed)
		return
	}
	if !slices.Contains(ch.pools, w.slot.pool) {
		return
	}
	switch {
	case kind == rollout.OnReady && ch.phase == changePrepares: // it has started from what is served still
		ch.queue = append(ch.queue, w)
		s.askQueued(ch)
	case kind == rollout.OnReady:
	case ch.phase == changePrepares:
		s.dropChange(ch, &ipc.Failure{
			Exit: ipc.ExitRolledBack, What: fmt.Sprintf("worker %d of pool %s ended meanwhile: %s", w.slot.index, w.slot.pool.name, why),
			Try: "preforkd events shows why; try again when it is ready",
		})
	case kind == rollout.OnEnded && ch.asked[w]:
		delete(ch.asked, w)
		s.changeGoesOn(ch)
	}
}

// trialHears takes notice of a process that tries models.
func (s *Supervisor) trialHears(ch *changing, w *worker, kind rollout.Kind, why string, passed bool) {
	switch {
	case kind == rollout.OnReady:
		s.askChange(ch, w, ipc.ControlSelfTest)
	case kind == rollout.OnLost: // its end follows
		if ch.refusal == nil && !passed {
			ch.refusal = errors.New(why)
		}
	case passed:
		delete(ch.trials, w.slot)
		s.prepareWhenTried(ch)
	default:
		delete(ch.trials, w.slot)
		if ch.refusal == nil {
			ch.refusal = errors.New(why)
		}
		s.endChange(ch.rolledBack(ch.refusal))
	}
}

// rolledBack is what an operator reads of a model that is at fault.
func (ch *changing) rolledBack(why error) error {
	f := (*ipc.Failure)(nil)
	if errors.As(why, &f) && (f.Exit == ipc.ExitRolledBack || f.Exit == ipc.ExitTryAgain || f.Exit == ipc.ExitUnavailable) {
		return &ipc.Failure{Exit: f.Exit, What: fmt.Sprintf("%s: %s", ch, f.What), Try: f.Try, Err: why}
	}
	return &ipc.Failure{
		Exit: ipc.ExitRolledBack, What: fmt.Sprintf("%s: %v", ch, why), Err: why,
		Try: withoutTry(why.Error(), "correct it and load it again; what was served is served"),
	}
}

// prepareWhenTried has every worker prepare, once what is new has been tried.
func (s *Supervisor) prepareWhenTried(ch *changing) {
	if len(ch.trials) > 0 || ch.phase != changeTries {
		return
	}
	ch.phase, ch.number = changePrepares, s.shared.board.Change().Add(1)
	s.log.Info("change of models: all workers prepare", "change", ch.number)
	for _, p := range ch.pools {
		ch.queue = append(ch.queue, s.servingOf(p)...)
	}
	ch.atOnce = max(int(s.room(ch.pools[0]).Cores)/loadingShare, 1)
	s.askQueued(ch)
}

// loadingShare: one core in so many may load at a time, and at least one. The others are left to
// requests: a worker that wakes up does not preempt even one of low priority (SCHED_BATCH in
// sched(7)), but goes to a core that is free.
const loadingShare = 4

// askQueued has those prepare whose turn it is.
func (s *Supervisor) askQueued(ch *changing) {
	for ch.phase == changePrepares && len(ch.queue) > 0 && len(ch.asked) < ch.atOnce {
		w := ch.queue[0]
		ch.queue = ch.queue[1:]
		s.askChange(ch, w, ipc.ControlPrepare)
	}
}

// servingOf returns the workers of p that are ready, by slot.
func (s *Supervisor) servingOf(p *pool) (list []*worker) {
	for _, w := range s.byPID {
		if w.slot.pool == p && w.state == slot.Ready {
			list = append(list, w)
		}
	}
	slices.SortFunc(list, func(a, b *worker) int { return a.slot.index - b.slot.index })
	return list
}

// workerHandlers answer what w asks.
func (s *Supervisor) workerHandlers(w *worker) map[string]control.Handler {
	return map[string]control.Handler{ipc.ControlModel: s.orderOf(w.slot.pool.name), ipc.ControlMemory: s.hearMemory(w)}
}

// unstage removes what ch has put into the cache for a while.
func (ch *changing) unstage() {
	for _, dir := range ch.staged {
		_ = os.RemoveAll(dir) // else it is swept
	}
	ch.staged = nil
}
