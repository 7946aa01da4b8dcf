"""How many photos an index needs: `vgeo locate` with fewer and fewer of a set's photos.

`python benchmarks/density.py FOLDER` takes a folder with `database` and `queries` or `queries_v1`,
such as sf-xs/test, and writes benchmarks/results/locate_density.csv. The photos that stay are drawn
at random, several times for each share. The length of the streets is 10 m for each square of
10 m that holds photos of the whole database. A query is right where the answer is within 25 m.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from vgeo.locate.index import RADIUS, Index, open_describer
from vgeo.photos.tables import Photos, read_photos

RESULTS = Path(__file__).resolve().parent / "results" / "locate_density.csv"
SHARES = {1.0: 1, 0.5: 1, 0.25: 2, 0.125: 2, 0.0625: 2}  # of the photos, and how often drawn
SQUARE = 10.0  # metres


def street_metres(photos: Photos) -> float:
    """The length of the streets on which photos were taken."""
    return SQUARE * len(np.unique(photos.xy // SQUARE, axis=0))


def density(folder, cache):
    """A table with a row for each share of the photos that stays."""
    top = Path(folder)
    asked = next(top / name for name in ("queries_v1", "queries") if (top / name).is_dir())
    photos, queries = read_photos(top / "database"), read_photos(asked)
    hundreds = street_metres(photos) / 100
    describer, rows = open_describer(), []
    for share, draws in SHARES.items():
        count = round(share * len(photos))
        for draw in range(draws):
            chosen = np.random.default_rng([draw, count]).permutation(len(photos))[:count]
            some = photos.take(np.sort(chosen))
            answers = Index(some, *describer, cache).locate(queries.paths)
            right = np.linalg.norm(answers.xy - queries.xy, axis=1) <= RADIUS
            metres = cKDTree(some.xy).query(queries.xy)[0]
            rows.append(
                {
                    "photos": len(some),
                    "photos per 100 m of street": len(some) / hundreds,
                    "draws": draws,
                    "median metres to the nearest photo": np.median(metres),
                    "photo within 25 m, %": 100 * (metres <= RADIUS).mean(),
                    "answer within 25 m, %": 100 * right.mean(),
                    "of those with such a photo, %": 100 * right[metres <= RADIUS].mean(),
                }
            )
    table = pd.DataFrame(rows).groupby("photos", as_index=False, sort=False).mean()
    return table.round(1).astype({"draws": int})


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as cache:
        table = density(sys.argv[1], sys.argv[2] if sys.argv[2:] else cache)
    RESULTS.write_text(table.to_csv(index=False))
    print(table.to_string(index=False))
