package plan

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"

	"preforkd/internal/supervisor/sizing"
)

func random(r *rand.Rand) Input {
	latency := Time(1 + r.Int64N(int64(time.Second)))
	return Input{
		Cores: 0.1 + 63*r.Float64(), Memory: 1 + r.Uint64N(1<<r.IntN(42)),
		Own: 1 + r.Uint64N(1<<r.IntN(31)), Common: r.Uint64N(1 << r.IntN(28)), Weights: r.Uint64N(1 << r.IntN(37)), Pod: r.Uint64N(1 << r.IntN(28)),
		Shared: r.IntN(2) == 0, Latency: latency, CPU: Time(1 + r.Int64N(int64(latency))),
		Target: Time(1 + r.Int64N(8*int64(latency))), Rate: float64(r.IntN(2)) * 1000 * r.Float64(), Price: float64(r.IntN(2)),
		Source: "given",
	}
}

func total(r Report) int {
	if r.Best == nil {
		return 0
	}
	return r.Best.Pods * r.Best.Workers
}

// TestNeverExceedsMemory: what is recommended fits, beside a reload and everything else; so does
// each of its pods within the limit that is asked for it, by the service's own arithmetic.
func TestNeverExceedsMemory(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	fits := 0
	for range 1500 {
		in := random(r)
		p := Make(in)
		for _, l := range append(p.Layouts, p.Reduced...) {
			if l.Fits != (l.Needs <= p.Room) || l.Fits != (l.Short == 0) || !l.Fits && l.Needs-l.Short != p.Room || l.Left > l.Rate {
				t.Fatalf("%+v: %+v", in, l)
			}
			if want := map[bool]uint64{true: l.OneCopy, false: l.Copies}[in.Shared]; l.Needs != want {
				t.Fatalf("%+v: %+v", in, l)
			}
		}
		l := p.Best
		if l == nil {
			if anyFits(in.layouts(1)) {
				t.Fatalf("%+v: one worker fits, and is not recommended", in)
			}
			continue
		}
		fits++
		if l.Needs > sizing.Room(in.Memory) || sizing.Room(in.limit(*l))*uint64(l.Pods) < l.Needs-uint64(l.Pods) || p.Reason == "" {
			t.Fatalf("%+v: %+v", in, l)
		}
		n := in.need(in.Shared)
		inPod := sizing.Decide(sizing.Input{
			Cores: in.podCores(*l), Available: in.limit(*l), Private: n.Private, Shared: n.Shared, Asked: l.Workers,
		})
		if inPod.Workers != l.Workers || inPod.Warning != "" {
			t.Fatalf("%+v: the service would not run %+v: %+v", in, l, inPod)
		}
		if k := p.Pods; k != nil && k.Least > 0 && k.Least < 1e6 && float64(k.Least)*k.Each < in.Rate*(1-1e-9) {
			t.Fatalf("%+v: %+v", in, k)
		}
	}
	if fits < 150 {
		t.Errorf("only %d of the inputs fit", fits)
	}
}

// TestMoreIsNeverLess: more cores or memory never mean fewer workers, larger models never more;
// nor does a machine of more whole cores carry less in one pod.
func TestMoreIsNeverLess(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 250 {
		in := random(r)
		in.Rate = 0 // a rate chooses for another reason
		one := most(Make(in))
		for what, change := range map[string]func(*Input){
			"cores":  func(i *Input) { i.Cores += r.Float64() * 8 },
			"memory": func(i *Input) { i.Memory += r.Uint64N(1 << 34) },
		} {
			more := in
			if change(&more); most(Make(more)) < one {
				t.Fatalf("more %s: %+v has fewer workers than %+v", what, more, in)
			}
		}
		larger := in
		larger.Weights += r.Uint64N(1 << 30)
		larger.Own += r.Uint64N(1 << 30)
		if most(Make(larger)) > one {
			t.Fatalf("larger models: %+v has more workers than %+v", larger, in)
		}
		whole := float64(1 + r.IntN(32))
		if a, b := in.podRate(int(whole), whole), in.podRate(int(whole)+1, whole+1); b < a {
			t.Fatalf("%+v: %v cores carry %v, one more %v", in, whole, a, b)
		}
	}
}

// most is how many workers one pod of the layouts that fit has; Best may divide them otherwise.
func most(r Report) int {
	all := r.Layouts
	if r.Reduced != nil {
		all = r.Reduced
	}
	if total(r) == 0 {
		return 0
	}
	return all[0].Pods * all[0].Workers
}

// TestTutorialsOption: 8 workers with 2 GB each do not fit into 16 GB.
func TestTutorialsOption(t *testing.T) {
	r := Make(Input{
		Cores: 8, Memory: 16 << 30, Own: 64 << 20, Common: 40 << 20, Weights: 2 << 30, Pod: 48 << 20,
		Latency: Time(40 * time.Millisecond), Target: Time(200 * time.Millisecond), Source: "given",
	})
	a := r.Layouts[0]
	// 9 workers, as a reload has one more, twice 40 MiB in common, and main process and supervisor
	const needs = 9*(64<<20+2<<30) + 2*40<<20 + 48<<20
	if a.Pods != 1 || a.Workers != 8 || a.Fits || a.Needs != needs || a.Short != needs-12<<30 {
		t.Errorf("%+v", a)
	}
	if r.Best == nil || total(r) != 4 || r.Reduced == nil {
		t.Errorf("%+v", r.Best)
	}
}

func TestCapacity(t *testing.T) {
	if c := CapacityOf(3, 4, WaitsEach); c.Waits != 12_000 || c.Computations != 12 {
		t.Errorf("%+v", c)
	}
}

func TestLayer(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: LayerDirect, 49 * time.Millisecond: LayerDirect, 50 * time.Millisecond: LayerDirect,
		51 * time.Millisecond: LayerWorkers, time.Second: LayerWorkers, time.Second + 1: LayerTasks,
	} {
		if got := Layer(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

func TestBend(t *testing.T) {
	for _, c := range []struct {
		rates []float64
		want  int
	}{
		{[]float64{100}, 1},
		{[]float64{100, 195, 290, 300}, 3},
		{[]float64{100, 90, 300}, 1},
		{[]float64{100, 151, 202}, 3},
		{[]float64{0, 0}, 2},
		{[]float64{1500, 1000}, 1},
	} {
		var steps []Step
		for i, rate := range c.rates {
			steps = append(steps, Step{Workers: i + 1, Rate: rate})
		}
		if b := bend(steps); b.Workers != c.want || b.Why == "" {
			t.Errorf("%v: %+v, want %d", c.rates, b, c.want)
		}
	}
	if bend(nil) != nil {
		t.Error("a bend of nothing")
	}
}

func TestStage(t *testing.T) {
	in := Input{
		Cores: 4, Memory: 16 << 30, Own: 64 << 20, Latency: Time(40 * time.Millisecond), Target: Time(200 * time.Millisecond), Source: "measured",
	}
	verified := []Step{{Workers: 1, Rate: 20}}
	for what, c := range map[string]struct {
		change func(*Input)
		want   int
	}{
		"given":            {func(i *Input) { i.Source = "given" }, 1},
		"not verified":     {func(*Input) {}, 1},
		"verified":         {func(i *Input) { i.Steps = verified }, 2},
		"more than it has": {func(i *Input) { i.Steps, i.Rate = verified, 300 }, 3},
		"very much more":   {func(i *Input) { i.Rate = 1e5 }, 4},
		"too slow":         {func(i *Input) { i.Target = Time(time.Millisecond) }, 4},
		"does not fit":     {func(i *Input) { i.Memory = 1 << 20 }, 1},
	} {
		i := in
		c.change(&i)
		if s := Make(i).Step; s.Now != c.want || s.At == "" || s.Next == "" {
			t.Errorf("%s: %+v, want %d", what, s, c.want)
		}
	}
}

// TestForms: any plan can be written in each form, and Kubernetes reads its own.
func TestForms(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 250 {
		in := random(r)
		p := Make(in)
		var text, manifest strings.Builder
		if err := p.Text(&text); err != nil || !strings.Contains(text.String(), "\nNext: step ") || strings.ContainsAny(text.String(), "\x00%!") && strings.Contains(text.String(), "%!") {
			t.Fatalf("%+v: %v\n%s", in, err, text.String())
		}
		if _, err := json.Marshal(p); err != nil {
			t.Fatalf("%+v: %v", in, err)
		}
		err := p.Kubernetes(&manifest)
		if p.Best == nil {
			if err == nil {
				t.Fatalf("%+v: limits for what does not fit", in)
			}
			continue
		}
		var d appsv1.Deployment
		if err == nil {
			err = yaml.UnmarshalStrict([]byte(manifest.String()), &d)
		}
		if err != nil {
			t.Fatalf("%+v: %v\n%s", in, err, manifest.String())
		}
		box := d.Spec.Template.Spec.Containers[0].Resources
		cpu, memory := box.Limits.Cpu(), box.Limits.Memory()
		if !cpu.Equal(*box.Requests.Cpu()) || !memory.Equal(*box.Requests.Memory()) || cpu.MilliValue() < 1 || float64(cpu.MilliValue()) > in.Cores*1000 ||
			uint64(memory.Value()) != in.limit(*p.Best) || *d.Spec.Replicas < 1 {
			t.Fatalf("%+v:\n%s", in, manifest.String())
		}
	}
}

// TestPreparing: the process that prepares is planned with what it took where that was measured,
// and matters only where weights are shared and a pod's limit has no room for it.
func TestPreparing(t *testing.T) {
	l := Layout{Pods: 1, Workers: 8, Needs: 1 << 20}
	for weights, measured := range map[uint64]uint64{67e6: 190e6, 504e6: 1170e6} {
		in := Input{Own: 1 << 20, Weights: weights, Shared: true}
		beside := 8*in.Own + weights
		if got := in.preparing(l); got < beside+measured || got > beside+measured*11/10 {
			t.Errorf("%d of weights: %d, measured %d", weights, got-beside, measured)
		}
		in.Shared = false
		if got := in.preparing(l); got != 0 {
			t.Errorf("%d with copies", got)
		}
	}
	roomy := Layout{Pods: 1, Workers: 8, Needs: 2 << 30}
	if got := (Input{Weights: 504e6, Shared: true}).preparing(roomy); got != 0 {
		t.Errorf("%d within a limit of %d", got, Input{}.limit(roomy))
	}
}
