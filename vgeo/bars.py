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
    return tqdm(
        desc=label, total=total, unit=f" {unit}", initial=first, leave=leave, disable=hidden
    )
