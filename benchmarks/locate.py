"""Where photos are located and how sure: what was chosen on validation photos, what that gives on the test -> results/benchmarks/locate*.csv.

    .venv/bin/python tests/benchmarks/locate.py REAL CITY

REAL and CITY hold sf-xs/val and sf-xs/test, REAL photographs and sf-xs/train too, CITY what `python -m vgeo data` rendered. The packaged weights were
trained on neither. Validation: val's queries in its database; and the photographs of REAL's train taken from 2017 on in those before, as val and test are
split. From it come the image size and the calibration in vgeo/data/locate.json, which this writes, and `locate.SHORTLIST` and `locate.REACH`,
which are set there by hand. The test is asked once, with what was chosen.
"""

import dataclasses
import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from vgeo import locate
from vgeo.locate.confidence import brier, calibration_error, fit
from vgeo.photos.places import positions
from vgeo.photos.tables import read_photos
from vgeo.photos.layout import find
from vgeo.models.network import build
from vgeo.models.weights import weights_hash

OUT = Path(__file__).resolve().parents[2] / "results" / "benchmarks"
SIZES, SHORTLISTS, REACHES = (96, 128, 160, 192), (1, 10, 20), (1, 3, 14)


def parts(top, split):
    return read_photos(find(top, "sf-xs", split, "database")), read_photos(
        find(top, "sf-xs", split, "queries")
    )


def by_year(table, year=2017):
    """(database, queries): the photos before and from a year on."""
    later = table["month"] >= 100 * year
    return tuple(table[rows].reset_index(drop=True) for rows in (~later, later))


def asked(index, queries):
    """(Answers, right) of the queries."""
    answers = index.locate(list(queries["path"]))
    return answers, np.linalg.norm(answers.xy - positions(queries), axis=1) <= locate.RADIUS


def shares(model, sets, size, shortlist=locate.SHORTLIST, reach=locate.REACH):
    """What a choice gives on each set: {..., set: percent within 25 m}."""
    chosen = locate.SHORTLIST, locate.REACH
    locate.SHORTLIST, locate.REACH = shortlist, reach
    found = {
        name: round(100 * float(asked(locate.Index(database, model, size), queries)[1].mean()), 1)
        for name, (database, queries) in sets.items()
    }
    locate.SHORTLIST, locate.REACH = chosen
    row = {"size": size, "shortlist": shortlist, "reach": reach, **found}
    print(row, flush=True)
    return row


def smallest(rows, sets):
    """The smallest size whose share is within a standard error of the best, over all queries of all sets (Breiman et al., 1984)."""
    count = {name: len(queries) for name, (_, queries) in sets.items()}
    found = [sum(row[name] * n for name, n in count.items()) / sum(count.values()) for row in rows]
    error = (max(found) * (100 - max(found)) / sum(count.values())) ** 0.5
    return next(row["size"] for row, share in zip(rows, found) if share >= max(found) - error)


def scores(name, confidence, promised, right):
    return {
        "set": name,
        "confidence": confidence,
        "queries": len(right),
        "within 25 m": round(100 * float(right.mean()), 1),
        "promised": round(100 * float(np.mean(promised)), 1),
        "Brier": round(brier(promised, right), 4),
        "calibration error": round(calibration_error(promised, right), 4),
    }


def main(real, city):
    model = build("resnet18", "city").eval()
    sets = {
        "real val": parts(real, "val"),
        "real train": by_year(read_photos(find(real, "sf-xs", "train"))),
        "city val": parts(city, "val"),
    }
    choices = [shares(model, sets, size) for size in SIZES]
    size = smallest(choices, sets)

    known = [
        asked(locate.Index(sets[name][0], model, size), sets[name][1])
        for name in ("real val", "real train")
    ]
    features, right = (
        np.concatenate([answers.features for answers, _ in known]),
        np.concatenate([r for _, r in known]),
    )
    shipped = fit(features, right)
    made_of = f"{len(right)} photographs of San Francisco from 2017 to 2021 among earlier ones"
    locate.SHIPPED.write_text(
        json.dumps(
            {
                "weights": weights_hash(model),
                "size": size,
                "made_of": made_of,
                "made_by": "tests/benchmarks/locate.py",
                "right": int(right.sum()),
                "calibration": dataclasses.asdict(shipped),
            },
            indent=2,
        )
        + "\n"
    )
    rows = []
    for name, (database, queries) in (
        ("real test", parts(real, "test")),
        ("city test", parts(city, "test")),
    ):
        began = time.perf_counter()
        index = locate.Index(database, model, size)
        print(
            f"{name}: {index.described} of {len(database)} described in {time.perf_counter() - began:.1f} s"
        )
        began = time.perf_counter()
        held = index.held_out()
        own = fit(held.answers.features, held.right)
        print(f"{name}: calibrated in {time.perf_counter() - began:.1f} s")
        began = time.perf_counter()
        answers, right = asked(index, queries)
        print(f"{name}: {(time.perf_counter() - began) / len(queries):.3f} s a query")
        rows += [
            scores(name, "held-out photos", own(answers.features), right),
            scores(name, "shipped", shipped(answers.features), right),
            scores(
                name, "constant, the held-out share", np.full(len(right), held.right.mean()), right
            ),
            scores(
                name, "constant, the queries' own share", np.full(len(right), right.mean()), right
            ),
        ]
        locate.SHORTLIST, chosen = 1, locate.SHORTLIST
        print(
            f"{name}: nearest descriptor alone {100 * asked(index, queries)[1].mean():.1f} within 25 m"
        )
        locate.SHORTLIST = chosen
    table = pd.DataFrame(rows)
    table.to_csv(OUT / "locate.csv", index=False)
    print(table.to_string(index=False), flush=True)
    choices += [
        shares(model, sets, size, shortlist, reach)
        for shortlist in SHORTLISTS
        for reach in (REACHES if shortlist > 1 else REACHES[:1])
    ]
    pd.DataFrame(choices).to_csv(OUT / "locate_choices.csv", index=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
