package api

import (
	"github.com/valyala/fasthttp"
)

// targetModel is the header with which Amazon SageMaker's multi-model endpoints name a
// model. Here its value is the model's name as it is.
const targetModel = "X-Amzn-SageMaker-Target-Model"

// invocations answers POST /invocations of Amazon SageMaker's container contract: as POST
// /predict does, through the default model or the one that the header names.
// https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
func (a *API) invocations(ctx *fasthttp.RequestCtx, t target) error {
	t.model = ctx.Request.Header.Peek(targetModel)
	return a.predict(ctx, t)
}
