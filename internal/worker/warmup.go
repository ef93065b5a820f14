package worker

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"preforkd/internal/inference"
	"preforkd/internal/ipc"
)

// described makes the inputs that a config.pbtxt describes, in the model's order.
func described(in *[]inference.Tensor, infos []inference.TensorInfo, list []ipc.WarmupInput) error {
	*in = make([]inference.Tensor, len(infos))
	for i := range infos {
		info := &infos[i]
		at := slices.IndexFunc(list, func(w ipc.WarmupInput) bool { return w.Name == info.Name })
		if at < 0 {
			return fmt.Errorf("it has no input %q", info.Name)
		}
		w := &list[at]
		dt := inference.ParseDataType([]byte(w.DataType))
		if err := info.Check(dt, w.Shape); err != nil {
			return err
		}
		t := &(*in)[i]
		if err := t.Reset(dt, w.Shape); err != nil {
			return fmt.Errorf("input %q: %w", info.Name, err)
		}
		t.Name = info.Name
		clear(t.Raw())
		switch {
		case w.File != "" && len(w.Data) != len(t.Raw()):
			return fmt.Errorf("input %q: the file %s has %d bytes, %v values of %s are %d", info.Name, w.File, len(w.Data), w.Shape, dt, len(t.Raw()))
		case w.File != "":
			copy(t.Raw(), w.Data)
		case w.Random:
			randomize(t)
		}
	}
	for _, w := range list {
		if !has(infos, w.Name) {
			return fmt.Errorf("input %q: the model has none of this name", w.Name)
		}
	}
	return nil
}

// randomize fills t with numbers from 0 to 1, the same ones each time: a self-test that
// passes by chance is of no use.
func randomize(t *inference.Tensor) {
	r := rand.New(rand.NewPCG(1, 2))
	raw, size := t.Raw(), t.DataType.Size()
	for ; len(raw) > 0; raw = raw[size:] {
		switch v := r.Float32(); t.DataType {
		case inference.FP32:
			binary.LittleEndian.PutUint32(raw, math.Float32bits(v))
		case inference.FP64:
			binary.LittleEndian.PutUint64(raw, math.Float64bits(float64(v)))
		case inference.BF16: // the upper half of an FP32
			binary.LittleEndian.PutUint16(raw, uint16(math.Float32bits(v)>>16))
		case inference.FP16:
			binary.LittleEndian.PutUint16(raw, 0x3800|uint16(r.Uint32N(1<<10))) // from 0.5 to 1
		default:
			raw[0] = byte(r.Uint32N(2)) // whole numbers often are indices
		}
	}
}
