"""The model of bench/memory.go in numpy, as a WSGI application for gunicorn.

MODEL names the ONNX file: a chain of matrices with ReLU between them, which is read at import, each
matrix into memory of its own. POST /v2/models/mlp/infer answers what preforkd answers to a request of
one row in binary form, with less JSON before it.
"""

import json
import os

import numpy


def number(f):
    """A base 128 varint, as protobuf.dev/programming-guides/encoding says."""
    value = shift = 0
    while True:
        byte = f.read(1)[0]
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value


def parts(f, end):
    """The fields of a message up to end: each field's number, and its value or the place of its bytes."""
    while f.tell() < end:
        key = number(f)
        if key & 7 == 2:
            size = number(f)
            at = f.tell()
            yield key >> 3, (at, size)
            f.seek(at + size)
        elif key & 7 == 0:
            yield key >> 3, number(f)
        else:
            raise ValueError(f"wire type {key & 7} in the model")


def matrices(path):
    """Its weights in order: field 7 of a ModelProto is the graph, whose field 5 are the tensors."""
    with open(path, "rb") as f:
        size = os.fstat(f.fileno()).st_size
        at, n = next(value for field, value in parts(f, size) if field == 7)
        f.seek(at)
        for field, value in parts(f, at + n):
            if field != 5:
                continue
            f.seek(value[0])
            shape, raw = [], None
            for name, content in parts(f, sum(value)):
                if name == 1:
                    shape.append(content)
                elif name == 9:
                    raw = content
            f.seek(raw[0])
            yield numpy.fromfile(f, dtype="<f4", count=raw[1] // 4).reshape(shape)


weights = list(matrices(os.environ["MODEL"]))
head = json.dumps({"outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 10]}]}).encode()


def application(environ, start_response):
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    x = numpy.frombuffer(body, dtype="<f4", offset=int(environ["HTTP_INFERENCE_HEADER_CONTENT_LENGTH"])).reshape(1, -1)
    for w in weights[:-1]:
        x = numpy.maximum(x @ w, 0)
    answer = head + (x @ weights[-1]).astype("<f4").tobytes()
    start_response(
        "200 OK",
        [
            ("Content-Type", "application/octet-stream"),
            ("Content-Length", str(len(answer))),
            ("X-Preforkd-Worker", f"main/0/{os.getpid()}"),
        ],
    )
    return [answer]
