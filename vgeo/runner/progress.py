"""Says on the terminal, or in a file, where a run is."""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm.auto import tqdm
from tqdm.utils import disp_len, disp_trim

from vgeo.errors import printable, shown
from vgeo.runner.expected import Parts, Remaining
from vgeo.runner.record import BEFORE
from vgeo.study.cache import read_journal


class Passed:
    """A file for what a notebook prints: it passes the lines of `errors.say` on to the terminal."""

    def write(self, text: str) -> None:
        """Prints the lines that begin with "vgeo: "."""
        for line in text.splitlines():
            if line.startswith("vgeo: "):
                say_line(f"    {line}")

    def flush(self) -> None:
        """Does nothing: every line is flushed when it is printed."""


class Progress:
    """Says where a run is: which notebook, which step of it, how long, how long to go.

    In a terminal one line is rewritten while a notebook runs. In a file there is a line for each
    notebook that begins and for each step that takes long. Before the first notebook there are
    lines in a terminal too, because rendering and training show progress bars of their own there.

    Parameters
    ----------
    journal : of the study's cache, see `study.cache.Cache`.
    notebooks : names of all notebooks of the run, in order.
    parts, seen : see `expected.Remaining`.
    patience : seconds that a step runs before a line is printed for it.
    interval : seconds between two looks at the journal.
    clock : returns seconds.
    """

    def __init__(
        self,
        journal: Path | None,
        notebooks: list[str],
        parts: Parts,
        seen: Iterable[str] = (),
        patience: float = 5.0,
        interval: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.journal, self.notebooks = journal or Path(os.devnull), notebooks
        self.patience, self.interval, self.clock = patience, interval, clock
        text = self.journal.read_bytes() if self.journal.exists() else b""
        self.offset = len(text)
        self.remaining, self.began = Remaining(parts, seen, _begun(text)), clock()

    @contextmanager
    def part(self, name: str) -> Iterator[list[dict]]:
        """Follows a notebook, or what comes before them all (BEFORE), while the block runs.

        Yields
        ------
        A list that gets the lines which are added to the journal, and is complete after the block.
        """
        part, over = _Part(self, name), threading.Event()
        live = sys.stdout.isatty() and name != BEFORE
        # ncols and nrows, because tqdm shows nothing in a terminal that says it has 0 rows
        with tqdm(
            bar_format="{desc}", file=sys.stdout, leave=False, disable=not live, ncols=0, nrows=20
        ) as bar:

            def show() -> None:
                if live:  # the last column stays free: some terminals begin a line after it
                    columns = os.get_terminal_size(sys.stdout.fileno()).columns or 80
                    bar.set_description_str(part.line(columns - 1))
                elif part.is_long():
                    say_line(part.line())

            def keep_looking() -> None:
                while not over.wait(self.interval):
                    part.look()
                    show()

            if live:
                show()
            elif name != BEFORE:
                say_line(part.line())
            thread = threading.Thread(target=keep_looking, daemon=True)
            thread.start()
            try:
                yield part.lines
            finally:
                over.set()
                thread.join()
                part.look()
        self.remaining.end(name, part.outside())


class _Part:
    """A notebook that is being executed, or what comes before them all."""

    def __init__(self, progress: Progress, name: str):
        self.progress, self.name, self.began = progress, name, progress.clock()
        self.lines: list[dict] = []  # of the journal
        self.running: list[_Step] = []  # inner steps last
        self.steps, self.own = 0, 0.0  # finished steps that are new to the run, seconds of all

    def look(self) -> None:
        """Reads what was added to the journal."""
        added, self.progress.offset = read_journal(self.progress.journal, self.progress.offset)
        self.lines.extend(added)
        for line in added:
            if line["event"] == "begin":
                self.running.append(_Step(line, self.progress.clock()))
                continue
            self.steps += self.progress.remaining.add(self.name, line)
            if line["event"] == "made":
                self.own += line["own"]
                del self.running[-1:]

    def outside(self) -> float:
        """Seconds that belong to no finished step."""
        return self.progress.clock() - self.began - self.own

    def is_long(self) -> bool:
        """Whether the step that is running has become a long one since the last call."""
        if not self.running or self.running[-1].is_said:
            return False
        step = self.running[-1]
        step.is_said = self.progress.clock() - step.began >= self.progress.patience
        return step.is_said

    def line(self, width: int | None = None) -> str:
        """Where the run is, in a line of at most `width` columns."""
        progress, known = self.progress, self.progress.remaining
        total = len(progress.notebooks)
        if self.name == BEFORE:
            where = f"before notebook 1 of {total}"
        else:
            number = progress.notebooks.index(self.name) + 1
            where = f"notebook {number} of {total}, {self.name}"
        label, facts = "", []
        if self.running:
            label = f": {printable(self.running[-1].line['label'])}"
            coming = known.steps(self.name)
            of = f" of {self.steps + max(coming, len(self.running))}" if coming else ""
            facts.append(f"step {self.steps + 1}{of}")
        facts.append(f"{(progress.clock() - progress.began) / 60:.1f} min")
        left = known.left(self.name, [step.line for step in self.running], self.outside())
        if left is not None:
            facts.append(f"{'at most' if known.at_most else 'about'} {_in_words(left)} left")
        where, label = shown(where), shown(label)
        tail = ", " + ", ".join(facts)
        if width and disp_len(label) > (room := width - disp_len(where) - disp_len(tail)):
            label = disp_trim(label, max(room - 3, 0)) + "..."
        line = where + label + tail
        return disp_trim(line, width) if width else line


@dataclass
class _Step:
    """A step that is being made: its line in the journal, when it was seen, whether it was said."""

    line: dict
    began: float
    is_said: bool = False


def say_line(text: str) -> None:
    """Prints a line above the one that is being rewritten."""
    tqdm.write(shown(text))
    sys.stdout.flush()


def _begun(journal: bytes) -> set[str]:
    """The keys of the steps that began and were not made, as when a run was stopped."""
    keys: set[str] = set()
    for text in journal.splitlines():
        try:
            line = json.loads(text)
        except ValueError:  # a run was killed while it wrote the line
            continue
        if line["event"] == "begin":
            keys.add(line["key"])
        else:
            keys.discard(line["key"])
    return keys


def _in_words(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 10):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
