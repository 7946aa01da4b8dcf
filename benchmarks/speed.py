"""Speed: the study against bare PyTorch and against the plain protocol of the field's scripts.

    .venv/bin/python benchmarks/speed.py [NAMES, default all]

Writes speed.csv, growth.csv, gains.csv and figures/speed.png in benchmarks/results. NAMES are those
of BENCHMARKS below. A ratio is measured in one process on one machine: ours and what it is compared
with take turns, and the median over the rounds of their ratios counts. What is measured is merged
into the files by its name, so that a stopped run has left what it finished. The photos and models
are the city's: where runs/cache does not hold them they are made first, which takes ten minutes
more.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import faiss
import numpy as np
import pandas as pd
import torch
from bare import RESULTS, city_model, recipe_of, seconds, training_step
from PIL import Image
from render import timed
from torch.utils.flop_counter import FlopCounterMode

from vgeo.city import district
from vgeo.city import write as rendered
from vgeo.city.plan import Plan
from vgeo.device import autocast, device, precision
from vgeo.models.geowarp import local_features, symmetric, warp
from vgeo.models.network import IMAGENET_MEAN, IMAGENET_STD, folded, normalise
from vgeo.models.weights import CITY_WEIGHTS
from vgeo.photos.images import load_batches
from vgeo.report.figures import RIGHT, WRONG, style
from vgeo.retrieval.describe import describe, stored_batch
from vgeo.retrieval.metrics import first_hit, paired_test
from vgeo.retrieval.multiscale import METHODS, SCALES, aggregate
from vgeo.retrieval.rerank import pair_scores, rerank
from vgeo.retrieval.search import search
from vgeo.runner.record import read
from vgeo.runner.unchanged import PAGE, Unchanged, notebooks_of, parameters_of
from vgeo.study.descriptions import load
from vgeo.study.folders import results_of
from vgeo.study.study import Study
from vgeo.training.batches import batches, live_views
from vgeo.training.loop import train_extractor

BATCH, SIZE, K = 32, 96, 20


# ---- measuring ----


def turns(ours, other, rounds=5):
    """Seconds of both, in turns: their medians, and the median of the rounds' other / ours."""
    pairs = np.array([(seconds(ours), seconds(other)) for _ in range(rounds)])
    return (*np.median(pairs, axis=0), float(np.median(pairs[:, 1] / pairs[:, 0])))


def row(what, ours, against, unit, ratio, goal, at_most=False, note=""):
    """A row of speed.csv; the ratio has to be at least the goal, or at most."""
    met = ""
    if ratio is not None and goal is not None:
        met = "yes" if (ratio <= goal if at_most else ratio >= goal) else "no"
    return {
        "what": what,
        "ours": _digits(ours),
        "against": _digits(against),
        "unit": unit,
        "ratio": _digits(ratio),
        "goal": goal,
        "goal is": "at most" if at_most else "at least",
        "met": met,
        "note": note,
    }


def gain(what, predicted, measured, why):
    """Puts a row into gains.csv: how many times faster an idea was predicted to be, from counts
    alone where they say it, and is.
    """
    line = {
        "what": what,
        "predicted": _digits(predicted),
        "measured": _digits(measured),
        "prediction": why,
    }
    print("gain:", "; ".join(map(str, line.values())), flush=True)
    merge("gains", pd.DataFrame([line]), [])


def flops(work):
    """Floating-point operations of work()."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def _digits(value):
    return value if value is None or isinstance(value, str) else float(f"{value:.4g}")


@contextmanager
def quiet():
    """Without progress bars."""
    with open(os.devnull, "w") as nowhere:
        before, sys.stderr = sys.stderr, nowhere
        try:
            yield
        finally:
            sys.stderr = before


@cache
def study():
    return Study("city")


def training_paths():
    return study().data.classes.photos.paths


@cache
def warping():
    """The GeoWarp model of seed 0, its predictions for sf-xs, and what re-ranks them."""
    one, model = study(), study().train("GeoWarp")
    return model, one.search(model, one.data.test_sets["sf-xs"]), one.load_warp(model)


def first_pairs(predictions, k):
    """int (P, 2): each query with its first k predictions."""
    rows = enumerate(predictions[:, :k].tolist())
    return np.array([(query, image) for query, images in rows for image in images])


def some(items, n):
    """n of the items, evenly spaced."""
    return [items[i] for i in np.linspace(0, len(items) - 1, min(n, len(items))).astype(int)]


# ---- the plain protocol's parts: Pillow and torch, an image at a time ----


def plain_image(path, size):
    """A normalised float tensor (3, size, size), as torchvision's Resize, ToTensor and Normalize
    make it.
    """
    with Image.open(path) as image:
        small = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(small))
    mean, std = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
    return (pixels.permute(2, 0, 1).float() / 255 - mean) / std


class Plain(torch.utils.data.Dataset):
    """Image files at several sizes."""

    def __init__(self, paths, sizes):
        self.paths, self.sizes = paths, sizes

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return [plain_image(self.paths[index], size) for size in self.sizes]


def plain_descriptors(model, paths, sizes, method, batch_size):
    """Descriptors (N, D) of images, those of all sizes aggregated."""
    loader = torch.utils.data.DataLoader(Plain(paths, sizes), batch_size, num_workers=2)
    with torch.inference_mode():
        found = [
            torch.stack([model(images.to(device())) for images in batch]).cpu().numpy()
            for batch in loader
        ]
    return np.concatenate([aggregate(scales, method) for scales in found]).astype(np.float32)


def plain_search(database, queries):
    index = faiss.IndexFlatL2(database.shape[1])
    index.add(database)
    return index.search(queries, K)[1]


# ---- the benchmarks: each yields rows ----


def extraction():
    """`describe` from files against forward passes of the same model on tensors in memory, same
    batches, same dtype.
    """
    for backbone, count in (("resnet18", 20 * BATCH), ("efficientnet_v2_s", 8 * BATCH)):
        model, paths = city_model(backbone), some(training_paths(), count)
        tensors = [
            normalise(images.to(device())).contiguous(memory_format=torch.channels_last)
            for _, images in load_batches(paths, BATCH, SIZE)
        ]

        @torch.inference_mode()
        def bare():
            for images in tensors:
                model(images).cpu()

        describe(model, paths[: 2 * BATCH], SIZE), bare()  # warms up
        ours, other, ratio = turns(lambda: describe(model, paths, SIZE), bare, 7)
        yield row(
            f"extraction from files, {backbone}",
            count / ours,
            count / other,
            "images/s",
            ratio,
            0.9,
            note="against bare forward passes",
        )


def training():
    """The loop of training against bare steps on tensors in memory: of the trained stages on the
    trunk's stored output, and from files.
    """
    classes, count, skip = study().data.classes, 20, 4
    recipe = recipe_of(study().profile, "CosFace", precision(), epochs=1, iterations=count)
    labels, paths = classes.labels, np.array(classes.photos.paths)
    weights = CITY_WEIGHTS / f"{recipe.backbone}.safetensors"
    rows = batches(labels, recipe.batch_size, 0, count, recipe.seed)
    start = city_model(recipe.backbone)
    trunks = [
        trunk.half()
        for trunk in live_views(start, paths, rows, SIZE, recipe.seed, 0, recipe.precision)
    ]
    images = [
        normalise(batch.to(device())).contiguous(memory_format=torch.channels_last)
        for _, batch in load_batches(paths[np.concatenate(rows)], BATCH, SIZE)
    ]
    places = [torch.from_numpy(labels[part]).to(device()) for part in rows]

    def ours(views):
        times = []

        def timed(model, first):
            for batch in views(model, first):
                times.append(time.perf_counter())
                yield batch

        with tempfile.TemporaryDirectory() as folder, quiet():
            train_extractor(recipe, weights, classes, lambda _: 0.0, Path(folder), timed)
        return (times[-1] - times[skip]) / (count - 1 - skip)

    def bare(batches, whole):
        step, times = training_step(recipe, classes.count), []
        for batch, place in zip(batches, places):
            times.append(time.perf_counter())
            step(batch, place, whole)
        return (times[-1] - times[skip]) / (count - 1 - skip)

    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder, "trunk.npy"), np.stack([trunk.cpu().numpy() for trunk in trunks]))
        maps = np.load(Path(folder, "trunk.npy"), mmap_mode="r")
        ready = [stored_batch(batch, device()) for batch in maps]
        ways = {
            "the frozen stages' output stored": (
                lambda model, first: (stored_batch(batch, device()) for batch in maps[first:]),
                ready,
                False,
            ),
            "from files": (
                lambda model, first: live_views(
                    model, paths, rows, SIZE, recipe.seed, first, recipe.precision
                ),
                images,
                True,
            ),
        }
        rates = []
        for what, (views, tensors, whole) in ways.items():
            pairs = np.array([(ours(views), bare(tensors, whole)) for _ in range(3)])
            rates.append(BATCH / np.median(pairs[:, 0]))
            ratio = float(np.median(pairs[:, 1] / pairs[:, 0]))
            yield row(
                f"training step, {what}",
                BATCH / np.median(pairs[:, 0]),
                BATCH / np.median(pairs[:, 1]),
                "images/s",
                ratio,
                0.9,
                note=f"against bare steps, {recipe.precision}",
            )
    trunk, upper = flops(lambda: start.trunk(images[0])), flops(lambda: start.upper(ready[0]))
    gain(
        "the trunk's output of augmented views stored for all trainings, an iteration of one",
        1 + trunk / (3 * upper),
        rates[0] / rates[1],
        "operations: the trunk forward, the rest forward and backward, as three passes",
    )


def table():
    """A multi-scale table, from nothing: 4 methods, 3 data sets, a quarter of the city's test
    photos.

    Ours is `Study.search`, all that is stored included. The plain protocol describes the database
    anew for every method and data set, and the queries one by one.
    """
    with tempfile.TemporaryDirectory() as folder:
        photos, cache_folder = Path(folder, "data"), Path(folder, "cache")
        copy_part(study().data.root, photos, 4)

        def new_study():
            return Study("city", photos, results=Path(folder, "run"), cache=cache_folder)

        sets, sizes = new_study().data.test_sets, [round(SIZE * scale) for scale in SCALES]
        model = city_model("resnet18")

        def ours():
            shutil.rmtree(cache_folder, ignore_errors=True)
            new = new_study()
            start, datasets = new.start("resnet18"), new.data.test_sets
            with quiet():
                return {
                    (method, name): new.search(start, data, multiscale=method).predictions
                    for method in METHODS
                    for name, data in datasets.items()
                }

        def plain():
            found = {}
            for method in METHODS:
                for name, data in sets.items():
                    database = plain_descriptors(model, data.database.paths, sizes, method, BATCH)
                    queries = plain_descriptors(model, data.queries.paths, [SIZE], method, 1)
                    found[method, name] = plain_search(database, queries)
            return found

        last = {}
        a, b, ratio = turns(lambda: last.update(ours=ours()), lambda: last.update(plain=plain()), 3)
        one, two = last["ours"], last["plain"]
        same = np.mean([np.mean((one[key] == two[key])[:, 0]) for key in one])
        same_20 = np.mean([np.mean(one[key] == two[key]) for key in one])
    yield row(
        "one multi-scale table",
        a,
        b,
        "s",
        ratio,
        8.0,
        note=f"first predictions the same: {100 * same:.2f} %, of all 20: {100 * same_20:.2f} %",
    )


def copy_part(source, target, step):
    """Every step-th photo of the test sets; of the night, those that are among tokyo-xs's."""
    for name, part in (
        ("sf-xs", "database"),
        ("sf-xs", "queries_v1"),
        ("tokyo-xs", "database"),
        ("tokyo-xs", "queries_v1"),
    ):
        (target / name / "test" / part).mkdir(parents=True)
        photos = sorted(
            (source / name / "test" / part).iterdir(),
            key=lambda path: (path.name.split("@")[7], path.name),
        )
        for photo in photos[::step]:
            shutil.copy(photo, target / name / "test" / part)
    night = target / "tokyo-night" / "test" / "queries_v1"
    night.mkdir(parents=True)
    for photo in (target / "tokyo-xs" / "test" / "queries_v1").glob("*@night@*"):
        shutil.copy(photo, night)


def reranking():
    """GeoWarp's re-ranking of 5 predictions a query.

    The plain protocol is its authors' test loop: the query repeated for every candidate, every pair
    read from files and encoded before the warp and after.
    """
    trained, result, warping_model = warping()
    data, k = result.dataset, 5
    chosen = some(list(range(len(data.queries))), 40)
    predictions, queries = result.predictions[chosen], some(data.queries.paths, 40)
    database, pairs = data.database.paths, first_pairs(predictions, k)
    regression, stages = warping_model.regression, study().profile.geowarp.stages["resnet18"]
    model = load(trained.weights, trained.backbone)

    def plain_local(images):
        return local_features(model.features(images, stages))

    @torch.inference_mode()
    def plain():
        scores = np.empty((len(queries), k), np.float32)
        for q, path in enumerate(queries):
            query = plain_image(path, SIZE).repeat(k, 1, 1, 1).to(device())
            images = torch.stack([plain_image(database[i], SIZE) for i in predictions[q, :k]])
            images = images.to(device())
            corners = symmetric(regression, plain_local(query), plain_local(images))
            one = plain_local(warp(query, corners[:, 0]))
            two = plain_local(warp(images, corners[:, 1]))
            scores[q] = (one * two).sum(1).mean((1, 2)).cpu().numpy()
        return scores

    def ours(numbers):
        places = (warping_model.local, regression, queries, database, pairs, SIZE)
        return pair_scores(*places, precision=numbers).reshape(-1, k)

    orders = {"plain": rerank(predictions, plain(), k)[1]} | {
        numbers: rerank(predictions, ours(numbers), k)[1] for numbers in ("float32", "bf16")
    }
    positives = [data.positives[q] for q in chosen]
    right = {
        name: first_hit(np.take_along_axis(predictions[:, :k], order, 1), positives) == 0
        for name, order in orders.items()
    }
    once = sum(len(np.unique(pairs[:, side])) for side in (0, 1))
    encoded = 2 + once / len(pairs)
    operations = flops(lambda: ours("float32")) / flops(plain)
    for numbers in dict.fromkeys((precision(), "float32")):
        a, b, ratio = turns(lambda: ours(numbers), plain, 3)
        same = (orders[numbers] == orders["plain"]).all(1).mean()
        yield row(
            f"GeoWarp re-ranking, {numbers}",
            len(pairs) / a,
            len(pairs) / b,
            "pairs/s",
            ratio,
            3.0,
            note=(
                f"{encoded:.2f} images encoded a pair, of 4, {operations:.2f} of the operations; "
                f"queries in the same order: {100 * same:.1f} %; R@1 "
                f"{100 * right[numbers].mean():.1f} against {100 * right['plain'].mean():.1f}, "
                f"p = {paired_test(right[numbers], right['plain']):.2g}"
            ),
        )
    gain(
        "local features before the warp once an image, not once a pair",
        4 / encoded,
        ratio,
        "images encoded a pair, of 4; float32",
    )


def search_memory():
    """From what benchmarks/search.py measured: the largest exact search."""
    known = pd.read_csv(RESULTS / "search.csv")
    largest = known[known["search"] == "exact"].sort_values("descriptors").iloc[-1]
    yield row(
        f"search of {largest['descriptors'] / 1e6:g} million x 512, memory",
        largest["memory over the descriptors'"],
        1.0,
        "of the descriptors'",
        float(largest["memory over the descriptors'"]),
        1.15,
        at_most=True,
        note=f"{largest['ms a query']:g} ms a query",
    )


def second():
    """`vgeo run` with nothing changed, the start of Python included, against the seconds of the
    notebooks when they were executed.
    """
    for profile in ("smoke", "city"):
        record = finished(profile)
        if record is None:
            print(f"second: no finished run of {profile} made everything: vgeo run {profile}")
            continue
        seeds = ["--seeds", str(len(record["seeds"]))] if record["seeds"] != [0] else []
        command = [sys.executable, "-P", "-m", "vgeo", "run", profile, *seeds]
        times = []
        for _ in range(5):
            times.append(seconds(lambda: subprocess.run(command, check=True, capture_output=True)))
        first = sum(part["seconds"] for part in record["notebooks"].values())
        yield row(
            f"second run, {profile}",
            float(np.median(times)),
            first,
            "s",
            first / float(np.median(times)),
            60.0,
            note=f"seeds {record['seeds']}",
        )


def finished(profile):
    """run.json of a run that made all it needed and that a second run would skip, or None."""
    record = whole_run(profile)
    if record is None:
        return None
    seeds = len(record["seeds"]) if record["seeds"] != [0] else None
    unchanged = Unchanged(results_of(profile), parameters_of(profile, seeds=seeds))
    steps = [*notebooks_of(), PAGE]
    return record if unchanged.count(steps) == len(steps) else None


def whole_run(profile):
    """run.json of a run that made all it needed, or None."""
    path = results_of(profile) / "run.json"
    record = read(path) if path.exists() else {"notebooks": {}}
    made = {step for times in record["notebooks"].values() for step in times}
    return record if {"data", "models", "descriptors", "pairs"} <= made else None


KINDS = {
    "rendering": ("data",),
    "training": ("models", "views", "mined", "soups"),
    "describing": ("trunks", "descriptors"),
    "re-ranking": ("pairs",),
}


def city():
    """From the city's run.json: minutes, and what is neither rendering, training, describing nor
    re-ranking.

    Of several seeds, the first: the others are made in 08_conclusions, whose steps are left out
    then.
    """
    record = whole_run("city")
    if record is None:
        print("city: its last run found steps made: remove runs/cache and call ./run_all.sh")
        return
    parts = record["notebooks"]
    several = len(record["seeds"]) > 1
    steps = {
        kind: sum(
            part.get(step, 0)
            for name, part in parts.items()
            for step in names
            if not (several and name.startswith("08"))
        )
        for kind, names in KINDS.items()
    }
    total = sum(part["seconds"] for part in parts.values())
    if several:
        total -= sum(
            value
            for name, part in parts.items()
            if name.startswith("08")
            for step, value in part.items()
            if step != "seconds"
        )
    words = ", ".join(f"{kind} {value / 60:.1f}" for kind, value in steps.items())
    cores = record["machine"]["cores"]
    yield row(
        f"whole city profile, {cores} cores, one seed",
        total / 60,
        None,
        "min",
        total / 60,
        20.0,
        at_most=True,
        note=words,
    )
    rest = 100 * (1 - sum(steps.values()) / total)
    yield row(
        "whole city profile, neither rendering, training, describing nor re-ranking",
        rest,
        None,
        "%",
        rest,
        10.0,
        at_most=True,
    )


def rendering():
    """A database of a district from nothing, on one core: the district with its textures, the
    photos, JPEG files.
    """
    plan, found, spent = Plan(size=128, seed=97), [], {}
    parts = {
        (rendered, "_district"): "the district and its textures",
        (district, "render"): "rays",
        (district, "develop"): "exposure, noise",
        (cv2, "imencode"): "JPEG",
    }
    with tempfile.TemporaryDirectory() as folder, ExitStack() as clocks:
        job = (rendered.database_photos, Path(folder))
        # compiles, or reads what was compiled
        rendered.write_part(*job, replace(plan, heading_step=360), "val", 1)
        for module, name in parts:
            clocks.enter_context(timed(module, name, spent))
        for number in range(3):
            began = time.process_time()
            count = rendered.write_part(*job, plan, "val", number)
            found.append(1000 * (time.process_time() - began) / count)
    each = float(np.median(found))
    words = ", ".join(
        f"{words} {1000 * spent[name] / (3 * count):.1f}" for (_, name), words in parts.items()
    )
    yield row(
        "rendering a 128-pixel photo, one core",
        each,
        None,
        "ms",
        each,
        4.0,
        at_most=True,
        note=f"ms: {words}",
    )


def precisions():
    """bf16 where the study uses it, against float32: R@1 on all validation and test queries, with
    the exact paired test.
    """
    one = study()
    tests = [one.data.test_sets[name] for name in ("sf-xs", "tokyo-xs")]

    def right(model):
        hits, first = [], []
        for data in (one.data.val, *tests):
            database, queries = (
                describe(model, photos.paths, SIZE) for photos in (data.database, data.queries)
            )
            predictions = search(database, queries, 1)[0]
            hits.append(first_hit(predictions, data.positives) == 0)
            first.append(predictions[:, 0])
        return np.concatenate(hits), np.concatenate(first)

    def compare(what, low, full, note=""):
        (a, first), (b, other) = low, full
        p, same = paired_test(a, b), 100 * np.mean(first == other)
        return row(
            what,
            100 * a.mean(),
            100 * b.mean(),
            "R@1, %",
            p,
            0.05,
            note=f"ratio is p; first predictions the same: {same:.1f} %{note}",
        )

    for backbone in ("resnet18", "efficientnet_v2_s"):
        model = city_model(backbone)
        with autocast(device(), "bf16"):
            low = right(model)
        yield compare(f"describing in bf16 (not used), {backbone}", low, right(model))
    if precision() == "bf16":
        recipe, classes = recipe_of(one.profile, "CosFace", "float32"), one.data.classes
        paths, total = np.array(classes.photos.paths), recipe.epochs * recipe.iterations
        rows = batches(classes.labels, recipe.batch_size, 0, total, recipe.seed)
        with tempfile.TemporaryDirectory() as folder, quiet():
            train_extractor(
                recipe,
                CITY_WEIGHTS / "resnet18.safetensors",
                classes,
                one.descriptions.validate,
                Path(folder),
                lambda model, first: live_views(model, paths, rows, SIZE, recipe.seed, first),
            )
            full = load(Path(folder, "model.safetensors"), "resnet18")
        yield compare(
            "training in bf16, CosFace",
            right(one.load(one.train("CosFace"))),
            right(full),
            "; another training, not the same in bits",
        )
    trained, _, warping_model = warping()
    hits = {}
    for numbers in ("bf16", "float32"):
        hits[numbers] = [[], []]
        for data in tests:
            result, paths = one.search(trained, data), (data.queries.paths, data.database.paths)
            pairs = first_pairs(result.predictions, 5)
            places = (warping_model.local, warping_model.regression, *paths, pairs, SIZE)
            scores = pair_scores(*places, precision=numbers)
            order = rerank(result.predictions, scores.reshape(-1, 5), 5)[0]
            hits[numbers][0].append(first_hit(order, data.positives) == 0)
            hits[numbers][1].append(order[:, 0])
        hits[numbers] = tuple(map(np.concatenate, hits[numbers]))
    yield compare("re-ranking in bf16", hits["bf16"], hits["float32"])


def growth():
    """Seconds at growing counts, the best of three: growth.csv, and slopes in a log-log plot, where
    1 is linear.
    """
    _, result, warping_model = warping()
    model, photos = city_model("resnet18"), some(training_paths(), 1280)
    queries, database = result.dataset.queries.paths, result.dataset.database.paths
    known = describe(model, database, SIZE)

    def compared(count, k):
        pairs = first_pairs(result.predictions[:count], k)
        places = (warping_model.local, warping_model.regression, queries, database, pairs, SIZE)
        return pair_scores(*places, precision=precision())

    def answered(count):
        search(known, describe(model, queries[:count], SIZE), K)
        compared(count, 5)

    series = {
        "images described": (
            [80, 160, 320, 640, 1280],
            lambda n: describe(model, photos[:n], SIZE),
        ),
        "queries answered (described, searched, 5 re-ranked)": ([16, 32, 64, 128, 256], answered),
        "pixels of all scales, of one image's": (
            [1, 2, 3, 4, 5],
            lambda n: [describe(model, photos[:160], SIZE, scale) for scale in SCALES[:n]],
        ),
        "candidates re-ranked a query": ([1, 2, 4, 8, 16], lambda k: compared(32, k)),
    }
    rows, slopes = [], []
    for what, (counts, work) in series.items():
        work(counts[0])
        found = np.array([[seconds(lambda: work(n)) for n in counts] for _ in range(3)]).min(0)
        x = (
            np.cumsum([scale**2 for scale in SCALES])
            if what.startswith("pixels")
            else np.array(counts, float)
        )
        slope = float(np.polyfit(np.log(x), np.log(found), 1)[0])
        rows += [
            {
                "what": what,
                "count": round(float(n), 3),
                "seconds": round(float(t), 4),
                "slope": round(slope, 3),
            }
            for n, t in zip(x, found)
        ]
        slopes.append(
            row(
                f"growth with {what}",
                slope,
                1.0,
                "slope",
                slope,
                1.1,
                at_most=True,
                note="log-log, 1 is linear",
            )
        )
    merge("growth", pd.DataFrame(rows), list(series))
    yield from slopes


def gains():
    """Ideas that were measured, into gains.csv; `training` and `reranking` write there too."""
    images = torch.randn(BATCH, 3, SIZE, SIZE, device=device()).contiguous(
        memory_format=torch.channels_last
    )
    for backbone in ("resnet18", "efficientnet_v2_s"):
        model = city_model(backbone)
        fold = folded(model)
        with torch.inference_mode(), torch.profiler.profile() as profiled:
            model(images)
        spent = {event.key: event.self_cpu_time_total for event in profiled.key_averages()}
        share = spent["aten::native_batch_norm"] / sum(spent.values())
        for numbers in ("float32", "bf16"):
            with torch.inference_mode(), autocast(device(), numbers):
                measured = turns(lambda: fold(images), lambda: model(images), 15)[2]
            gain(
                f"BatchNorm folded into convolutions, {backbone}, {numbers}",
                1 / (1 - share),
                measured,
                "its share of a float32 pass",
            )
    model, photos = city_model("resnet18"), some(training_paths(), 320)
    describe(model, photos[:BATCH], SIZE)
    whole = min(
        seconds(lambda: [describe(model, photos, SIZE, scale) for scale in SCALES])
        for _ in range(3)
    )
    once = min(seconds(lambda: [None for _ in load_batches(photos, BATCH, SIZE)]) for _ in range(3))
    gain(
        "five scales of one image share its decoding (not built)",
        1.05,
        whole / (whole - 4 * once),
        "a guess; measured is the most that it can bring",
    )
    yield from ()


BENCHMARKS = {
    "extraction": extraction,
    "training": training,
    "table": table,
    "reranking": reranking,
    "search": search_memory,
    "second": second,
    "city": city,
    "rendering": rendering,
    "precision": precisions,
    "growth": growth,
    "gains": gains,
}


# ---- results ----


def merge(name, new, replaced):
    """Puts rows into a CSV in place of those of the same `what`, and of what is replaced."""
    path = RESULTS / f"{name}.csv"
    if path.exists():
        before = pd.read_csv(path)
        new = pd.concat(
            [before[~before["what"].isin([*new["what"], *replaced])], new], ignore_index=True
        )
    RESULTS.mkdir(exist_ok=True)
    new.to_csv(path, index=False)


@style()
def draw():
    """figures/speed.png and .svg from speed.csv and growth.csv."""
    import matplotlib.pyplot as plt

    known = pd.read_csv(RESULTS / "speed.csv")
    known = known[known["ratio"].notna() & ~known["unit"].isin(["slope", "R@1, %"])]
    high = known["goal is"] == "at least"
    reached = np.minimum(
        np.where(high, known["ratio"] / known["goal"], known["goal"] / known["ratio"]), 4
    )
    grown = (RESULTS / "growth.csv").exists()
    figure, axes = plt.subplots(
        1,
        1 + grown,
        figsize=(8 + 6 * grown, 1.4 + 0.34 * len(known)),
        width_ratios=(1.3, 1)[: 1 + grown],
        squeeze=False,
    )
    left, right = axes[0, 0], axes[0, -1]
    colours = [RIGHT if met == "yes" else WRONG for met in known["met"]]
    left.hlines(range(len(known)), 1, reached, color=colours, linewidth=3)
    left.scatter(reached, range(len(known)), color=colours, zorder=3)
    left.axvline(1, color="0.3", linewidth=1)
    left.set_xscale("log", base=2)
    left.set_xticks([0.5, 0.7, 1, 1.4, 2, 4])
    left.xaxis.set_major_formatter("{x:g}")
    left.set_xlim(0.42, 4.4)
    units = ["" if low_is_good else "×" for low_is_good in ~high]
    left.set_yticks(
        range(len(known)),
        [
            f"{r.what}: {round(r.ratio, 2 if r.ratio < 100 else None)}{unit} "
            f"({'≥' if unit else '≤'} {r.goal:g})"
            for r, unit in zip(known.itertuples(), units)
        ],
        fontsize=8,
    )
    left.set(
        ylim=(len(known) - 0.5, -0.5),
        xlabel="reached, of the goal; right of the line it is met; 4 is four times or more",
        title="Measured (goal)",
    )
    left.grid(axis="y", visible=False)
    if grown:
        for what, part in pd.read_csv(RESULTS / "growth.csv").groupby("what", sort=False):
            x, y = part["count"] / part["count"].iloc[0], part["seconds"] / part["seconds"].iloc[0]
            right.plot(x, y, "o-", label=f"{what}: slope {part['slope'].iloc[0]:.2f}")
        right.plot([1, 20], [1, 20], "--", color="0.5", label="linear")
        right.set(
            xscale="log",
            yscale="log",
            xlabel="times the smallest count",
            ylabel="times its seconds",
            title="How cost grows",
        )
        right.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.18))
    figure.tight_layout()
    for suffix in ("png", "svg"):
        figure.savefig(RESULTS / f"figures/speed.{suffix}", dpi=150, bbox_inches="tight")
    plt.close(figure)


def main(names):
    unknown = set(names) - BENCHMARKS.keys()
    if unknown:
        sys.exit(f"no benchmark is called {', '.join(sorted(unknown))}: {', '.join(BENCHMARKS)}")
    for name in names or BENCHMARKS:
        began = time.perf_counter()
        for line in BENCHMARKS[name]():
            print(
                f"{name}: {line['what']}: {line['ours']} against {line['against']} "
                f"{line['unit']}, ratio {line['ratio']} ({line['goal is']} {line['goal']}: "
                f"{line['met']}) {line['note']}",
                flush=True,
            )
            merge("speed", pd.DataFrame([line]), [])
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    draw()


if __name__ == "__main__":
    main(sys.argv[1:])
