"""Tests of preforkd_helper, with a helper in a process of its own: python3 -m unittest"""

import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))

HELPER = """
import os, sys, threading, time
sys.path.insert(0, %r)
import preforkd_helper as helper

together = threading.Barrier(4)

@helper.model(inputs=[("text", "BYTES", [1])], outputs=[("length", "INT64", [1]), ("copy", "BYTES", [-1])])
def measure(request):
    (text,) = request["text"]
    if text == b"refuse":
        raise helper.Refused("not that one", 415)
    if text == b"fail":
        raise RuntimeError("out of ink")
    if text.startswith(b"hold "):
        while not os.path.exists(text[5:]):
            time.sleep(0.01)
    if text == b"meet":
        together.wait(60)
    kind = request.content_type("text") or "text/plain"
    return {"length": helper.array("INT64", [len(text)]), "copy": helper.Value([text, request.id], content_type=kind)}

@helper.model("sum", inputs=[("x", "FP32", [-1, 2]), ("flag", "BOOL", [1])], outputs=[("y", "FP32", [-1])])
def total(request):
    x = request["x"]
    sign = -1 if request["flag"][0] else 1
    return {"y": helper.array("FP32", [sign * (x[i] + x[i + 1]) for i in range(0, len(x), 2)])}

helper.serve(int(sys.argv[1]))
""" % HERE


class Helper:
    """A helper, and one connection to it."""

    def __init__(self, threads):
        self.dir = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.dir.name, "s")
        script = os.path.join(self.dir.name, "helper.py")
        with open(script, "w") as f:
            f.write(HELPER)
        env = dict(os.environ, PREFORKD_HELPER_SOCKET=self.path)
        self.process = subprocess.Popen([sys.executable, script, str(threads)], env=env, stderr=subprocess.PIPE)
        end = time.monotonic() + 60
        while True:
            try:
                self.conn = self.connect()
                return
            except OSError:
                if time.monotonic() > end or self.process.poll() is not None:
                    raise

    def connect(self):
        conn = socket.socket(socket.AF_UNIX)
        try:
            conn.connect(self.path)
        except OSError:
            conn.close()
            raise
        conn.settimeout(60)
        return conn

    def close(self):
        self.conn.close()
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()
        self.dir.cleanup()

    def send(self, method, path, body=b"", header=None, conn=None, fields=""):
        head = f"{method} {path} HTTP/1.1\r\nHost: helper\r\nX-Request-Id: i-1\r\nContent-Length: {len(body)}\r\n{fields}"
        if header is not None:
            head += f"Inference-Header-Content-Length: {header}\r\n"
        (conn or self.conn).sendall(head.encode() + b"\r\n" + body)

    def answer(self, conn=None):
        data = b""
        conn = conn or self.conn
        while b"\r\n\r\n" not in data:
            more = conn.recv(1)
            if not more:
                raise EOFError(data)
            data += more
        lines = data.decode().split("\r\n")
        fields = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
        body = b""
        while len(body) < int(fields["content-length"]):
            body += conn.recv(int(fields["content-length"]) - len(body))
        return int(lines[0].split(" ")[1]), fields, body

    def ask(self, method, path, value=None, data=b""):
        body, header = b"", None
        if value is not None:
            body = value if isinstance(value, bytes) else json.dumps(value).encode()
            header = len(body) if data else None
        self.send(method, path, body + data, header)
        status, fields, got = self.answer()
        n = int(fields.get("inference-header-content-length", len(got)))
        return status, json.loads(got[:n]), got[n:]


def text(value, **parameters):
    raw = struct.pack("<I", len(value)) + value
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "parameters": dict(parameters, binary_data_size=len(raw))}
    return {"inputs": [tensor]}, raw


class Tests(unittest.TestCase):
    threads = 0

    def setUp(self):
        self.helper = Helper(self.threads)
        self.addCleanup(self.helper.close)

    def test_describes_itself(self):
        for path in ("/v2/health/ready", "/v2/health/live", "/v2/models/measure/ready"):
            self.assertEqual(self.helper.ask("GET", path)[0], 200)
        status, about, _ = self.helper.ask("GET", "/v2/models/sum")
        self.assertEqual((status, about["name"]), (200, "sum"))
        self.assertEqual(about["inputs"][0], {"name": "x", "datatype": "FP32", "shape": [-1, 2]})
        self.assertEqual(about["outputs"], [{"name": "y", "datatype": "FP32", "shape": [-1]}])

    def test_answers_both_forms(self):
        status, head, data = self.helper.ask("POST", "/v2/models/measure/infer", *text(b"a\x00\xffb", content_type="image/png"))
        self.assertEqual(status, 200)
        self.assertEqual(head["outputs"][1]["shape"], [2])
        self.assertEqual(head["outputs"][1]["parameters"]["content_type"], "image/png")
        self.assertEqual(data, struct.pack("<q", 4) + b"\x04\0\0\0a\x00\xffb\x03\0\0\0i-1")
        x = {"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [[1, 2], [3, 4.5]]}
        flag = {"name": "flag", "datatype": "BOOL", "shape": [1], "data": [True]}
        status, head, data = self.helper.ask("POST", "/v2/models/sum/infer", {"inputs": [x, flag]})
        self.assertEqual((status, struct.unpack("<2f", data)), (200, (-3.0, -7.5)))

    def test_refuses(self):
        fine, raw = text(b"x")
        no_shape = {"inputs": [{"name": "text", "datatype": "BYTES"}]}
        x = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
        for status, path, value, data in (
            (415, "measure", *text(b"refuse")), (500, "measure", *text(b"fail")), (400, "measure", b"{", b""), (400, "measure", b"[]", b""),
            (400, "measure", no_shape, b""), (400, "measure", {"inputs": []}, b""), (400, "measure", fine, raw + b"x"), (400, "measure", fine, raw[:-1]),
            (400, "measure", {"inputs": [x]}, b""), (400, "sum", {"inputs": [dict(x, data=[1])]}, b""), (400, "sum", {"inputs": [dict(x, data=["a", 1])]}, b""),
            (400, "sum", {"inputs": [x]}, b""), (404, "none", fine, raw),
        ):
            got, about, _ = self.helper.ask("POST", f"/v2/models/{path}/infer", value, data)
            self.assertEqual(got, status, about)
            self.assertTrue(about["error"])
        self.assertEqual(self.helper.ask("GET", "/v2/models/measure/infer")[0], 405)
        self.assertEqual(self.helper.ask("GET", "/elsewhere")[0], 404)
        self.helper.send("POST", "/v2/models/measure/infer", b"{}", 9)
        self.assertEqual(self.helper.answer()[0], 400)

    def test_reads_what_comes_in_pieces(self):
        head, raw = text(b"x" * 300_000)
        body = json.dumps(head).encode() + raw
        request = b"POST /v2/models/measure/infer HTTP/1.1\r\ncontent-length: %d\r\nInference-Header-Content-Length: %d\r\n\r\n" % (
            len(body), len(body) - len(raw)) + body
        for i in range(0, 200, 7):
            self.helper.conn.sendall(request[i:i + 7])
        self.helper.conn.sendall(request[i + 7:] + b"GET /v2/health/ready HTTP/1.1\r\n\r\n")  # and another one at once
        status, _, got = self.helper.answer()
        self.assertEqual((status, got.count(b"x" * 300_000)), (200, 1))
        self.assertEqual(self.helper.answer()[0], 200)

    def hold(self):
        """Has the helper begin a call, which lasts until the function that this returns is called."""
        path = os.path.join(self.helper.dir.name, "go on")
        head, raw = text(b"hold " + path.encode())
        body = json.dumps(head).encode()
        self.helper.send("POST", "/v2/models/measure/infer", body + raw, len(body))
        return lambda: open(path, "w").close()

    def connect(self):
        conn = self.helper.connect()
        self.addCleanup(conn.close)
        return conn

    def test_is_healthy_while_it_works(self):
        release = self.hold()
        other, late = self.connect(), self.connect()
        self.helper.send("GET", "/v2/health/ready", conn=other)
        self.assertEqual(self.helper.answer(other)[0], 200)
        head, raw = text(b"x")
        body = json.dumps(head).encode()
        limit = "X-Request-Timeout: 60000000us\r\n"
        self.helper.send("POST", "/v2/models/measure/infer", body + raw, len(body), late, limit)
        self.assertEqual(select.select([self.helper.conn], [], [], 0)[0], [], "the call has ended")
        release()
        self.assertEqual(self.helper.answer(late)[0], 200)
        self.assertEqual(self.helper.answer()[0], 200)

    def test_keeps_to_the_time_that_there_is(self):
        head, raw = text(b"x")
        body = json.dumps(head).encode()
        self.helper.send("POST", "/v2/models/measure/infer", body + raw, len(body), fields="X-Request-Timeout: 0us\r\n")
        self.assertEqual(self.helper.answer()[0], 504)

    def test_reads_many_forms_of_a_request(self):
        for i in range(200):  # more than it remembers
            status, head, data = self.helper.ask("POST", "/v2/models/measure/infer", *text(b"y" * i))
            self.assertEqual((status, struct.unpack_from("<q", data)[0]), (200, i))

    def test_drains(self):
        other = self.connect()
        self.helper.send("GET", "/v2/health/ready", conn=other)
        self.helper.answer(other)
        release = self.hold()
        time.sleep(0.3)  # it is in the call by now: else the test shows less
        self.helper.process.send_signal(signal.SIGTERM)
        fields = {}
        while fields.get("connection") != "close":  # it has heard the signal, and serves on
            self.helper.send("GET", "/v2/health/ready", conn=other)
            status, fields, _ = self.helper.answer(other)
            self.assertEqual(status, 200)
        release()
        status, fields, _ = self.helper.answer()
        self.assertEqual((status, fields["connection"]), (200, "close"))
        self.assertEqual(self.helper.process.wait(60), 0)


class TestsOfThreads(Tests):
    threads = 4

    def test_calls_at_once(self):
        head, raw = text(b"meet")
        body = json.dumps(head).encode()
        conns = [self.connect() for _ in range(4)]
        for c in conns:
            self.helper.send("POST", "/v2/models/measure/infer", body + raw, len(body), c)
        for c in conns:
            self.assertEqual(self.helper.answer(c)[0], 200)


if __name__ == "__main__":
    unittest.main()
