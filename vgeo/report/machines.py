"""How far a run's results differ from those of another machine, where that was measured."""

import os
from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd

from vgeo.report.claims import verdict_counts

FOLDER = "machines"  # of a results folder
KINDS = {"bf16": "with bfloat16", "float32": "without bfloat16"}  # of machines, by their precision
ROW = ["claim", "family", "dataset", "metric"]  # what names a row of the ledger


@dataclass(frozen=True)
class Comparison:
    """Two runs of one commit, with the same data and seeds, on two machines.

    Attributes
    ----------
    tables : a row for each of the original's tables: how far its recalls differ, in points, beside
        the largest spread of an effect over the released run's seeds.
    verdicts : ROW of the claims and costs that one machine decides and the other does not decide
        alike, and what each says.
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

    def minutes(self, seeds: int) -> dict[str, float]:
        """{precision of a machine: minutes of its run of so many seeds from an empty cache}."""
        timed = self.runs[self.runs["seeds"] == seeds].dropna(subset="minutes")
        return dict(zip(timed["precision"], timed["minutes"], strict=True))

    def counts(self, ledger: pd.DataFrame) -> pd.DataFrame:
        """`verdict_counts` of a ledger in which the verdicts that differ are not decidable."""
        flipped = pd.MultiIndex.from_frame(self.verdicts[ROW].fillna(""))
        differs = pd.MultiIndex.from_frame(ledger[ROW].fillna("")).isin(flipped)
        verdicts = ledger["verdict"].mask(differs, "not decidable")
        return verdict_counts(ledger.assign(verdict=verdicts))

    @property
    def trainings(self) -> str:
        """How many trainings of each model the verdicts are of: "one seed"."""
        seeds = self.runs["seeds"].iloc[0]
        return "one seed" if seeds == 1 else f"{seeds} seeds"

    def __str__(self) -> str:
        each = " and ".join(
            f"{run['processor']} ({KINDS[run['precision']]})"
            for run in self.runs.to_dict("records")
        )
        run = self.runs.iloc[0]
        return (
            f"Compared: {each}; commit {run['commit'][:12]}; {self.trainings}. Of {run['claims']} "
            f"verdicts {len(self.verdicts)} differ."
        )


def comparison(results: str | os.PathLike) -> Comparison | None:
    """What a results folder holds about another machine, None where it holds nothing."""
    folder = Path(results) / FOLDER
    files = {field.name: folder / f"{field.name}.csv" for field in fields(Comparison)}
    if not all(path.exists() for path in files.values()):
        return None
    return Comparison(**{name: pd.read_csv(path) for name, path in files.items()})
