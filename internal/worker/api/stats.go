package api

import (
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"preforkd/internal/inference/repository"
	"preforkd/internal/worker/codec"
)

// times are when a request reached what, since epoch; 0: it did not.
type times struct {
	start    int64 // it had been read
	asked    int64 // it waited for a permit
	admitted int64 // it had one
	decoded  int64 // its tensors had been read, and it waited for a runner
	began    int64 // its model ran
	ran      int64 // its model had run
	stored   int64 // how long a store took to give its rows
	sent     bool  // it was answered with the model's outputs
	led      bool  // the run was its own, others may have been joined to it
	rows     int   // elements of its batch
}

func (t *times) queued() time.Duration  { return time.Duration(t.admitted - t.asked) }
func (t *times) batched() time.Duration { return time.Duration(t.began - t.decoded) }
func (t *times) run() time.Duration     { return time.Duration(t.ran - t.began) }
func (t *times) read() time.Duration {
	return time.Duration(t.asked - t.start - t.stored + t.decoded - t.admitted)
}

// Served is how a request to a model went.
type Served struct {
	Failed bool
	Batch  int  // elements of its batch
	Led    bool // it is the one of its run that counts the run
	// What it took: all of it, waiting for its turn, reading its tensors, the engine, and
	// writing the answer. Of one that failed only the first is known.
	Total, Queue, Input, Engine, Output time.Duration
}

func (t *times) served() Served {
	end := now()
	s := Served{Failed: !t.sent, Batch: t.rows, Led: t.led, Total: time.Duration(end - t.start)}
	if t.sent {
		s.Queue, s.Input, s.Engine, s.Output = t.queued()+t.batched(), t.read(), t.run(), time.Duration(end-t.ran)
	}
	return s
}

// Stats is what was counted of a model, of all workers together.
type Stats struct {
	Requests, Inferences, Executions uint64
	Failures                         uint64
	Last                             time.Time // the latest answer; zero: none
	// Sums over the requests, as in Served; Failed over those that failed.
	Total, Queue, Input, Engine, Output, Failed time.Duration
}

// stats answers GET /v2/models/stats and /v2/models/NAME[/versions/VERSION]/stats: the
// statistics extension. Clients of the reference server want every key.
func (a *API) stats(ctx *fasthttp.RequestCtx, t target) error {
	models, err := a.counted(t)
	if err != nil {
		return err
	}
	b := append(ctx.Response.SwapBody(nil)[:0], `{"model_stats":[`...)
	for i, m := range models {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendStats(b, m, a.Stats(m))
	}
	sendJSON(ctx, append(b, "]}"...))
	return nil
}

// counted returns the models that a request for statistics means: every version of all, of
// one, or one version.
func (a *API) counted(t target) (models []*repository.Model, err error) {
	if len(t.version) > 0 {
		m, err := a.find(t)
		return []*repository.Model{m}, err
	}
	for _, m := range a.Models.Every() {
		if len(t.model) == 0 || m.Name == string(t.model) {
			models = append(models, m)
		}
	}
	if len(models) == 0 {
		_, err = a.find(t) // says what there is none of
	}
	return models, err
}

func appendStats(b []byte, m *repository.Model, s Stats) []byte {
	b = append(b, `{"name":`...)
	b = codec.AppendString(b, m.Name)
	b = append(b, `,"version":`...)
	b = codec.AppendString(b, m.Version)
	last := int64(0)
	if !s.Last.IsZero() {
		last = s.Last.UnixMilli()
	}
	b = append(b, `,"last_inference":`...)
	b = strconv.AppendInt(b, last, 10)
	b = append(b, `,"inference_count":`...)
	b = strconv.AppendUint(b, s.Inferences, 10)
	b = append(b, `,"execution_count":`...)
	b = strconv.AppendUint(b, s.Executions, 10)
	b = append(b, `,"inference_stats":{`...)
	b = appendDuration(b, "success", s.Requests, s.Total)
	b = appendDuration(append(b, ','), "fail", s.Failures, s.Failed)
	b = appendDuration(append(b, ','), "queue", s.Requests, s.Queue)
	b = appendDuration(append(b, ','), "compute_input", s.Requests, s.Input)
	b = appendDuration(append(b, ','), "compute_infer", s.Requests, s.Engine)
	b = appendDuration(append(b, ','), "compute_output", s.Requests, s.Output)
	b = appendDuration(append(b, ','), "cache_hit", 0, 0)
	b = appendDuration(append(b, ','), "cache_miss", 0, 0)
	return append(b, `},"response_stats":{},"batch_stats":[],"memory_usage":[]}`...)
}

func appendDuration(b []byte, name string, count uint64, sum time.Duration) []byte {
	b = append(append(append(b, '"'), name...), `":{"count":`...)
	b = strconv.AppendUint(b, count, 10)
	b = append(b, `,"ns":`...)
	b = strconv.AppendInt(b, int64(sum), 10)
	return append(b, '}')
}
