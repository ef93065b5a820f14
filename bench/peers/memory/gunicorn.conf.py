"""Says when a worker has loaded the application: a line in the file READY with its pid."""

import os


def post_worker_init(worker):
    with open(os.environ["READY"], "a") as f:
        f.write(f"{worker.pid}\n")
