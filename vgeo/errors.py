"""What the package says to people: the one exception that is meant to be read by the person who made the mistake, and lines on the way."""

from concurrent.futures import wait

STALLED = 300  # seconds


class VgeoError(Exception):
    """One line that names the file or value at fault and says what to do; shown without a trace by the command line.

    Line breaks, escapes for terminals and undecodable bytes, which file names may hold, are shown as in a Python string.
    """

    def __init__(self, message):
        super().__init__(printable(message))


def printable(text):
    """The text in one line that any terminal shows as it is: 'a\\nb' becomes 'a\\\\nb'."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in str(text)
    )


def say(line):
    """Prints something that a person who watches should know; `run.execute` passes such lines of a notebook on to the terminal."""
    print(f"vgeo: {printable(line)}", flush=True)


def result(task, what, seconds=STALLED):
    """The result of a future; says, each time that it has been waited for so long, what is not done."""
    while not (task.done() or wait([task], seconds).done):
        say(
            f"{what}: not done within {seconds:g} s, it may hang: wait, or stop with Ctrl-C, after which the same command goes on from here"
        )
    return task.result()
