"""How far the results of one study differ between two machines.

    python benchmarks/machines.py A B

A and B are results folders of the commit, the data and the image size of the released run, made
with the same seeds on two machines, such as runs/city of each. B has to begin with an empty cache.
A may find everything in the cache that the released run was made with. What is compared is written
into the released results, see vgeo/report/machines.py, and report.html is made anew.
"""

import sys
from pathlib import Path

import pandas as pd

from vgeo.errors import VgeoError
from vgeo.report.claims import VERDICTS
from vgeo.report.machines import ROW, Comparison
from vgeo.report.original import KEY
from vgeo.report.page import write_page
from vgeo.runner.record import read
from vgeo.study.folders import clone

SAME = ("profile", "commit", "image_size", "data")  # of runs that can be compared


def ledger(folder):
    """A results folder's ledger."""
    return pd.read_csv(folder / "tables" / "claims.csv")


def differences(a, b, released):
    """A row for each of the original's tables that A and B have."""
    claims, rows = ledger(released), []
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
    names = ["verdict a", "verdict b"]
    each = [
        ledger(folder).fillna({"dataset": "", "metric": ""}).set_index(ROW)["verdict"].rename(name)
        for folder, name in zip((a, b), names, strict=True)
    ]
    both = pd.concat(each, axis=1).reset_index()
    decided = both[names].isin(VERDICTS[:2]).any(axis=1)
    return both[decided & (both[names[0]] != both[names[1]])]


def runs(a, b):
    """A row for each machine."""
    rows = []
    for folder in (a, b):
        run = read(folder / "run.json")
        notebooks = run["notebooks"].values()
        minutes = sum(notebook["seconds"] for notebook in notebooks) / 60
        trained = any("models" in notebook for notebook in notebooks)
        machine = {name: run["machine"][name] for name in ("processor", "cores", "precision")}
        row = {"profile": run["profile"], "commit": run["commit"], "seeds": len(run["seeds"])}
        row |= machine | {"claims": len(ledger(folder))}
        rows.append(row | {"minutes": round(minutes, 1) if trained else None})
    return pd.DataFrame(rows)


def main(a, b, released=None):
    a, b, released = Path(a), Path(b), Path(released or clone() / "results" / "city")
    one, two, three = (read(folder / "run.json") for folder in (a, b, released))
    other = [name for name in SAME if not one.get(name) == two.get(name) == three.get(name)]
    if one["seeds"] != two["seeds"]:
        other.append("seeds")
    if other:
        raise VgeoError(f"{a} and {b}: have another {', '.join(other)}: compare runs of one study")
    if one.get("dirty") or two.get("dirty"):
        print("the code of a run differed from its commit: the difference may be the code's")
    compared = Comparison(differences(a, b, released), flips(a, b), runs(a, b))
    compared.write(released)
    write_page(released)
    print(compared.tables.to_string(index=False))
    print(compared)


if __name__ == "__main__":
    main(*sys.argv[1:])
