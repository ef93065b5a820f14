"""The peer of helpers-image: from a picture to a digit under FastAPI, all in one process.

The same work as helpers/python/digit.py around the model digits-cnn: the same decoding, the model
as a forward pass in numpy float32, the same JSON. CNN_WEIGHTS names the file that weights.py
makes. The endpoint is `async def` and computes where it stands: for work that holds the
interpreter lock a pool of threads only adds to it.
"""

import io
import os

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from PIL import Image, UnidentifiedImageError

with np.load(os.environ["CNN_WEIGHTS"]) as _file:
    FILTERS, BIAS, W0, B0, W1, B1 = (_file[name] for name in ("filters", "bias", "w0", "b0", "w1", "b1"))

app = FastAPI()


def decode(data):
    image = Image.open(io.BytesIO(data), formats=("PNG", "JPEG")).convert("L").resize((8, 8), Image.BOX)
    pixels = np.frombuffer(image.tobytes(), np.uint8)
    if pixels.mean() > 128:
        pixels = 255 - pixels
    return pixels.astype(np.float32) * np.float32(16 / 255)


def forward(pixels):
    padded = np.zeros((10, 10), np.float32)
    padded[1:9, 1:9] = pixels.reshape(8, 8)  # the scale of the pixels is in FILTERS
    windows = np.lib.stride_tricks.as_strided(padded, (8, 8, 3, 3), padded.strides * 2).reshape(64, 9)
    maps = np.maximum(windows @ FILTERS + BIAS, 0).reshape(4, 2, 4, 2, 16).max(axis=(1, 3))
    hidden = np.maximum(maps.reshape(256) @ W0 + B0, 0)  # the order of maps is in W0
    scores = hidden @ W1 + B1
    e = np.exp(scores - scores.max())
    return e / e.sum()


@app.post("/classify-image")
async def classify(request: Request):
    try:
        pixels = decode(await request.body())
    except (UnidentifiedImageError, OSError, SyntaxError) as e:
        return JSONResponse({"error": f"no PNG or JPEG: {e}"}, 415)
    p = forward(pixels)
    digit = int(p.argmax())
    return JSONResponse({"digit": digit, "confidence": round(float(p[digit]), 6)})


@app.get("/healthz")
async def healthz():
    return {"pid": os.getpid()}
