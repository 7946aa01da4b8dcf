"""Progress bars of long work."""

import sys
from typing import NoReturn

from tqdm.auto import tqdm


def bar(
    label: str | None, total: int | None, unit: str, first: int = 0, leave: bool = False
) -> "tqdm[NoReturn]":
    """A progress bar in a terminal and in a notebook. A log file gets none.

    Parameters
    ----------
    label : words before the bar; None for no bar.
    total : how much there is to do; None where that is not known.
    unit : what is counted, such as "images".
    first : how much is done already.
    leave : whether the full bar stays.
    """
    in_notebook = any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__)
    hidden = label is None or not (in_notebook or sys.stderr.isatty())
    # A notebook's client that reads a cell's messages at its end, such as nbval, loses some of
    # them, the last one too, where a cell of minutes sends ten a second.
    seconds = 1.0 if in_notebook else 0.1
    return tqdm(
        desc=label,
        total=total,
        unit=f" {unit}",
        initial=first,
        mininterval=seconds,
        leave=leave,
        disable=hidden,
    )
