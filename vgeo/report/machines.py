"""How far a run's results differ from those of another machine, where that was measured."""

import os
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from vgeo.report.claims import VERDICTS

FOLDER = "machines"  # of a results folder
KINDS = {"bf16": "with bfloat16", "float32": "without bfloat16"}  # of machines, by their precision
RELEASED = "released verdict"  # a column of `Comparison.verdicts`


@dataclass(frozen=True)
class Comparison:
    """Two runs of one commit, with the same data and seeds, on two machines.

    Attributes
    ----------
    tables : a row for each of the original's tables: how far its recalls differ, in points, beside
        the largest spread of an effect over the released run's seeds.
    verdicts : the claims and costs that one machine decides and the other does not decide alike,
        with RELEASED beside the two.
    runs : a row for each machine, with the commit, the number of seeds and "claims", the size of
        the ledger. "minutes" is missing where the run found its trainings in a cache.
    """

    tables: pd.DataFrame
    verdicts: pd.DataFrame
    runs: pd.DataFrame

    def write(self, results: str | os.PathLike) -> None:
        """Writes the three tables to a results folder, as FOLDER/*.csv."""
        folder = Path(results) / FOLDER
        folder.mkdir(exist_ok=True)
        for name, table in vars(self).items():
            table.to_csv(folder / f"{name}.csv", index=False)

    def minutes(self) -> dict[str, float]:
        """{precision of a machine: minutes of its run from an empty cache}."""
        timed = self.runs.dropna(subset="minutes")
        return dict(zip(timed["precision"], timed["minutes"], strict=True))

    def __str__(self) -> str:
        each = " and ".join(
            f"{run['processor']} ({KINDS[run['precision']]})"
            for run in self.runs.to_dict("records")
        )
        run = self.runs.iloc[0]
        released = self.verdicts[RELEASED].isin(VERDICTS[:2]).sum()
        return (
            f"Compared: {each}; commit {run['commit'][:12]}; trainings of every model: "
            f"{run['seeds']}. Of {run['claims']} verdicts {len(self.verdicts)} differ; {released} "
            "of these are decided in the released ledger and should be read as not decidable."
        )


def comparison(results: str | os.PathLike) -> Comparison | None:
    """What a results folder holds about another machine, None where it holds nothing."""
    folder = Path(results) / FOLDER
    files = {name: folder / f"{name}.csv" for name in Comparison.__dataclass_fields__}
    if not all(path.exists() for path in files.values()):
        return None
    return Comparison(**{name: pd.read_csv(path) for name, path in files.items()})
