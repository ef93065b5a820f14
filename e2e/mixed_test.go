package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"preforkd/internal/testkit"
	"preforkd/internal/testkit/digits"
)

const (
	mixedClients = 8
	// mixedBlock is how many samples a request has. How many rows run at once may change the last
	// digit of an answer, so that all ask for the same blocks.
	mixedBlock = 6
)

// mixedAnswer is what a model says of a block of samples.
type mixedAnswer struct {
	labels        []int64
	probabilities []float32 // of one row after the other
}

func (a mixedAnswer) equal(b mixedAnswer) bool {
	return slices.Equal(a.labels, b.labels) && slices.Equal(a.probabilities, b.probabilities)
}

// mixedModels are all models of the repository; that with weights of 8 bits has no answers of
// scikit-learn's.
var mixedModels = append(slices.Clone(digits.Names), "digits-int8")

// mixed is a client that asks in every form for every model.
type mixed struct {
	set digits.Set
	v2  *v2Client
}

// TestMixedClients has clients ask at once for all models in all forms. Every answer is the one
// that was given before, when nobody else asked.
func TestMixedClients(t *testing.T) {
	set := digits.Load(t)
	s := testkit.Start(t, testkit.Options{})
	want := answersAlone(t, set, s.URL)
	var clients sync.WaitGroup
	for id := range mixedClients {
		clients.Go(func() {
			c := &mixed{set, newV2Client(s.URL)}
			defer c.v2.http.CloseIdleConnections()
			random := rand.New(rand.NewPCG(1, uint64(id)))
			for range times(100, 5000) {
				if err := c.askAny(random, want); err != nil {
					t.Errorf("client %d: %v", id, err)
					return
				}
			}
		})
	}
	clients.Wait()
}

// answersAlone are those of every model to every block while nobody else asks, which are
// scikit-learn's.
func answersAlone(t *testing.T, set digits.Set, url string) map[string][]mixedAnswer {
	t.Helper()
	alone := &mixed{set, newV2Client(url)}
	defer alone.v2.http.CloseIdleConnections()
	want := map[string][]mixedAnswer{}
	for _, model := range mixedModels {
		for block := range len(set.Pixels) / mixedBlock {
			answer, err := alone.askBinary(model, block)
			if err != nil {
				t.Fatalf("%s, block %d: %v", model, block, err)
			}
			want[model] = append(want[model], answer)
			checkBlock(t, set, model, block, answer)
		}
	}
	return want
}

// checkBlock compares with scikit-learn.
func checkBlock(t *testing.T, set digits.Set, model string, block int, got mixedAnswer) {
	t.Helper()
	want, ok := set.Answers[model]
	if !ok {
		return
	}
	from := block * mixedBlock
	for i, label := range got.labels {
		if label != want.Labels[from+i] {
			t.Errorf("%s: sample %d is %d, scikit-learn says %d", model, from+i, label, want.Labels[from+i])
		}
	}
	for i, p := range got.probabilities {
		sample, class := from+i/digits.Classes, i%digits.Classes
		if math.Abs(float64(p-want.Probabilities[sample][class])) > tolerance {
			t.Errorf("%s: sample %d, class %d: %v, scikit-learn says %v", model, sample, class, p, want.Probabilities[sample][class])
		}
	}
}

// askAny asks a random model in a random form for a random block.
func (c *mixed) askAny(random *rand.Rand, want map[string][]mixedAnswer) error {
	model := mixedModels[random.IntN(len(mixedModels))]
	block := random.IntN(len(want[model]))
	form := random.IntN(len(protocols) + 1)
	name := "V2, binary"
	var answer mixedAnswer
	var err error
	if form < len(protocols) {
		name = protocols[form].name
		answer, err = c.askText(&protocols[form], model, block)
	} else {
		answer, err = c.askBinary(model, block)
	}
	if err == nil && !answer.equal(want[model][block]) {
		err = fmt.Errorf("%v, before %v", answer, want[model][block])
	}
	if err != nil {
		return fmt.Errorf("%s, %s, block %d: %w", model, name, block, err)
	}
	return nil
}

func (c *mixed) samples(block int) [][digits.Features]float32 {
	return c.set.Pixels[block*mixedBlock : (block+1)*mixedBlock]
}

// askText asks in a form of JSON.
func (c *mixed) askText(p *protocol, model string, block int) (a mixedAnswer, err error) {
	body := p.body(mixedBlock, rowsText(c.samples(block)))
	resp, err := c.v2.http.Post(c.v2.url+fmt.Sprintf(p.path, model), "application/json", strings.NewReader(body))
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return a, fmt.Errorf("status %d, %v: %.300s", resp.StatusCode, err, data)
	}
	labels, rows, err := p.read(data)
	a.labels = labels
	for _, row := range rows {
		for _, v := range row {
			a.probabilities = append(a.probabilities, float32(v))
		}
	}
	return a, err
}

// askBinary asks with binary tensors.
func (c *mixed) askBinary(model string, block int) (a mixedAnswer, err error) {
	data, err := binary.Append(nil, binary.LittleEndian, c.samples(block))
	if err != nil {
		return a, err
	}
	outputs, err := c.v2.infer(model, []caseTensor{
		{Name: "pixels", Datatype: "FP32", Shape: []int64{mixedBlock, digits.Features}, Data: data},
	})
	for _, out := range outputs {
		switch out.Name {
		case "label":
			a.labels = make([]int64, mixedBlock)
			_, err = binary.Decode(out.Data, binary.LittleEndian, a.labels)
		case "probabilities":
			a.probabilities = make([]float32, mixedBlock*digits.Classes)
			_, err = binary.Decode(out.Data, binary.LittleEndian, a.probabilities)
		}
		if err != nil {
			return a, fmt.Errorf("output %q: %w", out.Name, err)
		}
	}
	if err == nil && (a.labels == nil || a.probabilities == nil) {
		err = errors.New("an output is missing")
	}
	return a, err
}
