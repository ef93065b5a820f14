package api

import (
	"strconv"

	"github.com/valyala/fasthttp"

	"preforkd/internal/inference"
	"preforkd/internal/worker/codec"
)

// signature is the name under which TensorFlow's clients look for a model's tensors.
const signature = "serving_default"

// v1Metadata answers GET /v1/models/…/metadata: inputs and outputs as the signature
// that TensorFlow Serving would have, in the JSON form of its protocol buffers, where a
// number of 64 bits is a string.
func (a *API) v1Metadata(ctx *fasthttp.RequestCtx, t target) error {
	m, err := a.servable(t)
	if err != nil {
		return err
	}
	b := append(ctx.Response.SwapBody(nil)[:0], `{"model_spec":{"name":`...)
	b = codec.AppendString(b, m.Name)
	b = append(b, `,"signature_name":"","version":`...)
	b = codec.AppendString(b, m.Version)
	b = append(b, `},"metadata":{"signature_def":{"signature_def":{"`+signature+`":{"inputs":`...)
	b = appendTensorInfos(b, m.Inputs())
	b = append(b, `,"outputs":`...)
	b = appendTensorInfos(b, m.Outputs())
	b = append(b, `,"method_name":"tensorflow/serving/predict"}}}}}`...)
	sendJSON(ctx, b)
	return nil
}

// appendTensorInfos appends an object with a TensorInfo for each tensor.
func appendTensorInfos(b []byte, list []inference.TensorInfo) []byte {
	b = append(b, '{')
	for i := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = codec.AppendString(b, list[i].Name)
		b = append(b, `:{"dtype":"`...)
		b = append(b, tensorflowType(list[i].DataType)...)
		b = append(b, `","tensor_shape":{"dim":[`...)
		for j, size := range list[i].Shape {
			if j > 0 {
				b = append(b, ',')
			}
			b = append(b, `{"size":"`...)
			b = strconv.AppendInt(b, size, 10)
			b = append(b, `","name":""}`...)
		}
		b = append(b, `],"unknown_rank":false},"name":`...)
		b = codec.AppendString(b, list[i].Name)
		b = append(b, '}')
	}
	return append(b, '}')
}

// tensorflowTypes are the names in tensorflow/core/framework/types.proto.
var tensorflowTypes = [...]string{
	inference.Bool:   "DT_BOOL",
	inference.Uint8:  "DT_UINT8",
	inference.Uint16: "DT_UINT16",
	inference.Uint32: "DT_UINT32",
	inference.Uint64: "DT_UINT64",
	inference.Int8:   "DT_INT8",
	inference.Int16:  "DT_INT16",
	inference.Int32:  "DT_INT32",
	inference.Int64:  "DT_INT64",
	inference.FP16:   "DT_HALF",
	inference.BF16:   "DT_BFLOAT16",
	inference.FP32:   "DT_FLOAT",
	inference.FP64:   "DT_DOUBLE",
	inference.Bytes:  "DT_STRING",
}

func tensorflowType(dt inference.DataType) string {
	if int(dt) < len(tensorflowTypes) && tensorflowTypes[dt] != "" {
		return tensorflowTypes[dt]
	}
	return "DT_INVALID"
}
