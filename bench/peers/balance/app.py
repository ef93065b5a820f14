"""The routes of bench/peers/balance as a WSGI application, for gunicorn.

    gunicorn -k gthread --threads 1 --workers 4 app:app
"""

import json
import os
import time


def wait(seconds):
    time.sleep(seconds)


def burn(seconds):
    """Uses a core for so long by this thread's own clock."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


ROUTES = {"/wait": (wait, 0.010), "/burn": (burn, 0.010), "/short": (wait, 0.001), "/long": (wait, 0.050), "/pid": (wait, 0)}


def app(environ, start_response):
    route = ROUTES.get(environ["PATH_INFO"])
    if route is None:
        start_response("404 Not Found", [("Content-Length", "0")])
        return []
    act, seconds = route
    act(seconds)
    body = json.dumps({"pid": os.getpid()}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
