"""How far the results of one study differ between two machines.

    python benchmarks/machines.py A B

A and B are results folders of the same commit, data and seeds, made on two machines, such as
runs/city of each. Three files are written to benchmarks/results/. machines.csv has a row for each
of the original's tables: the mean and the largest difference of a recall in points, where the
largest is, and how far an effect spreads over A's seeds. machine_verdicts.csv has the verdicts that
flip, and machine_runs.csv what each machine is and how long it took.
"""

import json
import sys
from pathlib import Path

import pandas as pd

from vgeo.errors import VgeoError
from vgeo.report.claims import VERDICTS
from vgeo.report.original import KEY

OUT = Path(__file__).parent / "results"
SAME = ("profile", "commit", "seeds", "image_size", "data")  # of two runs that can be compared


def run_of(folder):
    """A results folder's run.json."""
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


def differences(a, b):
    """A row for each of the original's tables that both folders have."""
    claims, rows = pd.read_csv(a / "tables" / "claims.csv"), []
    numbers = claims["claim"].str.extract(r"^Table (\d+):", expand=False)
    for path in sorted(a.glob("tables/table_??.csv")):
        one, two = (pd.read_csv(each / "tables" / path.name) for each in (a, b))
        both = one.merge(two, on=KEY, suffixes=("_a", "_b"), validate="one_to_one")
        if not len(one) == len(two) == len(both):
            raise VgeoError(f"{b / 'tables' / path.name}: has other rows than {path}")
        apart = (both["value_a"] - both["value_b"]).abs()
        largest = both.loc[apart.idxmax()]
        number = int(path.stem[-2:])
        spread = claims.loc[numbers == str(number), "spread"]
        row = {"table": number, "recalls": int(apart.count()), "differ": int((apart > 0).sum())}
        row |= {"mean difference": apart.mean(), "largest difference": apart.max()}
        row["where"] = f"{largest['condition']}, {largest['dataset']} {largest['metric']}"
        rows.append(row | {"largest spread of an effect over seeds": spread.max()})
    return pd.DataFrame(rows).round(2)


def flips(a, b):
    """The claims and costs that one machine decides and the other does not decide alike."""
    keys = ["claim", "family", "dataset", "metric"]
    one, two = (
        pd.read_csv(each / "tables" / "claims.csv")[[*keys, "verdict"]].fillna("")
        for each in (a, b)
    )
    both = one.merge(two, on=keys, suffixes=(" a", " b"), validate="one_to_one")
    decided = both[["verdict a", "verdict b"]].isin(VERDICTS[:2]).any(axis=1)
    return both[decided & (both["verdict a"] != both["verdict b"])]


def runs(a, b):
    """A row for each machine."""
    rows = []
    for run in map(run_of, (a, b)):
        seconds = sum(notebook["seconds"] for notebook in run["notebooks"].values())
        machine = {name: run["machine"][name] for name in ("processor", "cores", "precision")}
        row = {"profile": run["profile"], "commit": run.get("commit"), "seeds": len(run["seeds"])}
        rows.append(row | machine | {"minutes": round(seconds / 60, 1)})
    return pd.DataFrame(rows)


def main(a, b, out=OUT):
    a, b, out = Path(a), Path(b), Path(out)
    one, two = run_of(a), run_of(b)
    if other := [name for name in SAME if one.get(name) != two.get(name)]:
        raise VgeoError(f"{a} and {b}: have another {', '.join(other)}: compare runs of one study")
    if one.get("dirty") or two.get("dirty"):
        print("the code of a run differed from its commit: the difference may be the code's")
    written = {"machines": differences(a, b), "machine_verdicts": flips(a, b)}
    for name, table in (written | {"machine_runs": runs(a, b)}).items():
        table.to_csv(out / f"{name}.csv", index=False)
    print(written["machines"].to_string(index=False))
    print(f"{len(written['machine_verdicts'])} verdicts flip")


if __name__ == "__main__":
    main(*sys.argv[1:])
