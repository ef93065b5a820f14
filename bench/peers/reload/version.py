"""What the version of an application under reload does when it is imported.

VERSION_FILE names a file with one word, so that a test deploys a version by writing it:
ok; slow (boots 6 seconds); fail (an error at import); hang (never finishes importing);
crash (dies half a second after it was imported, so while it serves).
"""

import os
import signal
import threading
import time


def boot():
    with open(os.environ["VERSION_FILE"]) as f:
        word = f.read().strip()
    if word == "slow":
        time.sleep(6)
    elif word == "fail":
        raise RuntimeError("this version fails at boot")
    elif word == "hang":
        time.sleep(1000)
    elif word == "crash":
        crash = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGSEGV))
        crash.daemon = True
        crash.start()
    elif word != "ok":
        raise RuntimeError(f"{word!r} is no version")
