"""How often `vgeo locate` is right, and how well its confidence holds.

    python benchmarks/locate.py REAL CITY

REAL and CITY are folders that hold sf-xs/val and sf-xs/test. REAL's are photographs, and it holds
sf-xs/train too; CITY is what `vgeo data` renders. The packaged weights were trained on neither.

There are three validation sets: the queries of both val folders, and the photographs of REAL's
train that were taken from 2017 on, located among the earlier ones. They choose the image size and
give the calibration in vgeo/locate/calibration.json, which this program writes. SHORTLIST and REACH
of vgeo/locate/index.py were chosen from them by hand. The test sets are only measured. Results are
written to benchmarks/results/locate.csv and locate_choices.csv.
"""

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from vgeo.locate import confidence
from vgeo.locate.index import RADIUS, REACH, SHIPPED, SHORTLIST, Index
from vgeo.models.network import build
from vgeo.models.weights import weights_hash
from vgeo.photos.layout import find
from vgeo.photos.tables import read_photos

OUT = Path(__file__).parent / "results"
SIZES = (96, 128, 160, 192)  # pixels
CHOICES = [(1, 1)] + [(shortlist, reach) for shortlist in (10, 20) for reach in (1, 3, 14)]


def folders(top, split):
    """The database and the queries of a split of sf-xs."""
    return [read_photos(find(top, "sf-xs", split, kind)) for kind in ("database", "queries")]


def by_year(photos, year=2017):
    """The photos taken before a year as the database, those from that year on as queries."""
    later = photos.table["month"].to_numpy() >= 100 * year
    return [photos.take(~later), photos.take(later)]


def ask(index, queries):
    """The answers for the queries, and which are right."""
    answers = index.locate(queries.paths)
    return answers, np.linalg.norm(answers.xy - queries.xy, axis=1) <= RADIUS


def shares(model, sets, size, shortlist=SHORTLIST, reach=REACH):
    """A row of locate_choices.csv: percent of right answers on each set."""
    row = {"size": size, "shortlist": shortlist, "reach": reach}
    for name, (database, queries) in sets.items():
        index = Index(database, model, size, shortlist=shortlist, reach=reach)
        row[name] = round(100 * float(ask(index, queries)[1].mean()), 1)
    print(row, flush=True)
    return row


def smallest(rows, sets):
    """The smallest size whose share of right answers is within a standard error of the best's.

    The share is that of all queries of all sets. The rule is that of Breiman et al. (Classification
    and Regression Trees, 1984).
    """
    counts = [len(queries) for _, queries in sets.values()]
    found = [np.average([row[name] for name in sets], weights=counts) for row in rows]
    error = np.sqrt(max(found) * (100 - max(found)) / sum(counts))
    return next(row["size"] for row, share in zip(rows, found) if share >= max(found) - error)


def calibrate(model, size, sets):
    """Fits the calibration to the real validation sets and writes it into the package."""
    known = [ask(Index(database, model, size), queries) for database, queries in sets]
    right = np.concatenate([right for _, right in known])
    calibration = confidence.fit(np.concatenate([a.features for a, _ in known]), right)
    photos = "photos of San Francisco (2017 to 2021), located among earlier ones,"
    content = {
        "weights_hash": weights_hash(model),
        "size": size,
        "fitted_to": f"{len(right)} {photos}",
        "made_by": "benchmarks/locate.py",
        "right": int(right.sum()),
        "calibration": asdict(calibration),
    }
    SHIPPED.write_text(json.dumps(content, indent=2) + "\n")
    return calibration


def test(name, model, size, database, queries, shipped):
    """The rows of locate.csv of a test set: four ways to say how confident an answer is."""
    start = time.perf_counter()
    index = Index(database, model, size)
    seconds = [time.perf_counter() - start]
    held = index.held_out
    own = confidence.fit(held.answers.features, held.right)
    seconds.append(time.perf_counter() - start - sum(seconds))
    answers, right = ask(index, queries)
    seconds.append((time.perf_counter() - start - sum(seconds)) / len(queries))
    print(f"{name}: {index.described} of {len(database)} photos described in {seconds[0]:.1f} s")
    print(f"{name}: calibrated in {seconds[1]:.1f} s, {seconds[2]:.3f} s a query")
    nearest = ask(Index(database, model, size, shortlist=1), queries)[1]
    print(f"{name}: {100 * nearest.mean():.1f} % right by the nearest descriptor alone")
    ways = {
        "held-out photos": own(answers.features),
        "shipped": shipped(answers.features),
        "constant, the held-out share": np.full(len(right), held.right.mean()),
        "constant, the queries' own share": np.full(len(right), right.mean()),
    }
    rows = [
        {"set": name, "confidence": way} | confidence.scores(p, right) for way, p in ways.items()
    ]
    return pd.DataFrame(rows)


def main(real, city):
    model = build("resnet18", "city").eval()
    train = read_photos(find(real, "sf-xs", "train"))
    real_sets = {"real val": folders(real, "val"), "real train": by_year(train)}
    sets = real_sets | {"city val": folders(city, "val")}
    choices = [shares(model, sets, size) for size in SIZES]
    size = smallest(choices, sets)
    shipped = calibrate(model, size, real_sets.values())
    tests = {"real test": folders(real, "test"), "city test": folders(city, "test")}
    rows = [test(name, model, size, *photos, shipped) for name, photos in tests.items()]
    table = pd.concat(rows, ignore_index=True)
    digits = {"within 25 m, %": 1, "mean confidence, %": 1}
    table.round(digits | {"calibration error": 4}).round(4).to_csv(OUT / "locate.csv", index=False)
    print(table.round(4).to_string(index=False), flush=True)
    choices += [shares(model, sets, size, *choice) for choice in CHOICES]
    pd.DataFrame(choices).to_csv(OUT / "locate_choices.csv", index=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
