"""A helper of preforkd in Python: one file, nothing but the standard library (3.9 or later).

    import preforkd_helper as helper

    @helper.model(inputs=[("text", "BYTES", [1])], outputs=[("length", "INT64", [1])])
    def length(request):
        (text,) = request["text"]
        return {"length": helper.array("INT64", [len(text)])}

    helper.serve()

A function gets a Request and returns its outputs by name. Elements of BYTES are a list of bytes;
those of other datatypes are an array.array, or on the way out anything with tobytes(), such as a
numpy array of the right type. numpy.frombuffer(request["x"], "<f4") makes one of an input.

What a helper has to do, in any language: docs/helpers.md of preforkd.
"""

import array as _array
import json
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
import traceback

__all__ = ["array", "model", "serve", "Refused", "Request", "Value"]

# What array.array calls the datatypes of the protocol; FP16 and BF16 are two bytes.
_TYPES = {
    "BOOL": "B", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b", "INT16": "h",
    "INT32": "i", "INT64": "q", "FP16": "H", "BF16": "H", "FP32": "f", "FP64": "d",
}

# How long a helper that shall leave goes on after the last request: a worker that had chosen it
# has sent its request by then.
_QUIET = 0.25

_HEADER = 64 << 10  # bytes of a request's header


def array(datatype, values=()):
    """An array.array for the elements of a tensor of that datatype."""
    return _array.array(_TYPES[datatype], values)


class Refused(Exception):
    """The input is at fault: the client gets the text, with status 400, 413, 415 or 422."""

    def __init__(self, text, status=422):
        super().__init__(text)
        self.status = status


class Value:
    """An output with what cannot be told from its elements: its shape, or its content type."""

    def __init__(self, data, shape=None, content_type=None):
        self.data, self.shape, self.content_type = data, shape, content_type


class Request:
    """One request. request["x"] is the elements of input x."""

    def __init__(self, model, head, tensors, shapes, parameters):
        self.model = model
        self.id = head.get("id", "")
        self.parameters = head.get("parameters") or {}
        self.shapes = shapes  # by input
        self._tensors, self._parameters = tensors, parameters
        timeout = self.parameters.get("timeout") or 0  # microseconds
        self.deadline = time.monotonic() + timeout / 1e6 if timeout else None

    def __getitem__(self, name):
        return self._tensors[name]

    def __contains__(self, name):
        return name in self._tensors

    def content_type(self, name):
        """That of an input which is the body of a client's request, "" if it did not say."""
        return (self._parameters[name] or {}).get("content_type", "")

    def remaining(self):
        """Seconds until nobody waits for the answer any more; None: for ever."""
        return None if self.deadline is None else self.deadline - time.monotonic()


class _Model:
    def __init__(self, name, inputs, outputs, function):
        self.name, self.inputs, self.outputs, self.function = name, inputs, outputs, function
        for _, datatype, _ in inputs + outputs:
            if datatype != "BYTES" and datatype not in _TYPES:
                raise ValueError(f"model {name}: {datatype} is no datatype")

        def described(tensors):
            return [{"name": n, "datatype": d, "shape": list(s)} for n, d, s in tensors]

        self.description = {
            "name": name, "versions": ["1"], "platform": "preforkd_helper",
            "inputs": described(inputs), "outputs": described(outputs),
        }


_models = {}


def model(name=None, *, inputs, outputs):
    """Makes a function a model. inputs and outputs are lists of (name, datatype, shape), with -1
    for a size that may be any."""

    def register(function):
        own = name or function.__name__
        _models[own] = _Model(own, list(inputs), list(outputs), function)
        return function

    return register


class _Bad(Exception):
    """A request that cannot be read."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


def _flat(data):
    for x in data:
        if isinstance(x, list):
            yield from _flat(x)
        else:
            yield x


def _strings(data, count):
    got, at = [], 0
    for _ in range(count):
        (size,) = struct.unpack_from("<I", data, at)
        at += 4
        if at + size > len(data):
            raise _Bad(400, "a string is longer than the body")
        got.append(bytes(data[at:at + size]))
        at += size
    return got


def _read(m, body, header):
    """The Request in a body, the first header bytes of which are JSON."""
    try:
        head = json.loads(bytes(body[:header]))
        tensors, shapes, parameters = {}, {}, {}
        known = {n: d for n, d, _ in m.inputs}
        at = header
        for t in head["inputs"]:
            name, datatype, shape = t["name"], t["datatype"], t["shape"]
            if known.get(name) != datatype:
                raise _Bad(400, f"model {m.name} has no input {name!r} of {datatype}")
            count = 1
            for size in shape:
                count *= size
            own = t.get("parameters") or {}
            if "binary_data_size" in own:
                data = body[at:at + own["binary_data_size"]]
                at += own["binary_data_size"]
                if datatype == "BYTES":
                    value = _strings(data, count)
                else:
                    value = array(datatype)
                    value.frombytes(data)
                    if sys.byteorder != "little":
                        value.byteswap()
            elif datatype == "BYTES":
                value = [x.encode() for x in _flat(t["data"])]
            else:
                value = array(datatype, _flat(t["data"]))
            if len(value) != count:
                raise _Bad(400, f"input {name!r} has {len(value)} elements, its shape {shape} has {count}")
            tensors[name], shapes[name], parameters[name] = value, shape, own
        if at != len(body):
            raise _Bad(400, f"{len(body) - at} bytes belong to no input")
        missing = [n for n in known if n not in tensors]
        if missing:
            raise _Bad(400, f"input {missing[0]!r} is missing")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, struct.error) as e:
        raise _Bad(400, f"no request of the Open Inference Protocol: {e!r}") from e
    return Request(m.name, head, tensors, shapes, parameters)


def _write(m, request, results):
    """The answer: its JSON, and the elements that follow it."""
    outputs, data = [], []
    for name, datatype, shape in m.outputs:
        v = results[name]
        if not isinstance(v, Value):
            v = Value(v)
        if datatype == "BYTES":
            strings = [x.encode() if isinstance(x, str) else bytes(x) for x in v.data]
            count = len(strings)
            raw = b"".join(struct.pack("<I", len(x)) + x for x in strings)
        else:
            raw = v.data.tobytes()
            if sys.byteorder != "little" and isinstance(v.data, _array.array):
                swapped = _array.array(v.data.typecode, v.data)
                swapped.byteswap()
                raw = swapped.tobytes()
            count = len(raw) // array(datatype).itemsize
        shape = list(v.shape if v.shape is not None else getattr(v.data, "shape", None) or shape)
        if -1 in shape:  # what is open follows from the number of elements
            rest = 1
            for size in shape:
                rest *= size if size >= 0 else 1
            shape[shape.index(-1)] = count // max(rest, 1)
        parameters = {"binary_data_size": len(raw)}
        if v.content_type:
            parameters["content_type"] = v.content_type
        outputs.append({"name": name, "datatype": datatype, "shape": shape, "parameters": parameters})
        data.append(raw)
    head = {"model_name": m.name, "model_version": "1", "outputs": outputs}
    if request.id:
        head["id"] = request.id
    return json.dumps(head, separators=(",", ":")).encode(), b"".join(data)


class _Server:
    def __init__(self, listener, concurrent):
        self.listener = listener
        # One request at a time, so that functions need not know of threads; who asks for health
        # is answered meanwhile.
        self.turn = None if concurrent else threading.Lock()
        self.lock = threading.Lock()  # guards the fields below
        self.busy = 0
        self.last = 0.0
        self.leaving = False

    def run(self):
        wake, end = os.pipe()
        os.set_blocking(end, False)
        signal.set_wakeup_fd(end)
        for s in (signal.SIGTERM, signal.SIGINT):
            signal.signal(s, self.leave)
        self.listener.setblocking(False)
        while True:
            wait = None
            if self.leaving:
                with self.lock:
                    left = self.last + _QUIET - time.monotonic()
                    if self.busy == 0 and left <= 0:
                        return
                    wait = max(left, 0.01)
            ready, _, _ = select.select([self.listener, wake], [], [], wait)
            if wake in ready:
                os.read(wake, 64)
            if self.listener in ready:
                try:
                    conn, _ = self.listener.accept()
                except (BlockingIOError, ConnectionError):
                    continue
                conn.setblocking(True)
                threading.Thread(target=self.serve, args=(conn,), daemon=True).start()

    def leave(self, *_):
        # It serves on until _QUIET has passed without a request.
        self.last = time.monotonic()
        self.leaving = True

    def serve(self, conn):
        buffer = bytearray()
        try:
            with conn:
                while self.one(conn, buffer):
                    pass
        except OSError:
            pass  # who asked has gone

    def one(self, conn, buffer):
        """Answers one request; False: there are no more on this connection."""
        while (end := buffer.find(b"\r\n\r\n")) < 0:
            if len(buffer) > _HEADER:
                return False
            chunk = conn.recv(64 << 10)
            if not chunk:
                return False
            buffer += chunk
        with self.lock:
            self.busy += 1
        try:
            lines = bytes(buffer[:end]).decode("latin-1").split("\r\n")
            method, path, *_ = lines[0].split(" ") + ["", ""]
            fields = {}
            for line in lines[1:]:
                key, _, value = line.partition(":")
                fields[key.strip().lower()] = value.strip()
            size = int(fields.get("content-length") or 0)
            del buffer[:end + 4]
            body = self.body(conn, buffer, size)
            if body is None:
                return False
            status, kind, header, parts = self.answer(method, path, fields, body)
            close = self.leaving or fields.get("connection", "").lower() == "close"
            text = f"HTTP/1.1 {status} x\r\nContent-Type: {kind}\r\nContent-Length: {sum(map(len, parts))}\r\n"
            if header:
                text += f"Inference-Header-Content-Length: {header}\r\n"
            if close:
                text += "Connection: close\r\n"
            conn.sendall(b"".join([text.encode(), b"\r\n", *parts]))
            return not close
        finally:
            with self.lock:
                self.busy -= 1
                self.last = time.monotonic()

    def body(self, conn, buffer, size):
        """The next size bytes; None: they do not come."""
        body = bytearray(size)
        got = min(size, len(buffer))
        body[:got] = buffer[:got]
        del buffer[:got]
        view = memoryview(body)
        while got < size:
            n = conn.recv_into(view[got:])
            if n == 0:
                return None
            got += n
        return view

    def answer(self, method, path, fields, body):
        def said(status, value):
            return status, "application/json", 0, [json.dumps(value).encode()]

        path = path.partition("?")[0]
        parts = path.strip("/").split("/")
        if path in ("/v2/health/ready", "/v2/health/live"):
            return said(200, {})
        if parts[:2] != ["v2", "models"] or len(parts) < 3 or parts[2] not in _models:
            return said(404, {"error": f"there is no {path}; the models are {', '.join(_models)}"})
        m = _models[parts[2]]
        if method == "GET" and len(parts) == 3:
            return said(200, m.description)
        if method == "GET" and parts[3:] == ["ready"]:
            return said(200, {})
        if method != "POST" or parts[3:] != ["infer"]:
            return said(405, {"error": f"{method} {path} is not answered"})
        try:
            header = int(fields.get("inference-header-content-length") or len(body))
            if not 0 < header <= len(body):
                raise _Bad(400, "Inference-Header-Content-Length is not within the body")
            request = _read(m, body, header)
            head, data = _write(m, request, self.call(m, request))
        except (Refused, _Bad) as e:
            return said(e.status, {"error": str(e)})
        except Exception as e:
            traceback.print_exc()  # preforkd has standard error in its log
            return said(500, {"error": f"{type(e).__name__}: {e}"})
        return 200, "application/octet-stream", len(head), [head, data]

    def call(self, m, request):
        if self.turn is None:
            return m.function(request)
        with self.turn:
            left = request.remaining()
            if left is not None and left <= 0:
                raise _Bad(504, "nobody waits for the answer any more")
            return m.function(request)


def _listener(path):
    """The socket that preforkd gives, or one at path to try the helper by hand."""
    if os.environ.get("LISTEN_PID") == str(os.getpid()) and int(os.environ.get("LISTEN_FDS", "0")) >= 1:
        return socket.socket(fileno=3)
    if not path:
        sys.exit("preforkd starts this program (worker.kind: helper); to try it by hand: PREFORKD_HELPER_SOCKET=/tmp/helper.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    return listener


def serve(concurrent=False):
    """Answers requests until SIGTERM and what is then in flight. With concurrent, functions are
    called by several threads at once."""
    if not _models:
        sys.exit("no function has been made a model: @preforkd_helper.model(...)")
    _Server(_listener(os.environ.get("PREFORKD_HELPER_SOCKET")), concurrent).run()
