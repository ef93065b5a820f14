package repository

import (
	"strings"
	"testing"

	"preforkd/internal/ipc"
)

func TestDeclaredTensors(t *testing.T) {
	put := func(name, dataType string, dims ...int64) ipc.TensorSettings {
		return ipc.TensorSettings{Name: name, DataType: dataType, Dims: dims, At: "m/config.pbtxt:7:3"}
	}
	reshaped := put("label", "INT64", 1)
	reshaped.Reshaped = true
	flat := put("pixels", "FP32", 8, 8)
	flat.Reshape, flat.Reshaped = []int64{8, 8}, true
	for name, c := range map[string]struct {
		batch   int64
		in, out []ipc.TensorSettings
		want    string
	}{
		"nothing":            {},
		"batches":            {batch: 4, in: []ipc.TensorSettings{put("pixels", "FP32", 64)}, out: []ipc.TensorSettings{put("probabilities", "FP32", 10), reshaped}},
		"no batches":         {in: []ipc.TensorSettings{put("pixels", "FP32", -1, 64)}},
		"one size":           {in: []ipc.TensorSettings{put("pixels", "FP32", 1, 64)}},
		"other type":         {in: []ipc.TensorSettings{put("pixels", "INT64", -1, 64)}, want: `m/config.pbtxt:7:3: input "pixels": data_type is INT64, the graph's is FP32`},
		"other name":         {out: []ipc.TensorSettings{put("digit", "INT64", -1)}, want: `m/config.pbtxt:7:3: output: the graph has no output "digit", only "label", "probabilities"`},
		"other dims":         {batch: 4, in: []ipc.TensorSettings{put("pixels", "FP32", 63)}, want: `input "pixels": dims are [63], the graph's [64]`},
		"any size":           {batch: 4, in: []ipc.TensorSettings{put("pixels", "FP32", -1)}, want: `input "pixels": dims are [-1], the graph's [64]`},
		"batch is written":   {batch: 4, in: []ipc.TensorSettings{put("pixels", "FP32", -1, 64)}, want: `dims are [-1 64], the graph's [64] without the batch's; leave out the first one`},
		"batch is left out":  {in: []ipc.TensorSettings{put("pixels", "FP32", 64)}, want: `dims are [64], the graph's [-1 64]; with the first one, or set max_batch_size`},
		"reshape is another": {batch: 4, in: []ipc.TensorSettings{flat}, want: `input "pixels": reshape is [8 8], the graph's [64]`},
	} {
		e := &engine{models: map[string]*model{"good": classifier()}}
		f := file("m", "1")
		f.Options = ipc.ModelSettings{MaxBatchSize: c.batch, Inputs: c.in, Outputs: c.out, File: "m/config.pbtxt"}
		_, err := Load(e, []ipc.ModelFile{f})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v\nwant %s", name, err, c.want)
		}
		if err != nil && e.open != 0 {
			t.Errorf("%s: %d models stay open", name, e.open)
		}
	}
	fixed := classifier()
	fixed.in[0].Shape = []int64{1, 64}
	f := file("m", "1")
	f.Options = ipc.ModelSettings{MaxBatchSize: 8, File: "m/config.yaml"}
	_, err := Load(&engine{models: map[string]*model{"good": fixed}}, []ipc.ModelFile{f})
	if err == nil || !strings.Contains(err.Error(), `m/config.yaml: max_batch_size: 8, and input "pixels" of the graph has the shape [1 64]`) {
		t.Error(err)
	}
}
