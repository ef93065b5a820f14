package api

import (
	"bytes"
	"cmp"
	"errors"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"
)

// headerLength is the header that says how much of a body is JSON; binary data follow.
const headerLength = "Inference-Header-Content-Length"

// content returns the request's body, decompressed. The content type is ignored: clients
// of the reference server send JSON as application/octet-stream.
func (a *API) content(ctx *fasthttp.RequestCtx) ([]byte, error) {
	body := ctx.Request.Body()
	if len(body) == 0 && !framed(ctx) {
		ctx.SetConnectionClose() // a body without a length may follow: it is no request
		return nil, errLength
	}
	coding := ctx.Request.Header.Peek("Content-Encoding")
	if len(coding) == 0 || bytes.EqualFold(coding, []byte("identity")) {
		a.tidy(body)
		return body, nil
	}
	limits := a.narrow(&ctx.Request.Header, &a.limits)
	plain := plainBody{limit: limits.MaxBody}
	var err error
	switch {
	case bytes.EqualFold(coding, []byte("gzip")) || bytes.EqualFold(coding, []byte("x-gzip")): // RFC 9110, section 8.4.1.3
		plain.expect(gzipSize(body))
		_, err = fasthttp.WriteGunzip(&plain, body)
	case bytes.EqualFold(coding, []byte("deflate")): // in the form of zlib, RFC 9110, section 8.4.1.2
		_, err = fasthttp.WriteInflate(&plain, body)
	default:
		return nil, errEncoding
	}
	a.tidy(plain.b)
	a.abandon(cap(plain.b))
	switch {
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		return nil, describe(err, "body: decompressed larger than %s, which is %d bytes", cmp.Or(limits.bodyOf, "http.max_body"), limits.MaxBody)
	case err != nil:
		return nil, describe(errRequest, "body: not compressed as Content-Encoding says, with %s: %v", coding, err)
	}
	return plain.b, nil
}

// textBody is content for a protocol without binary tensors.
func (a *API) textBody(ctx *fasthttp.RequestCtx) ([]byte, error) {
	body, err := a.content(ctx)
	if err != nil {
		return nil, err
	}
	if header, err := jsonLength(ctx, len(body)); err != nil || header != len(body) {
		return nil, cmp.Or(err, errBinary)
	}
	return body, nil
}

// framed tells whether the request said how long its body is (RFC 9112, section 6.3).
func framed(ctx *fasthttp.RequestCtx) bool {
	for line := range bytes.SplitSeq(ctx.Request.Header.RawHeaders(), []byte("\n")) {
		name, _, _ := bytes.Cut(line, []byte(":"))
		if bytes.EqualFold(name, []byte("Content-Length")) || bytes.EqualFold(name, []byte("Transfer-Encoding")) {
			return true
		}
	}
	return false
}

// jsonLength returns how much of a body of so many bytes is JSON: all of it, unless the
// request says something else.
func jsonLength(ctx *fasthttp.RequestCtx, body int) (int, error) {
	text := ctx.Request.Header.Peek(headerLength)
	if len(text) == 0 {
		return body, nil
	}
	n, err := fasthttp.ParseUint(text)
	if err != nil || n > body {
		return 0, describe(errRequest, "%s: inference header size should be in range (0, %d), got: %.20s", headerLength, body, text)
	}
	return n, nil
}

// Answers are compressed from this size on: a packet or three go as fast as they are, and
// clients that always accept compression would pay for it in every small answer.
const compressFrom = 4 << 10

// send answers with body, which was made in the response's own buffer and begins with
// header bytes of JSON before binary data; 0: all of it is JSON.
func (x *exchange) send(ctx *fasthttp.RequestCtx, body []byte, header int) {
	x.sent = true
	h := &ctx.Response.Header
	h.SetContentType(contentType)
	if header > 0 {
		h.SetContentType(binaryType)
		x.timing = strconv.AppendInt(x.timing[:0], int64(header), 10)
		h.SetBytesV(headerLength, x.timing)
	}
	x.timing = x.timing[:0]
	if x.stored > 0 {
		x.timing = append(x.timing, "store;dur="...)
		x.timing = append(appendMilliseconds(x.timing, time.Duration(x.stored)), ", "...)
	}
	x.timing = append(x.timing, "queue;dur="...)
	x.timing = appendMilliseconds(x.timing, x.queued())
	x.timing = append(x.timing, ", batch;dur="...)
	x.timing = appendMilliseconds(x.timing, x.batched())
	x.timing = append(x.timing, ", engine;dur="...)
	x.timing = appendMilliseconds(x.timing, x.run())
	h.SetBytesV("Server-Timing", x.timing)
	if len(body) >= compressFrom {
		h.Add("Vary", "Accept-Encoding") // beside what cors has said
		body = x.compress(ctx, body)
	}
	setBody(ctx, body)
}

// compress returns body as the client accepts it. The speed is that of a server: the
// network is seldom slower.
func (x *exchange) compress(ctx *fasthttp.RequestCtx, body []byte) []byte {
	coding := ""
	switch {
	case ctx.Request.Header.HasAcceptEncoding("gzip"):
		coding, x.packed = "gzip", fasthttp.AppendGzipBytesLevel(x.packed[:0], body, fasthttp.CompressBestSpeed)
	case ctx.Request.Header.HasAcceptEncoding("deflate"):
		coding, x.packed = "deflate", fasthttp.AppendDeflateBytesLevel(x.packed[:0], body, fasthttp.CompressBestSpeed)
	}
	if coding == "" || len(x.packed) >= len(body) {
		return body
	}
	ctx.Response.Header.SetContentEncoding(coding)
	packed := x.packed
	x.packed = body // for the next answer
	return packed
}

// appendMilliseconds appends d with three decimals.
func appendMilliseconds(b []byte, d time.Duration) []byte {
	us := d.Microseconds()
	b = strconv.AppendInt(b, us/1000, 10)
	return append(b, '.', byte('0'+us/100%10), byte('0'+us/10%10), byte('0'+us%10))
}
