"""The embedded data set: streets of cities that do not exist, photographed by a car and by phones, stored as sf-xs is.

A district is a few blocks of a grid city with its own houses; data sets are made of districts that share nothing but
their style. The database is seen by a car (panoramas every 10 m cut into 12 crops, daylight, several years); queries by
a phone on the sidewalk in later years. Everything follows from the seed: each image has its own random generator, so
the number of processes changes no file.
"""

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import cv2
from tqdm.auto import tqdm

from vgeo.city.cameras import car_camera, panoramas, phone_camera
from vgeo.city.district import District
from vgeo.city.kernel import Camera
from vgeo.city.light import FINE, LIGHTS, daylight
from vgeo.city.paint import SAN_FRANCISCO, TOKYO, random_style
from vgeo.city.plan import PRETRAIN_ORIGIN, SAN_FRANCISCO_ORIGIN, TOKYO_ORIGIN, _month, _task
from vgeo.errors import VgeoError, result
from vgeo.photos.names import format_name


def _write(folder, origin, camera, image, month, pano, tile="", note=""):
    east, north, zone, letter = origin
    name = format_name(
        east + camera.x,
        north + camera.y,
        zone,
        letter,
        pano,
        camera.heading,
        month,
        tile=tile,
        pitch=f"{camera.pitch:.1f}",
        roll=f"{camera.roll:.1f}",
        height=f"{camera.z:.2f}",
        note=note,
    )
    ok, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    if not ok:
        raise RuntimeError(f"{name}: JPEG encoding failed")
    (folder / name).write_bytes(data.tobytes())


def _district(plan, part, number):
    """The district and where it lies: districts stand 600 m apart in rows of 40, the parts of one city 3 km."""
    east, north, zone, letter = {
        "tokyo": TOKYO_ORIGIN,
        "target": TOKYO_ORIGIN,
        "pretrain": PRETRAIN_ORIGIN,
    }.get(part, SAN_FRANCISCO_ORIGIN)
    shift = {"train": 0, "val": 3000, "test": 6000, "tokyo": 0, "target": 9000, "pretrain": 0}[part]
    rng = _task(plan.seed, part, number)
    style = {"tokyo": TOKYO, "target": TOKYO, "pretrain": None}.get(part, SAN_FRANCISCO)
    district = District(int(rng.integers(1 << 40)), style or random_style(rng), 1, plan.size / 9)
    return district, (
        east + 600.0 * (number % 40),
        north + shift + 600.0 * (number // 40),
        zone,
        letter,
    )


def _train_part(plan, part, number, folder):
    """All classes of one CosPlace group: cells of 10 m every 50 m, headings in every second bin of 30 degrees."""
    district, origin = _district(plan, part, number)
    count = 0
    for x, y, _ in panoramas(district):
        if x % 50 or y % 50:
            continue
        for bin_start in range(0, 360, 60):
            for k in range(plan.images_per_class):
                rng = _task(plan.seed, part, number, int(x), int(y), bin_start, k)
                camera = car_camera(
                    x + rng.uniform(-4.9, 4.9),
                    y + rng.uniform(-4.9, 4.9),
                    bin_start + rng.uniform(0.5, 29.5),
                    plan.size,
                    rng,
                )
                month = _month(rng, 2008, 2021)
                light = daylight(rng, (*FINE, "haze"))  # all weathers, to learn from
                image = district.photo(camera, light, month, rng)
                _write(
                    folder,
                    origin,
                    camera,
                    image,
                    month,
                    f"{part}{number}x{int(x)}y{int(y)}b{bin_start}v{k}",
                )
                count += 1
    return count


def _database_part(plan, part, number, folder):
    """The car's panoramas of one district, each of one lane, day and light, cut into crops."""
    district, origin = _district(plan, part, number)
    count = 0
    for index, (x, y, vertical) in enumerate(panoramas(district)):
        rng = _task(plan.seed, part, number, "database", index)
        lane, month = rng.choice([-1, 1]) * rng.uniform(1.0, 2.2), _month(rng, 2009, 2016)
        light, yaw = daylight(rng), rng.uniform(0, 30)
        at = (x + lane, y + rng.uniform(-1, 1)) if vertical else (x + rng.uniform(-1, 1), y + lane)
        for tile in range(360 // plan.heading_step):
            crop = _task(plan.seed, part, number, "crop", index, tile)
            camera = car_camera(*at, yaw + tile * plan.heading_step, plan.size, crop)
            image = district.photo(camera, light, month, crop, 0.8)
            _write(folder, origin, camera, image, month, f"{part}{number}p{index:03d}", tile)
            count += 1
    return count


def _query_part(plan, part, number, folders, total, districts):
    """Phones' photos in one district: queries number, number + districts, ... below total, each in every kind of light.

    folders: where each kind of light (a key of LIGHTS) goes.
    """
    district, origin = _district(plan, part, number)
    count = 0
    for q in range(number, total, districts):
        camera = phone_camera(district, _task(plan.seed, part, number, "query", q), plan.size)
        for kind, folder in folders.items():
            rng = _task(plan.seed, part, number, "query", q, kind)
            month = _month(rng, 2017, 2021)
            if len(folders) > 1:  # the same place, photographed anew
                camera = Camera(
                    camera.x + rng.normal(0, 0.5),
                    camera.y + rng.normal(0, 0.5),
                    camera.z,
                    (camera.heading + rng.normal(0, 3)) % 360,
                    camera.pitch + rng.normal(0, 1),
                    rng.normal(0, 2.5),
                    camera.fov,
                    camera.size,
                )
            crowd = rng.choice([0.5, 1.0, 2.0])
            image = district.photo(camera, LIGHTS[kind](rng), month, rng, crowd)
            _write(folder, origin, camera, image, month, f"{part}{number}q{q:04d}", note=kind)
            count += 1
    return count


def write_city(plan, root, progress=True):
    """Renders the study's data sets under `root` (a new or empty folder), laid out as the originals are.

    `sf-xs/{train,val/{database,queries},test/{database,queries_v1}}`, `tokyo-xs/test/{database,queries_v1}`,
    `tokyo-night/test/queries_v1` (the night queries, found in tokyo-xs's database) and `night_target`.
    """
    root = Path(root)
    sf, tokyo = root / "sf-xs", root / "tokyo-xs" / "test"
    night_folder = root / "tokyo-night" / "test" / "queries_v1"
    folders = {
        "train": sf / "train",
        "val": sf / "val" / "database",
        "val_q": sf / "val" / "queries",
        "test": sf / "test" / "database",
        "test_q": sf / "test" / "queries_v1",
        "tokyo": tokyo / "database",
        "tokyo_q": tokyo / "queries_v1",
        "target": root / "night_target",
    }
    jobs = [(_train_part, plan, "train", k, folders["train"]) for k in range(plan.train_districts)]
    for part, districts, queries in (
        ("val", plan.val_districts, plan.val_queries),
        ("test", plan.test_districts, plan.test_queries),
        ("tokyo", plan.tokyo_districts, plan.tokyo_places),
    ):
        kinds = tuple(LIGHTS) if part == "tokyo" else ("day",)
        jobs += [(_database_part, plan, part, k, folders[part]) for k in range(districts)]
        jobs += [
            (
                _query_part,
                plan,
                part,
                k,
                dict.fromkeys(kinds, folders[part + "_q"]),
                queries,
                districts,
            )
            for k in range(districts)
        ]
    jobs += [
        (_query_part, plan, "target", k, {"night": folders["target"]}, plan.night_target, 2)
        for k in range(2)
    ]
    for folder in (*folders.values(), night_folder):
        folder.mkdir(parents=True, exist_ok=True)
    _run(jobs, "rendering the city", progress)
    for photo in sorted(folders["tokyo_q"].glob("*@night@.jpg")):
        (night_folder / photo.name).write_bytes(photo.read_bytes())


def write_pretraining(plan, root, districts, progress=True):
    """Renders daylight training streets of `districts` quarters of no particular city under `root`, in no subfolder."""
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    _run(
        [(_train_part, plan, "pretrain", k, root) for k in range(districts)],
        "rendering for pre-training",
        progress,
    )


def _run(jobs, what, progress):
    """Runs the jobs in one process per core. Spawned, not forked: the parent may hold torch's threads."""
    with ProcessPoolExecutor(
        mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent
    ) as pool:
        before = signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # which a worker inherits: while it still imports, Ctrl-C would show a trace
        pending = [pool.submit(*job) for job in jobs]
        signal.signal(signal.SIGINT, before)
        try:
            with tqdm(desc=what, unit=" images", disable=not progress) as bar:
                for task in pending:
                    bar.update(result(task, what))
        except BrokenProcessPool:
            raise VgeoError(
                f"{what}: a process died, as when memory runs out: close other programs and call again"
            ) from None
        finally:  # an error or Ctrl-C must not wait for the jobs that have not begun
            pool.shutdown(cancel_futures=True)


def _end_with_parent():
    """Called in a worker: it ends at once, and says nothing, when Ctrl-C reaches it or its parent is no more."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(
        target=lambda: (multiprocessing.parent_process().join(), os._exit(1)), daemon=True
    ).start()
