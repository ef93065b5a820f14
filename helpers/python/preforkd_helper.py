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
import concurrent.futures
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

_SIZES = {datatype: _array.array(code).itemsize for datatype, code in _TYPES.items()}

# How long a helper that shall leave goes on after the last request: a worker that had chosen it
# has sent its request by then.
_QUIET = 0.25

_HEADER = 64 << 10  # bytes of a request's header
_PATIENCE = 30  # seconds for who asked to take an answer
_LONG = 0.25  # seconds from which on a call is long: then somebody else answers for health


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

    __slots__ = ("model", "id", "deadline", "shapes", "_tensors", "_parameters")

    def __init__(self, model, tensors, shapes, parameters, fields):
        self.model = model
        self.id = fields.get(b"x-request-id", b"").decode("latin-1")  # the client's; "": none
        limit = fields.get(b"x-request-timeout")
        self.deadline = time.monotonic() + int(limit[:-2]) / 1e6 if limit else None
        self.shapes = shapes  # by input
        self._tensors, self._parameters = tensors, parameters

    def __getitem__(self, name):
        return self._tensors[name]

    def __contains__(self, name):
        return name in self._tensors

    def content_type(self, name):
        """That of an input which is the body of a client's request, "" if it did not say."""
        return self._parameters[name].get("content_type", "")

    def remaining(self):
        """Seconds until nobody waits for the answer any more; None: for ever."""
        return None if self.deadline is None else self.deadline - time.monotonic()


class _Model:
    def __init__(self, name, inputs, outputs, function):
        self.name, self.inputs, self.outputs, self.function = name, inputs, outputs, function
        self.datatypes = {n: d for n, d, _ in inputs}
        for _, datatype, _ in inputs + outputs:
            if datatype != "BYTES" and datatype not in _TYPES:
                raise ValueError(f"model {name}: {datatype} is no datatype")

        def described(tensors):
            return [{"name": n, "datatype": d, "shape": list(s)} for n, d, s in tensors]

        self.description = {
            "name": name, "versions": ["1"], "platform": "preforkd_helper",
            "inputs": described(inputs), "outputs": described(outputs),
        }
        # What has been read, and written, lately: most requests look like one before.
        self.heads, self.answers = {}, {}


_models = {}
_infers = {}  # the same, by the path of their requests


def model(name=None, *, inputs, outputs):
    """Makes a function a model. inputs and outputs are lists of (name, datatype, shape), with -1
    for a size that may be any."""

    def register(function):
        own = name or function.__name__
        _models[own] = _Model(own, list(inputs), list(outputs), function)
        _infers[f"/v2/models/{own}/infer".encode()] = _models[own]
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
    if count == 1:
        (size,) = struct.unpack_from("<I", data)
        if size + 4 != len(data):
            raise _Bad(400, "a string is not as long as it says")
        return [bytes(data[4:])]
    got, at = [], 0
    for _ in range(count):
        (size,) = struct.unpack_from("<I", data, at)
        at += 4
        if at + size > len(data):
            raise _Bad(400, "a string is longer than the body")
        got.append(bytes(data[at:at + size]))
        at += size
    if at != len(data):
        raise _Bad(400, f"{len(data) - at} bytes follow the last string")
    return got


def _remember(cache, key, value):
    if len(cache) >= 64 or len(key) > 4096:
        cache.clear()
    cache[key] = value
    return value


def _head(m, text):
    """What the JSON of a request says of its inputs: name, datatype, shape, number of elements,
    parameters, and their JSON if they are not in binary form."""
    tensors = []
    for t in json.loads(text)["inputs"]:
        name, datatype, shape = t["name"], t["datatype"], t["shape"]
        if m.datatypes.get(name) != datatype:
            raise _Bad(400, f"model {m.name} has no input {name!r} of {datatype}")
        count = 1
        for size in shape:
            count *= size
        own = t.get("parameters") or {}
        tensors.append((name, datatype, shape, count, own, None if "binary_data_size" in own else t["data"]))
    missing = [n for n in m.datatypes if n not in [t[0] for t in tensors]]
    if missing:
        raise _Bad(400, f"input {missing[0]!r} is missing")
    return tensors


def _read(m, fields, body, header):
    """The Request in a body, the first header bytes of which are JSON."""
    try:
        text = bytes(body[:header])
        head = m.heads.get(text) or _remember(m.heads, text, _head(m, text))
        tensors, shapes, parameters = {}, {}, {}
        at = header
        for name, datatype, shape, count, own, listed in head:
            if listed is None:
                end = at + own["binary_data_size"]
                data, at = body[at:end], end
                if datatype == "BYTES":
                    value = _strings(data, count)
                else:
                    value = array(datatype)
                    value.frombytes(data)
                    if sys.byteorder != "little":
                        value.byteswap()
            elif datatype == "BYTES":
                value = [x.encode() for x in _flat(listed)]
            else:
                value = array(datatype, _flat(listed))
            if len(value) != count:
                raise _Bad(400, f"input {name!r} has {len(value)} elements, its shape {shape} has {count}")
            tensors[name], shapes[name], parameters[name] = value, shape, own
        if at != len(body):
            raise _Bad(400, f"the tensors have {at - header} bytes, the body has {len(body) - header}")
        return Request(m.name, tensors, shapes, parameters, fields)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, struct.error) as e:
        raise _Bad(400, f"no request of the Open Inference Protocol: {e!r}") from e


def _write(m, results):
    """The answer: its JSON, and the elements that follow it."""
    said, data = [], []
    for name, datatype, shape in m.outputs:
        v = results[name]
        kind = None
        if isinstance(v, Value):
            v, own, kind = v.data, v.shape, v.content_type
        else:
            own = getattr(v, "shape", None)
        if datatype == "BYTES":
            strings = [x.encode() if isinstance(x, str) else bytes(x) for x in v]
            count = len(strings)
            raw = b"".join([struct.pack("<I", len(x)) + x for x in strings])
        else:
            if sys.byteorder != "little" and isinstance(v, _array.array):
                v = _array.array(v.typecode, v)
                v.byteswap()
            raw = v.tobytes()
            count = len(raw) // _SIZES[datatype]
        shape = tuple(own if own is not None else shape)
        if -1 in shape:  # what is open follows from the number of elements
            rest = 1
            for size in shape:
                rest *= size if size >= 0 else 1
            shape = tuple(count // max(rest, 1) if size < 0 else size for size in shape)
        said.append((name, datatype, shape, len(raw), kind))
        data.append(raw)
    said = tuple(said)
    return m.answers.get(said) or _remember(m.answers, said, _answer(m, said)), b"".join(data)


def _answer(m, said):
    outputs = []
    for name, datatype, shape, size, kind in said:
        parameters = {"binary_data_size": size}
        if kind:
            parameters["content_type"] = kind
        outputs.append({"name": name, "datatype": datatype, "shape": list(shape), "parameters": parameters})
    return json.dumps({"model_name": m.name, "model_version": "1", "outputs": outputs}, separators=(",", ":")).encode()


class _Conn:
    """A connection, what has come of its next request, and what that needs."""

    __slots__ = ("socket", "buffer", "head", "need")

    def __init__(self, sock, buffer=b""):
        self.socket, self.buffer = sock, bytearray(buffer)
        self.head = None  # method, path, fields
        self.need = 0  # bytes of its body


class _Server:
    """One thread, the loop, reads all connections and calls the functions, one after the other; with
    threads, those call them. While a call of the loop's lasts long another thread reads what comes,
    and answers who asks for health."""

    def __init__(self, listener, threads):
        self.listener = listener
        self.pool = concurrent.futures.ThreadPoolExecutor(threads) if threads else None
        self.conns = {}
        self.door = threading.Lock()  # held by the loop but in a call and while it waits
        self.since = 0.0  # of the call under way; 0: none
        self.current = None  # whose request that is
        self.later = []  # connections with more than a question for health
        self.last = 0.0  # end of the latest request
        self.leaving = False
        self.lock = threading.Lock()  # guards the fields below
        self.busy = 0  # requests that threads have
        self.back = []  # connections whose request a thread has answered, or that were taken over

    def run(self):
        wake, self.end = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(self.end, False)
        signal.set_wakeup_fd(self.end)
        for s in (signal.SIGTERM, signal.SIGINT):
            signal.signal(s, self.leave)
        self.listener.setblocking(False)
        self.poll = select.epoll()
        self.poll.register(wake, select.EPOLLIN)
        self.poll.register(self.listener, select.EPOLLIN)
        if self.pool is None:
            threading.Thread(target=self.watch, daemon=True).start()
        self.fd = self.listener.fileno()
        while True:
            wait = None
            if self.leaving:
                left = self.last + _QUIET - time.monotonic()
                if self.busy == 0 and left <= 0:
                    return
                wait = max(left, 0.01)
            events = self.poll.poll(wait)
            with self.door:
                for fd, _ in events:
                    if fd == wake:
                        self.wake(wake)
                    else:
                        self.event(fd)
                while self.later:
                    self.proceed(self.later.pop())

    def event(self, fd):
        if fd == self.fd:
            self.accept()
        elif fd in self.conns:
            self.receive(self.conns[fd])

    def leave(self, *_):
        # It serves on until _QUIET has passed without a request.
        self.last = time.monotonic()
        self.leaving = True

    def wake(self, fd):
        try:
            os.read(fd, 4096)
        except BlockingIOError:
            pass
        with self.lock:
            back, self.back = self.back, []
        for conn in back:
            self.admit(conn)

    def accept(self):
        try:
            sock, _ = self.listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # another one has taken it
        self.admit(_Conn(sock))

    def admit(self, conn):
        """Takes a connection on, or on again, with what has come already."""
        conn.socket.setblocking(False)
        self.conns[conn.socket.fileno()] = conn
        self.poll.register(conn.socket, select.EPOLLIN)
        if conn.buffer:
            self.proceed(conn)

    def drop(self, conn):
        self.poll.unregister(conn.socket)
        del self.conns[conn.socket.fileno()]

    def close(self, conn):
        if conn.socket.fileno() in self.conns:  # it may have ended during its call
            self.drop(conn)
            conn.socket.close()

    def receive(self, conn):
        try:
            chunk = conn.socket.recv(256 << 10)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            self.close(conn)
            return
        conn.buffer += chunk
        if self.since:
            self.peek(conn)
        else:
            self.proceed(conn)

    def peek(self, conn):
        """Answers who asks for health only: a call is under way."""
        while conn is not self.current and (conn.head is not None or self.begin(conn)):
            if conn.need or not conn.head[1].startswith(b"/v2/health/"):
                break
            head, conn.head = conn.head, None
            if not self.one(conn, head, b""):
                self.close(conn)
                return
        self.later.append(conn)

    def proceed(self, conn):
        """Answers what has come whole."""
        while conn.socket.fileno() in self.conns:
            if conn.head is None and not self.begin(conn):
                return
            if len(conn.buffer) < conn.need:
                return
            body, conn.buffer = conn.buffer, conn.buffer[conn.need:]
            del body[conn.need:]
            head, conn.head = conn.head, None
            if self.pool is not None and head[0] == b"POST":
                self.drop(conn)
                with self.lock:
                    self.busy += 1
                self.pool.submit(self.beside, conn, head, body)
                return
            self.current = conn
            goes_on = self.one(conn, head, body)
            self.last = time.monotonic()
            if not goes_on:
                self.close(conn)

    def begin(self, conn):
        """Reads the header of a request; False: it has not come yet, or is none."""
        end = conn.buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(conn.buffer) > _HEADER:
                self.close(conn)
            return False
        lines = bytes(conn.buffer[:end]).split(b"\r\n")
        del conn.buffer[:end + 4]
        fields = {}
        for line in lines[1:]:
            key, _, value = line.partition(b":")
            fields[key.lower()] = value.strip()
        try:
            method, path, _ = lines[0].split(b" ")
            conn.need = int(fields.get(b"content-length", 0))
        except ValueError:
            self.close(conn)
            return False
        conn.head = method, path, fields
        return True

    def beside(self, conn, head, body):
        """Answers a request in a thread, and gives the connection back."""
        goes_on = self.one(conn, head, body)
        with self.lock:
            self.busy -= 1
            self.last = time.monotonic()
            if goes_on:
                self.back.append(conn)
        if not goes_on:
            conn.socket.close()
        self.tell()

    def tell(self):
        try:
            os.write(self.end, b"x")
        except BlockingIOError:
            pass  # it is being told already

    def one(self, conn, head, body):
        """Answers one request; False: the connection is of no more use."""
        method, path, fields = head
        m = _infers.get(path)
        if m is not None and method == b"POST":
            status, text, data = self.infer(m, fields, body)
        else:
            status, text, data = self.about(method.decode("latin-1"), path.decode("latin-1"))
        close = self.leaving or fields.get(b"connection", b"").lower() == b"close"
        data = b"HTTP/1.1 %d x\r\nContent-Type: %s\r\nContent-Length: %d\r\n%s%s\r\n%s%s" % (
            status, b"application/octet-stream" if data else b"application/json", len(text) + len(data),
            b"Inference-Header-Content-Length: %d\r\n" % len(text) if data else b"", b"Connection: close\r\n" if close else b"", text, data)
        try:
            sent = conn.socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return False  # who asked has gone
        if sent < len(data):  # more than the kernel takes at once
            try:
                conn.socket.settimeout(_PATIENCE)
                conn.socket.sendall(memoryview(data)[sent:])
                conn.socket.setblocking(False)
            except OSError:
                return False
        return not close

    def watch(self):
        while True:
            time.sleep(_LONG / 2)
            if not self.since:
                continue
            with self.door:
                if self.since and time.monotonic() - self.since > _LONG:  # else the loop goes on by itself
                    for fd, _ in self.poll.poll(0):
                        self.event(fd)

    def call(self, function, request):
        if self.pool is not None:
            return function(request)
        self.since = time.monotonic()
        self.door.release()
        try:
            return function(request)
        finally:
            self.door.acquire()
            self.since = 0.0

    def infer(self, m, fields, body):
        """Calls the function of m: status, JSON and what follows it."""
        try:
            header = int(fields.get(b"inference-header-content-length") or len(body))
            if not 0 < header <= len(body):
                raise _Bad(400, "Inference-Header-Content-Length is not within the body")
            request = _read(m, fields, body, header)
            left = request.remaining()
            if left is not None and left <= 0:
                raise _Bad(504, "nobody waits for the answer any more")
            return 200, *_write(m, self.call(m.function, request))
        except (Refused, _Bad) as e:
            return _said(e.status, {"error": str(e)})
        except Exception as e:
            traceback.print_exc()  # preforkd has standard error in its log
            return _said(500, {"error": f"{type(e).__name__}: {e}"})

    def about(self, method, path):
        """Answers everything else."""
        parts = path.partition("?")[0].strip("/").split("/")
        if parts in (["v2", "health", "ready"], ["v2", "health", "live"]):
            return _said(200, {})
        if parts[:2] != ["v2", "models"] or len(parts) < 3 or parts[2] not in _models:
            return _said(404, {"error": f"there is no {path}; the models are {', '.join(_models)}"})
        if method == "GET" and len(parts) == 3:
            return _said(200, _models[parts[2]].description)
        if method == "GET" and parts[3:] == ["ready"]:
            return _said(200, {})
        return _said(405, {"error": f"{method} {path} is not answered"})


def _said(status, value):
    return status, json.dumps(value).encode(), b""


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


def serve(threads=0):
    """Answers requests until SIGTERM, and those that are in flight by then. Functions are called
    one after the other, or by so many threads at once: for those that wait, such as for a
    database."""
    if not _models:
        sys.exit("no function has been made a model: @preforkd_helper.model(...)")
    _Server(_listener(os.environ.get("PREFORKD_HELPER_SOCKET")), threads).run()
