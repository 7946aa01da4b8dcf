"""What a run takes of disk and memory, from counts alone, compared with what is there before anything is started."""

import math
import shutil
from pathlib import Path

import psutil
import torch

from vgeo.errors import VgeoError
from vgeo.models.network import BACKBONES, DIM, build
from vgeo.photos.places import RetrievalSet
from vgeo.retrieval.multiscale import SCALES
from vgeo.study.rows import LOSSES, RESNET, SHARES, SOUPS, TABLES, TRAININGS, Fusion, backbone_of

DESCRIPTOR = DIM * 4  # bytes


BASE_MEMORY = 3e9  # bytes of Python, torch and the images that are decoded ahead


def disk(study):
    """{what: bytes} that the cache will have grown to when every table is made; nothing of it is assumed to be there already."""
    p, seeds = study.profile, study.profile.seeds
    models = {name: build(name) for name in BACKBONES}
    weights = {
        name: sum(x.numel() * x.element_size() for x in model.state_dict().values())
        for name, model in models.items()
    }
    found = {"models": 0, "descriptors": 0, "trunk features": 0}
    for name, training in TRAININGS.items():
        own = study.extractor_of(name) == name
        found["models"] += len(seeds) * weights[training["backbone"]] * own
    between = len(SHARES) * math.comb(len(LOSSES), 2)
    found["models"] += (len(seeds) * (len(SOUPS) + len(LOSSES)) + between) * weights[RESNET]

    described, trunks = set(), set()
    validation = [
        (Path(table.attrs["root"]), 1.0, 1.0) for table in (study.val.database, study.val.queries)
    ]
    for name, roots in _described(study):
        extractor = study.extractor_of(name) if name in TRAININGS else name
        described |= {(extractor, seed, *each) for seed in seeds for each in roots}
        trunks |= {(backbone_of(name), *each) for each in (*roots, *validation)}
    plain = {
        (root, scale, factor) for *_, root, scale, factor in described if scale == factor == 1.0
    }
    described |= {(line, seeds[0], *each) for line in range(between) for each in plain}
    found["descriptors"] = sum(DESCRIPTOR * len(study._table(root)) for *_, root, _, _ in described)
    if study.stores:
        for backbone, root, scale, _ in trunks:
            found["trunk features"] += len(study._table(root)) * _trunk_bytes(
                models[backbone], round(p.test_size * scale)
            )
        views = (
            p.epochs * p.iterations * p.batch_size * 2
        )  # of the training images and of the night target
        found["trunk features"] += sum(
            len(seeds) * views * _trunk_bytes(model, p.image_size) for model in models.values()
        )
    # one training at a time: its weights, the best epoch's, and Adam's two moments
    found["a checkpoint"] = (
        4 * max(weights.values()) + 3 * DESCRIPTOR * study.train_table.attrs["classes"]
    )
    return found


def memory(study):
    """Bytes that the largest step holds at once: the descriptors of all scales of the largest set, and their aggregate."""
    largest = max(
        (
            len(data.database) + len(data.queries)
            for data in study.sets.values()
            if isinstance(data, RetrievalSet)
        ),
        default=0,
    )
    return BASE_MEMORY + (len(SCALES) + 2) * largest * DESCRIPTOR


def check_room(study):
    """Raises VgeoError where the disk's free space, beside what the cache holds already, or the free memory can't be enough."""
    needed, held = (
        sum(disk(study).values()),
        sum(file.stat().st_size for file in study.cache.rglob("*") if file.is_file()),
    )
    place = next(folder for folder in (study.cache, *study.cache.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if needed - held > free:
        raise VgeoError(
            f"{study.cache}: the run needs {needed / 1e9:.1f} GB of disk ({held / 1e9:.1f} GB of it may be there), {free / 1e9:.1f} GB "
            "are free: free some space, or clone where there is more"
        )
    needed, free = memory(study), psutil.virtual_memory().available
    if needed > free:
        raise VgeoError(
            f"the run needs {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free: close other programs, or use a machine with more"
        )


def _described(study):
    """(model, {(folder, scale, brightness), ...}) of every row of every table, for each data set."""
    rows = [row for table in TABLES.values() for row in table.values()]
    for row in [
        part
        for row in rows
        for part in ((row.first, row.second) if isinstance(row, Fusion) else (row,))
    ]:
        for name, data in study.sets.items():
            if isinstance(data, RetrievalSet):
                factor = row.night if name == "tokyo-night" else 1.0
                aggregated = {
                    side: row.multiscale and row.side in (side, "both")
                    for side in ("database", "query")
                }
                yield (
                    row.model,
                    {
                        (Path(table.attrs["root"]), scale, brightness)
                        for side, table, brightness in (
                            ("database", data.database, factor),
                            ("query", data.queries, 1.0),
                        )
                        for scale in (SCALES if aggregated[side] else (1.0,))
                    },
                )


def _trunk_bytes(model, size):
    """float16 bytes of one image's trunk features."""
    with torch.inference_mode():
        return 2 * model.eval().trunk(torch.zeros(1, 3, size, size)).numel()
