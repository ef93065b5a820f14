"""The experiments of preforkd lab under FastAPI: the same paths, the same answers.

An `async def` endpoint runs on the event loop, a `def` endpoint in Starlette's pool of 40
threads. LAB_SECONDS is how long each of them waits or computes, LAB_LONG the same of /lab/work-sync.
"""

import asyncio
import os
import time

from fastapi import FastAPI, Response

SECONDS = float(os.environ["LAB_SECONDS"])
LONG = float(os.environ["LAB_LONG"])
GAP = 0.001  # from which on between two looks at the clock the core was somebody else's

app = FastAPI()


def us(seconds):
    return int(seconds * 1e6)


def spent(response, began, slices=()):
    response.headers["X-Preforkd-Worker"] = str(os.getpid())
    return {"began_us": us(began), "ended_us": us(time.time()), "slices_us": [[us(a), us(b)] for a, b in slices]}


def burn(seconds):
    """Uses so many seconds of CPU time of this thread, and says when it had a core."""
    begin, last = time.thread_time(), time.time()
    slices = [[last, last]]
    while time.thread_time() - begin < seconds:
        for _ in range(2000):
            pass
        now = time.time()
        if now - last > GAP:
            slices.append([now, now])
        slices[-1][1] = last = now
    return slices


@app.get("/healthz")
async def healthz(response: Response):
    response.headers["X-Preforkd-Worker"] = str(os.getpid())
    return {}


@app.get("/lab/wait-async")
async def wait_async(response: Response):
    began = time.time()
    await asyncio.sleep(SECONDS)
    return spent(response, began)


@app.get("/lab/call-async")
async def call_async(response: Response):
    began = time.time()
    time.sleep(SECONDS)
    return spent(response, began)


@app.get("/lab/call-sync")
def call_sync(response: Response):
    began = time.time()
    time.sleep(SECONDS)
    return spent(response, began)


@app.get("/lab/cpu-async")
async def cpu_async(response: Response):
    began = time.time()
    return spent(response, began, burn(SECONDS))


@app.get("/lab/cpu-sync")
def cpu_sync(response: Response):
    began = time.time()
    return spent(response, began, burn(SECONDS))


@app.get("/lab/work-sync")
def work_sync(response: Response):
    began = time.time()
    return spent(response, began, burn(LONG))
