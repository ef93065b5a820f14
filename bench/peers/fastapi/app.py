"""The model digits under FastAPI: the same answers as preforkd's POST /predict.

The forward pass is numpy in float32, on one thread. DIGITS_WEIGHTS names the file that
weights.py makes. Two endpoints, because which one is right depends on whom one asks: a
`def` endpoint runs in a pool of threads, an `async def` endpoint on the event loop.
"""

import asyncio
import os
from typing import List

import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel
from uvicorn.protocols.http.auto import AutoHTTPProtocol

with np.load(os.environ["DIGITS_WEIGHTS"]) as _file:
    W0, B0, W1, B1 = (_file[name] for name in ("w0", "b0", "w1", "b1"))

app = FastAPI()


class Sample(BaseModel):
    features: List[float]


def forward(features):
    x = np.array(features, dtype=np.float32)  # the scale of the pixels is in W0
    hidden = np.maximum(x @ W0 + B0, 0)
    scores = hidden @ W1 + B1
    e = np.exp(scores - scores.max())
    p = e / e.sum()
    return {
        "prediction": int(p.argmax()),
        "probabilities": p.tolist(),
        "model": "digits",
        "version": "1",
    }


@app.post("/predict")
def predict(sample: Sample):
    return forward(sample.features)


@app.post("/predict-async")
async def predict_async(sample: Sample):
    return forward(sample.features)


@app.get("/worker")
async def worker():
    return {
        "pid": os.getpid(),
        "loop": type(asyncio.get_running_loop()).__module__,
        "http": AutoHTTPProtocol.__module__.rpartition(".")[2],
    }
