"""An ASGI application without a framework, for configs/uvicorn.yaml."""

import json
import os


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] != "http":
        return
    body = json.dumps({
        "path": scope["path"],
        "pid": os.getpid(),
        "slot": os.environ.get("PREFORKD_SLOT"),
        "generation": os.environ.get("PREFORKD_GENERATION"),
    }).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
