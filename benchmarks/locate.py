"""How often `vgeo locate` is right, and how well its confidence holds.

    python benchmarks/locate.py REAL CITY TRAINED

REAL and CITY are folders that hold sf-xs/val and sf-xs/test. REAL's are photographs, and it holds
sf-xs/train too; CITY is what `vgeo data` renders. The default model's weights were trained on
neither. TRAINED is the model.safetensors of a training of EfficientNet-Lite0 on rendered streets,
such as of `vgeo train city`: it is compared with the default model.

The choices in vgeo/locate/index.py and vgeo/models/xfeat.py were made by hand from
benchmarks/results/locate_choices.csv, on REAL's val and on every second query of its test; so the
other queries of REAL's test are the test. What the confidence is fitted to was chosen on the same
photos, on small albums drawn from them, and on CITY's val. Results are written to
benchmarks/results/locate.csv, locate_choices.csv and locate_albums.csv.
"""

import itertools
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from kornia.feature import match_mnn
from PIL import Image
from torch import nn

from vgeo.locate import confidence, copies
from vgeo.locate.index import DIM, POOLED, RADIUS, SHORTLIST, SHRINKAGE, SIZE, Index, open_describer
from vgeo.models import xfeat
from vgeo.models.geowarp import GRID, local_features
from vgeo.models.network import build
from vgeo.models.whitening import whitening
from vgeo.photos.images import load_batches, load_image
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
TOLERANCE = 4.0  # pixels by which a shared point may miss where a homography puts it
# Networks whose feature maps are compared, as vgeo locate did before XFeat: backbone, weights,
# stages, pixels. Their strides are 8 and 16.
MAPS = (("resnet18", "city", 6, 192), ("efficientnet_lite0", "imagenet", 6, SIZE))
REACHES = (1, 3, 14)  # cells of the grid by which a detail may lie elsewhere in the other photo

ALBUMS = (6, 12, 25, 50, 100)  # photos of a small album
DRAWS = 3  # albums of each size and kind
BEYOND = 40.0  # metres that a query of an album of neighbours may lie outside it


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
        known = {"ordered by": "descriptors", "size": size, "dim": dim, "shrinkage": shrinkage}
        yield known | {
            "right": round(100 * right[:, 0].mean(), 1),
            "in the shortlist": round(100 * right[:, :SHORTLIST].any(1).mean(), 1),
        }


def point_rows(database, queries, side, nearest, points, counts=COUNTS):
    """Rows of locate_choices.csv: the candidates `nearest`, ordered by points in each way."""
    cosines, rows = nearest
    right = hits(database, queries, rows)
    for count in counts:
        known, asked = (torch.from_numpy(x[:, :count]) for x in points)
        shared = {}
        for alike in ALIKE:
            each = [xfeat.shared_points(asked[i], known[k], alike) for i, k in enumerate(rows)]
            shared[alike] = torch.stack(each).numpy()
        for alike, k, weight in itertools.product(ALIKE, SHORTLISTS, WEIGHTS):
            score = np.log1p(shared[alike][:, :k]) + weight * cosines[:, :k]
            yield ordered(right, score, "shared points", weight) | {
                "side": side,
                "points": count,
                "alike": alike,
            }


def ordered(right, score, by, weight):
    """A row of locate_choices.csv: the candidates ordered by a score (Q, K)."""
    share = right[np.arange(len(right)), score.argmax(1)].mean()
    return {"ordered by": by, "size": SIZE, "dim": DIM, "shrinkage": SHRINKAGE} | {
        "shortlist": score.shape[1],
        "weight": weight,
        "right": round(100 * share, 1),
    }


def homography_rows(database, queries, nearest):
    """Rows of locate_choices.csv: the candidates ordered by the shared points that move alike."""
    cosines, rows = (x[:, :SHORTLIST] for x in nearest)
    right = hits(database, queries, rows)
    known, asked = map(points_and_places, (database, queries))
    inliers = np.array([[moved_alike(asked[i], known[k]) for k in of] for i, of in enumerate(rows)])
    for weight in WEIGHTS:
        score = np.log1p(inliers) + weight * cosines
        yield ordered(right, score, "shared points of one homography", weight) | {
            "side": xfeat.SIDE,
            "points": xfeat.POINTS,
            "alike": xfeat.ALIKE,
        }


def points_and_places(photos):
    """XFeat's descriptors, float32 (P, 64), and places, pixels (P, 2), of each photo's points."""
    network, found = xfeat.open_xfeat(), []
    with torch.inference_mode():
        for _, images in load_batches(photos.paths, 32, xfeat.SIDE):
            found += network.detectAndCompute(images.float() / 255, top_k=xfeat.POINTS)
    return [(each["descriptors"], each["keypoints"].numpy()) for each in found]


def moved_alike(one, other):
    """How many of the points that two photos share one homography moves to where they are."""
    distances, pairs = match_mnn(one[0], other[0])
    pairs = pairs[distances[:, 0] ** 2 < 2 - 2 * xfeat.ALIKE].numpy()
    if len(pairs) < 4:  # which any homography fits
        return 0
    places = one[1][pairs[:, 0]], other[1][pairs[:, 1]]
    _, moved = cv2.findHomography(*places, cv2.USAC_MAGSAC, TOLERANCE)
    return 0 if moved is None else int(moved.sum())


class LocalFeatures(nn.Module):
    """Images -> the local features of a network's first stages, flat."""

    def __init__(self, backbone, weights, stages):
        super().__init__()
        self.stages = build(backbone, weights).stages[:stages]

    def forward(self, images):
        return local_features(self.stages(images)).flatten(1)


def map_rows(database, queries, nearest):
    """Rows of locate_choices.csv: the candidates ordered by feature maps, see MAPS.

    Each local feature of the query is compared with those of the other photo that lie at most
    `reach` cells away. The score is the mean of the largest inner products.
    """
    rows = nearest[1][:, :SHORTLIST]
    right = hits(database, queries, rows)
    cells = torch.cartesian_prod(torch.arange(GRID), torch.arange(GRID))
    apart = (cells[:, None] - cells).abs().amax(-1)
    for backbone, weights, stages, side in MAPS:
        model = LocalFeatures(backbone, weights, stages).eval()
        known, asked = (
            torch.from_numpy(describe(model, each.paths, side)).unflatten(1, (-1, GRID**2))
            for each in (database, queries)
        )
        scores = {reach: [] for reach in REACHES}
        for query, of in zip(asked, rows):
            products = torch.einsum("cn,kcm->knm", query, known[of])
            for reach, kept in scores.items():
                kept.append(products.masked_fill(apart > reach, -1).amax(2).mean(1))
        for reach, kept in scores.items():
            by = f"maps of {backbone}, {weights}, {reach} cells apart"
            yield ordered(right, torch.stack(kept).numpy(), by, 0.0) | {"side": side}


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
        found = [*homography_rows(*photos, nearest), *map_rows(*photos, nearest)]
        for side in SIDES:
            points = [describe_points(each.paths, side) for each in photos]
            found += point_rows(*photos, side, nearest, points)
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


def of_other_photos(describer, sets):
    """A Calibration fitted to the queries of other sets, and to changed copies of them."""
    known = []
    for database, queries in sets:
        index = Index(database, *describer)
        with tempfile.TemporaryDirectory() as folder:
            known += [ask(index, queries), ask(index, queries, changed(queries, folder))]
    right = np.concatenate([right for _, right in known])
    return confidence.fit(np.concatenate([a.features for a, _ in known]), right)


def ways(index, other):
    """{what the confidence is fitted to: Calibration}."""
    apart = index.held_out.apart.features
    farther = confidence.fit(apart, index.held_out.right[: len(apart)])
    own, _ = index.calibrate()
    return {
        "own photos": own,
        "own photos, without near copies": farther,
        "photos of San Francisco": other,
    }


def test(name, describer, database, queries, other):
    """The rows of locate.csv of a test set: ways to say how confident an answer is, and copies."""
    index = Index(database, *describer)
    calibrations = ways(index, other)
    (answers, right), known = ask(index, queries), index.held_out.right
    constant = {
        "constant, the share of the known answers": known,
        "constant, the queries' own share": right,
    }
    found = {way: calibration(answers.features) for way, calibration in calibrations.items()}
    found |= {way: np.full(len(right), of.mean()) for way, of in constant.items()}
    rows = [
        {"set": name, "queries": "as they are", "confidence": way} | confidence.scores(p, right)
        for way, p in found.items()
    ]
    for kind in dict.fromkeys(copies.KINDS):
        with tempfile.TemporaryDirectory() as folder:
            answers, right = ask(index, queries, changed(queries, folder, kind))
        for way, calibration in calibrations.items():
            scores = confidence.scores(calibration(answers.features), right)
            rows.append({"set": name, "queries": kind.__name__, "confidence": way} | scores)
    return pd.DataFrame(rows)


def drawn(photos, queries, rng):
    """(kind, album, its queries): random photos, and neighbours with the queries among them."""
    for count in ALBUMS:
        for _ in range(DRAWS):
            yield "random", photos.take(np.sort(rng.permutation(len(photos))[:count])), queries
            away = np.linalg.norm(photos.xy - photos.xy[rng.integers(len(photos))], axis=1)
            nearest = np.argsort(away, kind="stable")[:count]
            centre, reach = photos.xy[nearest[0]], away[nearest[-1]] + BEYOND
            inside = np.linalg.norm(queries.xy - centre, axis=1) <= reach
            if inside.any():
                yield "neighbours", photos.take(np.sort(nearest)), queries.take(inside)


def albums(describer, sets, other):
    """locate_albums.csv: what the confidence is fitted to, for the answers of few photos."""
    rows = []
    for name, photos in sets.items():
        for kind, album, queries in drawn(*photos, np.random.default_rng(7)):
            index = Index(album, *describer)
            if index.calibrate()[0] is None:  # a handful of neighbours, all answered right
                continue
            answers, right = ask(index, queries)
            for way, calibration in ways(index, other).items():
                found = confidence.scores(calibration(answers.features), right)
                about = {"set": name, "album": kind, "photos": len(album), "confidence": way}
                rows.append(about | {"queries": found.pop("count")} | found)
    table = pd.DataFrame(rows).drop(columns=["Brier of the constant share", "calibration error"])
    groups = ["set", "album", "photos", "confidence"]
    table = table.groupby(groups, sort=False, as_index=False).mean()
    digits = {"queries": 0, "within 25 m, %": 1, "mean confidence, %": 1, "Brier": 4}
    table.round(digits).to_csv(OUT / "locate_albums.csv", index=False)
    print(table.groupby(["set", "confidence"], sort=False)["Brier"].mean().round(4), flush=True)


def main(real, city, trained):
    describer = open_describer()
    database, queries = folders(real, "test")
    chosen, tested = halves(queries)
    known = {"real val": folders(real, "val"), "real test, chosen": (database, chosen)}
    choices(known, trained)
    train = read_photos(find(real, "sf-xs", "train"))
    other = of_other_photos(describer, [known["real val"], by_year(train)])
    albums(describer, known | {"real test": (database, tested)}, other)
    tests = {"city val": folders(city, "val"), "real test": (database, tested)}
    tests["city test"] = folders(city, "test")
    rows = [test(name, describer, *photos, other) for name, photos in tests.items()]
    table = pd.concat(rows, ignore_index=True)
    digits = {"within 25 m, %": 1, "mean confidence, %": 1}
    table.round(digits | {"calibration error": 4}).round(4).to_csv(OUT / "locate.csv", index=False)
    print(table.round(4).to_string(index=False), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
