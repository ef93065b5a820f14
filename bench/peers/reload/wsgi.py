"""A tiny WSGI application under uWSGI; see version.py."""

import os

import version

version.boot()
worker = f"app/0/{os.getpid()}"


def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "2"), ("X-Preforkd-Worker", worker)])
    return [b"ok"]
