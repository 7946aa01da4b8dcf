"""Which of the city's verdicts have the same sign on photographs.

    python benchmarks/real.py REAL [PROFILE]

REAL is a folder that holds sf-xs/test: photographs, which nothing was trained on. The models are
those of ./run_all.sh PROFILE (by default city), found in its cache; they are trained where they are
not. Each claim about sf-xs is tested on the photographs as the ledger of runs/PROFILE tests it on
the rendered ones. Results are written to benchmarks/results/real_signs.csv, a row for each claim
and metric.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from vgeo.photos.layout import find
from vgeo.photos.places import open_dataset
from vgeo.report import claims
from vgeo.study.descriptions import Descriptions
from vgeo.study.evaluation import Evaluations
from vgeo.study.rows import TABLES
from vgeo.study.study import Study

OUT = Path(__file__).parent / "results" / "real_signs.csv"
NAME = "sf-xs"  # the data set that the photographs are of
REAL_SIZE = 128  # pixels of the photographs, both sides
KEYS = ["claim", "family", "metric"]


def photographs(real):
    """The data set of a folder that holds sf-xs/test."""
    folders = (find(real, NAME, "test", kind) for kind in ("queries", "database"))
    return open_dataset(NAME, *folders)


def at_size(study, size=REAL_SIZE):
    """The study's evaluations, of images of another size."""
    profile = replace(study.profile, image_size=size, test_size=size)
    descriptions = Descriptions(profile, study.data, study.cache)
    return Evaluations(profile, study.data, descriptions, study.trainings, study.cache)


def evaluate(study, dataset):
    """The study's first seed on photographs, as `claims.ledger` takes it."""
    of_photos = at_size(study)
    return {
        table: {row: {NAME: of_photos.result(TABLES[table][row], dataset)} for row in rows}
        for table, rows in claims.CONDITIONS.items()
    }


def compare(city, real):
    """The claims about NAME that both ledgers tested, and whether their effects have one sign."""
    columns = ["effect", "ci_low", "ci_high", "p", "queries", "verdict"]
    city, real = (
        ledger[(ledger["dataset"] == NAME) & (ledger["verdict"] != "no data")][[*KEYS, *columns]]
        for ledger in (city, real)
    )
    both = city.merge(real, on=KEYS, suffixes=(" city", " real"), validate="one_to_one")
    same = np.sign(both["effect city"]) == np.sign(both["effect real"])
    return both.assign(**{"same sign": same}).round(3)


def main(real, profile="city", out=OUT):
    study = Study(profile)
    ledger = claims.ledger({0: evaluate(study, photographs(real))})
    both = compare(pd.read_csv(study.results / "tables" / "claims.csv"), ledger)
    both.to_csv(out, index=False)
    clear = both[(both["p city"] < claims.ALPHA) & both["verdict city"].isin(claims.VERDICTS[:2])]
    print(f"{clear['same sign'].sum()} of {len(clear)} verdicts with p < {claims.ALPHA}: same sign")


if __name__ == "__main__":
    main(*sys.argv[1:])
