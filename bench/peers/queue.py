"""Puts tasks into a plain queue for some seconds, each on the disk, and prints how many a second.

queue.py sqlite|redis DIR PORT SECONDS BYTES
"""
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time

kind, folder, port, seconds, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5])
body = b"x" * size


def sqlite():
    db = sqlite3.connect(os.path.join(folder, "queue.db"), isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("CREATE TABLE task (id TEXT PRIMARY KEY, status TEXT, body BLOB)")
    n, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        db.execute("INSERT INTO task VALUES (?, 'queued', ?)", (os.urandom(16).hex(), body))
        n += 1
    return n


def command(*words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


def producer(end, counts):
    with socket.create_connection(("127.0.0.1", port)) as c:
        replies = c.makefile("rb")
        n = 0
        while time.monotonic() < end:
            job = os.urandom(16).hex().encode()
            # What RQ's enqueue writes: the queue's name, the job, and the job's name in the list.
            c.sendall(command(b"SADD", b"rq:queues", b"rq:queue:q") + command(b"HSET", b"rq:job:" + job, b"data", body) + command(b"RPUSH", b"rq:queue:q", job))
            for _ in range(3):
                if not replies.readline().startswith(b":"):
                    raise SystemExit("redis refuses")
            n += 1
        counts.append(n)


def redis():
    server = subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--appendonly", "yes", "--appendfsync", "always", "--save", ""],
        stdout=subprocess.DEVNULL,
    )
    try:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.02)
        end, counts = time.monotonic() + seconds, []
        threads = [threading.Thread(target=producer, args=(end, counts)) for _ in range(16)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        return sum(counts)
    finally:
        server.terminate()
        server.wait()


print({"sqlite": sqlite, "redis": redis}[kind]() / seconds)
