"""R@1 of starting weights and of the city's trained models on photographs.

    python benchmarks/starts.py REAL

REAL is a folder that holds sf-xs/test: photographs, which nothing was trained on. Trainings are
those of ./run_all.sh, found in its cache. Results are written to
benchmarks/results/starts_real.csv. The same models on rendered streets are in starts.csv of a run.
"""

import sys
from pathlib import Path

import pandas as pd
from real import REAL_SIZE, at_size, photographs

from vgeo.report.measures import PLAIN
from vgeo.retrieval.metrics import interval, recall
from vgeo.study.study import Study

OUT = Path(__file__).parent / "results" / "starts_real.csv"


def main(real):
    study, dataset, rows = Study("city"), photographs(real), []
    search = at_size(study).search
    for backbone, name in PLAIN.items():
        for stage, trained in (("start", study.start(backbone)), ("trained", study.train(name))):
            result = search(trained, dataset)
            low, high = interval(result.right(1))
            row = {"backbone": backbone, "model": stage, "pixels": REAL_SIZE}
            row |= {"queries": len(dataset.queries), "R@1": recall(result.first_hit, 1)}
            rows.append(row | {"low": low, "high": high})
            print(rows[-1], flush=True)
    pd.DataFrame(rows).round(1).to_csv(OUT, index=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
