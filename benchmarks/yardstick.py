"""What this machine does: bare forward passes, and photos that `vgeo locate` describes and places.

    python benchmarks/yardstick.py REAL

REAL holds sf-xs/test, photographs. The passes are of ResNet18 on tensors of 96 pixels, 32 at a
time, with gradients off. They say how fast another machine is beside this one. The row of this
kind of machine in benchmarks/results/yardstick.csv is written anew, the others stay.
"""

import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
from torchvision.models import resnet18

from vgeo.locate.exported import export
from vgeo.locate.index import Index, open_describer
from vgeo.photos.layout import find
from vgeo.photos.tables import read_photos
from vgeo.report.documents import PASSES
from vgeo.study.costs import machine

RESULTS = Path(__file__).parent / "results" / "yardstick.csv"
KIND = ["processor", "cores", "precision"]  # what tells kinds of machine apart


@torch.inference_mode()
def bare(seconds=10):
    """Images that ResNet18 takes in a second, the most of several tries."""
    model = resnet18().eval().to(memory_format=torch.channels_last)
    images = torch.randn(32, 3, 96, 96).contiguous(memory_format=torch.channels_last)
    end, best = time.perf_counter() + seconds, 0.0
    while (start := time.perf_counter()) < end:
        model(images)
        best = max(best, len(images) / (time.perf_counter() - start))
    return best


def locate(real):
    """Seconds a photo indexed, seconds a query, and kB a photo in a file of `--index`."""
    database, queries = (
        read_photos(find(real, "sf-xs", "test", kind)) for kind in ("database", "queries")
    )
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        index = Index(database, *open_describer(), folder)
        indexed = time.perf_counter()
        index.calibrate()
        calibrated = time.perf_counter()
        index.locate(queries.paths)
        located = time.perf_counter()
        export(index, Path(folder) / "index.vgeo", "the default model")
        size = (Path(folder) / "index.vgeo").stat().st_size
    return {
        "s a photo indexed": (indexed - start) / len(database),
        "s a query": (located - calibrated) / len(queries),
        "kB a photo": size / 1000 / len(database),
    }


def main(real):
    here = {name: machine()[name] for name in KIND}
    row = here | {PASSES: bare()} | locate(real)
    table = pd.DataFrame([row])
    if RESULTS.exists():
        table = pd.concat([pd.read_csv(RESULTS), table]).drop_duplicates(KIND, keep="last")
    table.round(3).to_csv(RESULTS, index=False)
    print(table.round(3).to_string(index=False))


if __name__ == "__main__":
    main(*sys.argv[1:])
