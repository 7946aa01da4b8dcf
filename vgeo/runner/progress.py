"""TODO: runner.progress."""

import threading
import time
from contextlib import contextmanager


class Passed:
    """A file for what a notebook prints, that passes the lines of `errors.say` on."""

    def write(self, text):
        for line in text.splitlines():
            if line.startswith("vgeo: "):
                print(f"    {line}", flush=True)

    def flush(self):
        pass


@contextmanager
def watching(now, seconds=5, wait=1.0):
    """Prints what the file `now` holds, the step that a notebook is at, each time that it has been the same for some seconds."""
    over, said = threading.Event(), None

    def watch():
        nonlocal said
        last, since = None, time.monotonic()
        while not over.wait(wait):
            label = now.read_text() if now.exists() else ""
            if label != last:
                last, since = label, time.monotonic()
            elif label not in ("", said) and time.monotonic() - since >= seconds:
                said = label
                print(f"    {label}", flush=True)

    now.unlink(missing_ok=True)  # of a run that was killed
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
