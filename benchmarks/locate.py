"""How often `vgeo locate` is right, and how well its confidence holds.

    python benchmarks/locate.py REAL CITY TRAINED

REAL and CITY are folders that hold sf-xs/val and sf-xs/test. REAL's are photographs, and it holds
sf-xs/train too; CITY is what `vgeo data` renders. The default model's weights were trained on
neither. TRAINED is the model.safetensors of a training of EfficientNet-Lite0 on rendered streets,
such as of `vgeo train city`: it is compared with the default model.

The choices in vgeo/locate/index.py and vgeo/models/xfeat.py were made by hand from
benchmarks/results/locate_choices.csv, on REAL's val and on every second query of its test; so the
other queries of REAL's test are the test. The calibration in vgeo/locate/calibration.json is fitted
to REAL's val, to the photographs of its train from 2017 on, located among the earlier ones, and to
changed copies of these queries. Results are written to benchmarks/results/locate.csv and
locate_choices.csv.
"""

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image

from vgeo.locate import confidence, copies
from vgeo.locate.index import (
    DIM,
    POOLED,
    RADIUS,
    SHIPPED,
    SHORTLIST,
    SHRINKAGE,
    SIZE,
    Index,
    open_describer,
)
from vgeo.models import xfeat
from vgeo.models.network import build
from vgeo.models.weights import weights_hash
from vgeo.models.whitening import whitening
from vgeo.photos.images import load_image
from vgeo.photos.layout import find
from vgeo.photos.tables import read_photos
from vgeo.retrieval.describe import describe
from vgeo.retrieval.rerank import describe_points

OUT = Path(__file__).parent / "results"
SIZES = (128, 192, 224, 256)  # pixels, of the descriptor's images
WHITENINGS = ((None, None), (128, 0.1), (256, 0.1), (256, 1.0), (512, 0.1), (512, 1.0))
SIDES = (256, 384, 512)  # pixels, of the images in which points are looked for
COUNTS = (256, 512, 768)  # points of a photo
ALIKE = (0.75, 0.82, 0.86, 0.9)
SHORTLISTS = (10, 20, 40)
WEIGHTS = (0.0, 1.0, 2.0, 5.0)


def folders(top, split):
    """The database and the queries of a split of sf-xs."""
    return [read_photos(find(top, "sf-xs", split, kind)) for kind in ("database", "queries")]


def halves(queries):
    """Every second query, for choices, and the others, for the test."""
    odd = np.arange(len(queries)) % 2 == 1
    return queries.take(~odd), queries.take(odd)


def by_year(photos, year=2017):
    """The photos taken before a year as the database, those from that year on as queries."""
    later = photos.table["month"].to_numpy() >= 100 * year
    return [photos.take(~later), photos.take(later)]


def features(photos, size, weights="imagenet"):
    """Pooled features of EfficientNet-Lite0, float32 (N, C)."""
    model = build("efficientnet_lite0", weights).eval()
    model.aggregation = model.aggregation[:POOLED]
    return torch.from_numpy(describe(model, photos.paths, size))


def candidates(database, queries, dim=DIM, shrinkage=SHRINKAGE):
    """The nearest by whitened features: cosines and rows, (Q, K); `dim` None: not whitened."""
    if dim is not None:
        weight, bias = whitening(database, min(dim, len(database) - 1), shrinkage)
        database, queries = (x @ weight.T + bias for x in (database, queries))
    cosines = F.normalize(queries, dim=1) @ F.normalize(database, dim=1).T
    return tuple(x.numpy() for x in cosines.topk(max(SHORTLISTS), 1))


def hits(database, queries, rows):
    """Whether each candidate is within RADIUS of the query, bool (Q, K)."""
    return np.linalg.norm(database.xy[rows] - queries.xy[:, None], axis=2) <= RADIUS


def descriptor_rows(database, queries, size, described):
    """Rows of locate_choices.csv: the nearest descriptor alone, with each whitening."""
    for dim, shrinkage in WHITENINGS:
        right = hits(database, queries, candidates(*described, dim, shrinkage)[1])
        yield {"size": size, "dim": dim, "shrinkage": shrinkage} | {
            "right": round(100 * right[:, 0].mean(), 1),
            "in the shortlist": round(100 * right[:, :SHORTLIST].any(1).mean(), 1),
        }


def point_rows(database, queries, side, nearest, points, counts=COUNTS):
    """Rows of locate_choices.csv: the candidates `nearest`, ordered by points in each way."""
    cosines, rows = nearest
    right, first = hits(database, queries, rows), np.arange(len(rows))
    for count in counts:
        known, asked = (torch.from_numpy(x[:, :count]) for x in points)
        shared = {}
        for alike in ALIKE:
            each = [xfeat.shared_points(asked[i], known[k], alike) for i, k in enumerate(rows)]
            shared[alike] = torch.stack(each).numpy()
        for alike, shortlist, weight in np.stack(
            [x.ravel() for x in np.meshgrid(ALIKE, SHORTLISTS, WEIGHTS, indexing="ij")], 1
        ):
            k = int(shortlist)
            score = np.log1p(shared[alike][:, :k]) + weight * cosines[:, :k]
            share = right[first, score.argmax(1)].mean()
            yield {"size": SIZE, "dim": DIM, "shrinkage": SHRINKAGE, "side": side} | {
                "points": count,
                "alike": alike,
                "shortlist": k,
                "weight": weight,
                "right": round(100 * share, 1),
            }


def choices(sets, trained):
    """locate_choices.csv: what each choice gives on the validation sets."""
    rows = []
    for name, photos in sets.items():
        described = {size: [features(each, size) for each in photos] for size in SIZES}
        for size in SIZES:
            networks = {"ImageNet": described[size]}
            networks["rendered streets"] = [features(each, size, trained) for each in photos]
            for training, known in networks.items():
                found = descriptor_rows(*photos, size, known)
                rows += [{"set": name, "trained on": training} | row for row in found]
        nearest = candidates(*described[SIZE])
        for side in SIDES:
            points = [describe_points(each.paths, side) for each in photos]
            found = point_rows(*photos, side, nearest, points)
            rows += [{"set": name, "trained on": "ImageNet"} | row for row in found]
    pd.DataFrame(rows).to_csv(OUT / "locate_choices.csv", index=False)


def ask(index, queries, paths=None):
    """The answers for the queries, or for copies of them, and which are right."""
    answers = index.locate(paths or queries.paths)
    return answers, np.linalg.norm(answers.xy - queries.xy, axis=1) <= RADIUS


def changed(queries, folder, kind=None):
    """Paths of copies of queries, changed by a function of vgeo.locate.copies, by default any."""
    paths = []
    for number, path in enumerate(queries.paths):
        image, random = load_image(path, xfeat.SIDE), np.random.default_rng([1, number])
        if kind is None:
            image = copies.changed(image, random)
        else:
            pixels = 255 * kind(image.float() / 255, random)
            image = pixels.round().clamp(0, 255).to(torch.uint8)
        paths.append(str(Path(folder, f"{kind and kind.__name__}{number}.png")))
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(paths[-1], compress_level=1)
    return paths


def calibrate(describer, sets):
    """Fits the calibration to the real validation sets and copies; writes it into the package."""
    known = []
    for database, queries in sets:
        index = Index(database, *describer)
        with tempfile.TemporaryDirectory() as folder:
            known += [ask(index, queries), ask(index, queries, changed(queries, folder))]
    right = np.concatenate([right for _, right in known])
    calibration = confidence.fit(np.concatenate([a.features for a, _ in known]), right)
    model, size = describer
    content = {
        "weights_hash": weights_hash(model),
        "size": size,
        "fitted_to": f"{len(right) // 2} photos of San Francisco (2017 to 2021) and a changed copy "
        "of each, located among earlier ones,",
        "made_by": "benchmarks/locate.py",
        "right": int(right.sum()),
        "calibration": asdict(calibration),
    }
    SHIPPED.write_text(json.dumps(content, indent=2) + "\n")
    return calibration


def test(name, describer, database, queries, shipped):
    """The rows of locate.csv of a test set: ways to say how confident an answer is, and copies."""
    index = Index(database, *describer)
    own, _ = index.calibrate()
    answers, right = ask(index, queries)
    held = index.held_out
    ways = {
        "held-out photos and copies": own(answers.features),
        "shipped": shipped(answers.features),
        "constant, the held-out share": np.full(len(right), held.right.mean()),
        "constant, the queries' own share": np.full(len(right), right.mean()),
    }
    rows = [
        {"set": name, "queries": "as they are", "confidence": way} | confidence.scores(p, right)
        for way, p in ways.items()
    ]
    for kind in dict.fromkeys(copies.KINDS):
        with tempfile.TemporaryDirectory() as folder:
            answers, right = ask(index, queries, changed(queries, folder, kind))
        for way, calibration in (("held-out photos and copies", own), ("shipped", shipped)):
            found = confidence.scores(calibration(answers.features), right)
            rows.append({"set": name, "queries": kind.__name__, "confidence": way} | found)
    return pd.DataFrame(rows)


def main(real, city, trained):
    describer = open_describer()
    database, queries = folders(real, "test")
    chosen, tested = halves(queries)
    choices({"real val": folders(real, "val"), "real test, chosen": (database, chosen)}, trained)
    train = read_photos(find(real, "sf-xs", "train"))
    shipped = calibrate(describer, [folders(real, "val"), by_year(train)])
    tests = {"real test": (database, tested), "city test": folders(city, "test")}
    rows = [test(name, describer, *photos, shipped) for name, photos in tests.items()]
    table = pd.concat(rows, ignore_index=True)
    digits = {"within 25 m, %": 1, "mean confidence, %": 1}
    table.round(digits | {"calibration error": 4}).round(4).to_csv(OUT / "locate.csv", index=False)
    print(table.round(4).to_string(index=False), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
