"""A tiny FastAPI application under gunicorn with uvicorn workers; see version.py."""

import os

import version
from fastapi import FastAPI, Response

version.boot()
app = FastAPI()
worker = f"app/0/{os.getpid()}"


@app.get("/")
async def answer():
    return Response("ok", headers={"X-Preforkd-Worker": worker})
