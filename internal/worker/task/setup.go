package task

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Subjects and names. After the prefix: q MODEL PRIORITY NAME is a task that waits, s MODEL
// PRIORITY NAME its record, dead MODEL PRIORITY NAME one that is parked.
func (q *Queue) taskSubject(id ID) string   { return q.Prefix + ".q." + string(id) }
func (q *Queue) recordSubject(id ID) string { return q.Prefix + ".s." + string(id) }
func (q *Queue) deadSubject(id ID) string   { return q.Prefix + ".dead." + string(id) }
func (q *Queue) eventSubject(id ID) string  { return q.Prefix + ".ev." + string(id) }

// streamOf is the name of the stream of a model's tasks.
func (q *Queue) streamOf(model string) string { return q.Prefix + "_tasks_" + encode(model) }

// leastPayload is what the servers have to take: a message, and its headers.
const leastPayload = 1 << 20

// setUp makes all streams and consumers, or finds that they are there.
func (q *Queue) setUp(ctx context.Context, nc *nats.Conn, js jetstream.JetStream) error {
	q.mu.Lock()
	names := q.models
	q.mu.Unlock()
	if most := nc.MaxPayload(); nc.IsConnected() && most < leastPayload {
		return fmt.Errorf("its servers take messages of %d bytes, %d are needed: raise max_payload", most, leastPayload)
	}
	ctx, cancel := q.linked(ctx, setupLimit)
	defer cancel()
	r := &ready{nc: nc, js: js, models: map[string]*model{}}
	var err error
	if r.records, err = js.CreateOrUpdateStream(ctx, q.recordStream()); err != nil {
		return fmt.Errorf("make the stream of the tasks' records: %w", err)
	}
	if r.dead, err = js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: q.Prefix + "_dead", Subjects: []string{q.Prefix + ".dead.>"}, Storage: jetstream.FileStorage, Replicas: q.Replicas,
		MaxAge: deadFor, MaxMsgsPerSubject: 1, MaxBytes: q.MaxBytes, Discard: jetstream.DiscardOld,
	}); err != nil {
		return fmt.Errorf("make the stream of dead tasks: %w", err)
	}
	if r.inputs, err = q.blobStore(ctx, js, "in", q.MaxWait+q.MaxRun+q.ResultTTL); err == nil {
		r.results, err = q.blobStore(ctx, js, "out", q.ResultTTL+time.Minute)
	}
	if err != nil {
		return fmt.Errorf("make the store of large inputs and results: %w", err)
	}
	for _, name := range names {
		if r.models[name], err = q.setUpModel(ctx, js, name); err != nil {
			return fmt.Errorf("make the queue of model %q: %w", name, err)
		}
	}
	q.ready.Store(r)
	return nil
}

// recordStream is what a key-value bucket of JetStream is, without its direct reads: those may meet
// a replica that has not heard of the latest record.
func (q *Queue) recordStream() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: q.Prefix + "_state", Subjects: []string{q.Prefix + ".s.>"}, Storage: jetstream.FileStorage, Replicas: q.Replicas,
		MaxMsgsPerSubject: 1, Discard: jetstream.DiscardNew, DenyDelete: true, AllowMsgTTL: true, SubjectDeleteMarkerTTL: time.Minute, Duplicates: time.Minute,
	}
}

func (q *Queue) setUpModel(ctx context.Context, js jetstream.JetStream, name string) (m *model, err error) {
	m = &model{name: name}
	token := encode(name)
	m.stream, err = js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: q.streamOf(name), Subjects: []string{q.Prefix + ".q." + token + ".>"}, Storage: jetstream.FileStorage, Replicas: q.Replicas,
		Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew, MaxMsgs: q.MaxTasks, MaxBytes: q.MaxBytes,
		MaxMsgsPerSubject: 1, DiscardNewPerSubject: true, MaxMsgSize: messageBytes, Duplicates: 2 * time.Minute,
	})
	for i, prio := range [...]string{high, low} {
		if err == nil {
			m.consumers[i], err = m.stream.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
				Durable: "run_" + prio, FilterSubject: q.Prefix + ".q." + token + "." + prio + ".*", AckPolicy: jetstream.AckExplicitPolicy,
				AckWait: q.AckWait, MaxDeliver: -1, MaxAckPending: mostPending, MaxWaiting: mostPulls,
			})
		}
	}
	return m, err
}

// blobStore makes the store of objects that go after a time, whoever forgets them.
func (q *Queue) blobStore(ctx context.Context, js jetstream.JetStream, kind string, ttl time.Duration) (jetstream.ObjectStore, error) {
	return js.CreateOrUpdateObjectStore(ctx, jetstream.ObjectStoreConfig{
		Bucket: q.Prefix + "_" + kind, Storage: jetstream.FileStorage, Replicas: q.Replicas, TTL: ttl,
	})
}
