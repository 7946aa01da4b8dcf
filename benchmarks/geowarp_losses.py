"""What each of GeoWarp's losses adds: regressions with fewer of them beside the whole one.

    python benchmarks/geowarp_losses.py [PROFILE, default city]

The regressions of `rows.ABLATIONS` are trained as the study trains the one of its tables, which is
found in the cache of ./run_all.sh where that has run. Corner errors are measured on self-supervised
pairs of validation photos, R@1 after re-ranking on the test sets. Both are written to
benchmarks/results/geowarp_losses.csv, with 95 % intervals.
"""

import sys
from pathlib import Path

import pandas as pd
from scipy.stats import norm

from vgeo.report import measures
from vgeo.study.rows import Evaluation
from vgeo.study.study import Study

OUT = Path(__file__).parent / "results" / "geowarp_losses.csv"
LOSSES = {
    "GeoWarp, self-supervised": "self-supervised loss",
    "GeoWarp, no consistency": "self-supervised and feature-wise losses",
    "GeoWarp": "self-supervised, feature-wise and consistency losses",
}


def main(profile="city"):
    study = Study(profile)
    errors = measures.corner_errors(study, list(LOSSES))
    mean = errors["mean corner error"]
    low, high = norm.interval(0.95, mean, errors["standard error"])
    errors = pd.DataFrame(
        {
            "condition": errors["quadrilaterals"].replace(LOSSES),
            "dataset": "sf-xs val, colours " + errors["colours"],
            "metric": "corner error, half image sides",
            "value": mean,
            "ci_low": low,
            "ci_high": high,
            "number": errors["pairs"],
        }
    )
    rows = {words: Evaluation(name, rerank=True) for name, words in LOSSES.items()}
    recalls = measures.recalls(study.evaluate(rows)).rename(columns={"queries": "number"})
    table = pd.concat([errors, recalls]).round(4)
    table.insert(0, "profile", study.profile.name)
    table.to_csv(OUT, index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main(*sys.argv[1:])
