"""The exception for mistakes that a person can correct, and lines printed for people."""

import sys
from concurrent.futures import Future, wait
from typing import Any

STALLED = 300  # seconds


class VgeoError(Exception):
    """One line that names the file or value at fault and says what to do.

    The command line shows it without a trace. Line breaks, terminal escapes and undecodable bytes,
    which file names may hold, are shown as in a Python string.
    """

    def __init__(self, message: object):
        super().__init__(printable(message))


def printable(text: object) -> str:
    r"""The text in one line that any terminal shows as it is: a line break becomes \n."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def shown(text: object) -> str:
    """The text with the characters that the terminal can't show escaped as in a string."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return str(text).encode(encoding, "backslashreplace").decode(encoding)


def show(line: object) -> None:
    """Prints one line that any terminal can show."""
    print(shown(printable(line)), flush=True)


def say(line: object) -> None:
    """Prints a line for the person who watches: "vgeo: " and the line."""
    show(f"vgeo: {line}")


def result(future: Future[Any], what: object, seconds: float = STALLED) -> Any:
    """The result of a future. Each time that `seconds` pass without it, a line says so.

    Parameters
    ----------
    what : what the future works on, for that line.
    """
    while not (future.done() or wait([future], seconds).done):
        say(
            f"{what}: not done within {seconds:g} s, it may hang: wait, or stop with Ctrl-C, after "
            "which the same command goes on from here"
        )
    return future.result()
