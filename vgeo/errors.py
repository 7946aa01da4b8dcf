"""What the package says to people: the one exception that is meant to be read by the person who made the mistake, and lines on the way."""


class VgeoError(Exception):
    """One line that names the file or value at fault and says what to do; shown without a trace by the command line.

    Line breaks, escapes for terminals and undecodable bytes, which file names may hold, are shown as in a Python string.
    """

    def __init__(self, message):
        super().__init__(printable(message))


def printable(text):
    """The text in one line that any terminal shows as it is: 'a\\nb' becomes 'a\\\\nb'."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in str(text))


def say(line):
    """Prints something that a person who watches should know; `run.execute` passes such lines of a notebook on to the terminal."""
    print(f"vgeo: {printable(line)}", flush=True)
