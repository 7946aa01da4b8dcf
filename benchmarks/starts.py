"""R@1 of starting weights and of the city's trained models on photographs.

    python benchmarks/starts.py REAL

REAL is a folder that holds sf-xs/test: photographs, which nothing was trained on. Trainings are
those of ./run_all.sh, found in its cache. Results are written to
benchmarks/results/starts_real.csv. The same models on rendered streets are in starts.csv of a run.
"""

import sys
from pathlib import Path

import pandas as pd

from vgeo.photos.layout import find
from vgeo.photos.places import open_dataset
from vgeo.report.measures import PLAIN
from vgeo.retrieval.describe import describe
from vgeo.retrieval.metrics import first_hit, interval, recall
from vgeo.retrieval.search import search
from vgeo.study.study import Study

OUT = Path(__file__).parent / "results" / "starts_real.csv"
REAL_SIZE = 128  # pixels of the photographs, both sides


def main(real):
    study = Study("city")
    folders = (find(real, "sf-xs", "test", kind) for kind in ("queries", "database"))
    dataset = open_dataset("real", *folders)
    rows = []
    for backbone, name in PLAIN.items():
        for stage, trained in (("start", study.start(backbone)), ("trained", study.train(name))):
            model = study.load(trained)
            database, queries = (
                describe(model, photos.paths, REAL_SIZE)
                for photos in (dataset.database, dataset.queries)
            )
            hits = first_hit(search(database, queries, 1)[0], dataset.positives)
            low, high = interval(hits < 1)
            row = {"backbone": backbone, "model": stage, "pixels": REAL_SIZE}
            row |= {"queries": len(hits), "R@1": recall(hits, 1), "low": low, "high": high}
            rows.append(row)
            print(rows[-1], flush=True)
    pd.DataFrame(rows).round(1).to_csv(OUT, index=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
