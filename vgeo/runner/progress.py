"""Shows on the terminal what a notebook is doing while it runs."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vgeo.errors import printable
from vgeo.study.cache import read_journal


class Passed:
    """A file for what a notebook prints: it passes the lines of `errors.say` on to the terminal."""

    def write(self, text: str) -> None:
        """Prints the lines that begin with "vgeo: "."""
        for line in text.splitlines():
            if line.startswith("vgeo: "):
                print(f"    {line}", flush=True)

    def flush(self) -> None:
        """Does nothing: every line is flushed when it is printed."""


@contextmanager
def follow(
    journal: Path | None, patience: float = 5.0, interval: float = 1.0
) -> Iterator[list[dict]]:
    """Prints the label of each step of the study that has been running for some time.

    Parameters
    ----------
    journal : of the study's cache, see `study.cache.Cache`.
    patience : seconds that a step runs before its label is printed.
    interval : seconds between two looks at the journal.

    Yields
    ------
    A list that gets the lines which are added to the journal, and is complete after the block.
    """
    over, lines = threading.Event(), []
    offset = os.path.getsize(journal) if journal and journal.exists() else 0
    running: list[list] = []  # [label, time of its begin, whether it was printed], inner steps last

    def look() -> None:
        nonlocal offset
        added, offset = read_journal(journal, offset) if journal else ([], 0)
        lines.extend(added)
        for line in added:
            if line["event"] == "begin":
                running.append([line["label"], time.monotonic(), False])
            elif line["event"] == "made" and running:
                running.pop()
        if running and not running[-1][2] and time.monotonic() - running[-1][1] >= patience:
            running[-1][2] = True
            print(f"    {printable(running[-1][0])}", flush=True)

    def keep_looking() -> None:
        while not over.wait(interval):
            look()

    thread = threading.Thread(target=keep_looking, daemon=True)
    thread.start()
    try:
        yield lines
    finally:
        over.set()
        thread.join()
        look()
