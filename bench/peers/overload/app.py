"""The peer of the overload scenarios: FastAPI under gunicorn, or uvicorn by itself.

SPIN_MS is how many milliseconds of CPU time one answer of /predict takes, in place of a
model. /infer reads the Open Inference Protocol's JSON into a numpy array. Both are `def`
endpoints, as FastAPI's documentation has it for what computes: they run in a pool of
threads, so that the event loop goes on answering /healthz.
"""

import os
import time
from typing import List

import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel

SPIN = float(os.environ.get("SPIN_MS", "0")) / 1000

app = FastAPI()


class Sample(BaseModel):
    features: List[float]


class Tensor(BaseModel):
    name: str
    shape: List[int]
    datatype: str
    data: List[float]


class Inference(BaseModel):
    inputs: List[Tensor]


@app.post("/predict")
def predict(sample: Sample):
    end = time.thread_time() + SPIN
    while time.thread_time() < end:
        pass
    return {"prediction": len(sample.features)}


@app.post("/infer")
def infer(request: Inference):
    t = request.inputs[0]
    rows = np.array(t.data, dtype=np.float32).reshape(t.shape)
    return {"outputs": [{"name": "sums", "shape": [len(rows)], "data": rows.sum(axis=1).tolist()}]}


@app.get("/healthz")
async def healthz():
    return {"pid": os.getpid()}
