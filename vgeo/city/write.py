"""The embedded data set: streets of cities that do not exist, stored as sf-xs and tokyo-xs are.

A district is a square of blocks of a grid city with its own houses. Districts share their style
and, each shifted by its own amount, the tiles of noise on their surfaces and in the sky
(`paint._tiles`). Photos take their sensor noise from one stored array (`light._noise`). The
database is seen by a car (panoramas, daylight, several years), the queries by a phone from nearly
the same places in later years. Everything follows from the seed: each image has its own random
generator, so the number of processes changes no file.
"""

import multiprocessing
import os
import signal
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from vgeo.bars import bar
from vgeo.city.cameras import Camera, again, car_camera, panoramas, phone_camera
from vgeo.city.district import District
from vgeo.city.light import ALL_WEATHERS, LIGHTS, Light, daylight
from vgeo.city.paint import SAN_FRANCISCO, TOKYO, random_style
from vgeo.city.plan import ORIGINS, Plan
from vgeo.errors import VgeoError, result
from vgeo.photos.names import format_name

CLASS_STEP = 50.0  # metres between the cells of one CosPlace group: N = 5 cells of 10 m
STYLES = dict.fromkeys(("train", "val", "test"), SAN_FRANCISCO)
STYLES |= dict.fromkeys(("tokyo", "target"), TOKYO)
TEXELS = 1 / 9  # texture pixels per metre, for each pixel of a photo's width


@dataclass
class Photo:
    """A photo before it is written; pano, tile and note are those fields of its name."""

    image: np.ndarray
    camera: Camera
    month: int
    pano: str
    tile: str = ""
    note: str = ""


def _stream(seed, *key):
    """A random generator from the plan's seed and the names and numbers of an image."""
    numbers = (zlib.crc32(k.encode()) if isinstance(k, str) else k for k in key)
    return np.random.default_rng([seed, *numbers])


def _month(rng, first, last):
    """A month, yyyymm, of the years first to last."""
    return int(rng.integers(first, last + 1)) * 100 + int(rng.integers(1, 13))


@lru_cache(maxsize=1)  # the photos of a part's database and of its queries are often made in turn
def _district(plan, part, number):
    rng = _stream(plan.seed, part, number)
    seed = int(rng.integers(1 << 40))
    blocks = {"val": plan.val_blocks, "test": plan.test_blocks, "tokyo": plan.tokyo_blocks}
    style = STYLES.get(part) or random_style(rng)
    return District(seed, style, blocks.get(part, 1), plan.size * TEXELS)


def training_photos(plan: Plan, part: str, number: int) -> Iterator[Photo]:
    """All classes of one CosPlace group.

    Their cells of 10 m lie CLASS_STEP apart, their headings in every second bin of 30 degrees.
    """
    district = _district(plan, part, number)
    for x, y, _ in panoramas(district.blocks, CLASS_STEP):
        for angle in range(0, 360, 60):
            for k in range(plan.images_per_class):
                rng = _stream(plan.seed, part, number, int(x), int(y), angle, k)
                place = x + rng.uniform(-4.9, 4.9), y + rng.uniform(-4.9, 4.9)
                camera = car_camera(*place, angle + rng.uniform(0.5, 29.5), plan.size, rng)
                month, light = _month(rng, 2008, 2021), daylight(rng, ALL_WEATHERS)
                image = district.photo(camera, light, month, rng)
                pano = f"{part}{number}x{int(x)}y{int(y)}b{angle}v{k}"
                yield Photo(image, camera, month, pano)


@dataclass(frozen=True)
class Panorama:
    """Where a car took a panorama, in which light and month; yaw is its first crop's heading."""

    x: float
    y: float
    yaw: float
    light: Light
    month: int

    def heading(self, plan: Plan, tile: int) -> float:
        """The heading of a crop, degrees."""
        return self.yaw + tile * plan.heading_step


def _panoramas(plan: Plan, part: str, number: int, blocks: int) -> list[Panorama]:
    """All panoramas of a district, each of one lane, day and light."""
    found = []
    for index, (x, y, north) in enumerate(panoramas(blocks, plan.panorama_step)):
        rng = _stream(plan.seed, part, number, "database", index)
        lane, month = rng.choice([-1, 1]) * rng.uniform(1.0, 2.2), _month(rng, 2009, 2016)
        light, yaw, shift = daylight(rng), rng.uniform(0, plan.heading_step), rng.uniform(-1, 1)
        place = (x + lane, y + shift) if north else (x + shift, y + lane)
        found.append(Panorama(*place, yaw, light, month))
    return found


def database_photos(plan: Plan, part: str, number: int) -> Iterator[Photo]:
    """The crops of a car's panoramas."""
    district = _district(plan, part, number)
    for index, pano in enumerate(_panoramas(plan, part, number, district.blocks)):
        for tile in range(360 // plan.heading_step):
            rng = _stream(plan.seed, part, number, "crop", index, tile)
            camera = car_camera(pano.x, pano.y, pano.heading(plan, tile), plan.size, rng)
            image = district.photo(camera, pano.light, pano.month, rng, 0.8)
            yield Photo(image, camera, pano.month, f"{part}{number}p{index:03d}", str(tile))


def query_photos(
    plan: Plan, part: str, number: int, total: int, districts: int, kinds
) -> Iterator[Photo]:
    """A phone's photos of the places number, number + districts, ... below total.

    Each is near a random crop of a panorama, years later. Each place is photographed once in each
    kind of light (a key of LIGHTS).
    """
    district = _district(plan, part, number)
    panos = _panoramas(plan, part, number, district.blocks)
    for q in range(number, total, districts):
        rng = _stream(plan.seed, part, number, "query", q)
        pano, tile = panos[rng.integers(len(panos))], int(rng.integers(360 // plan.heading_step))
        camera = phone_camera(pano.x, pano.y, pano.heading(plan, tile), plan.size, rng)
        for kind in kinds:
            rng = _stream(plan.seed, part, number, "query", q, kind)
            month = _month(rng, 2017, 2021)
            if len(kinds) > 1:
                camera = again(camera, rng)
            crowd = rng.choice([0.5, 1.0, 2.0])
            image = district.photo(camera, LIGHTS[kind](rng), month, rng, crowd)
            yield Photo(image, camera, month, f"{part}{number}q{q:04d}", note=kind)


def write_part(
    photos: Callable[..., Iterator[Photo]], folder: Path, plan: Plan, part: str, number: int, *more
) -> int:
    """Writes photos(plan, part, number, *more), those of one district, as JPEG; returns how many.

    Districts stand 600 m apart, in rows of 40.
    """
    east, north, zone, band = ORIGINS[part]
    east, north, count = east + 600.0 * (number % 40), north + 600.0 * (number // 40), 0
    for photo in photos(plan, part, number, *more):
        camera = photo.camera
        x, y = east + camera.x, north + camera.y
        others = {"pitch": f"{camera.pitch:.1f}", "roll": f"{camera.roll:.1f}"}
        others |= {"height": f"{camera.z:.2f}", "tile": photo.tile, "note": photo.note}
        name = format_name(x, y, zone, band, photo.pano, camera.heading, photo.month, **others)
        bgr = cv2.cvtColor(photo.image, cv2.COLOR_RGB2BGR)
        ok, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 92])
        if not ok:
            raise RuntimeError(f"{name}: JPEG encoding failed")
        (folder / name).write_bytes(data.tobytes())
        count += 1
    return count


def write_parts(*parts: tuple) -> int:
    """Calls `write_part` with each of the arguments, in one process, so that a district of several
    parts is built once; returns the number of images.
    """
    return sum(write_part(*arguments) for arguments in parts)


def write_city(plan: Plan, root, progress: bool = True, processes: int | None = None) -> None:
    """Renders the study's data sets, laid out as the originals are.

    `sf-xs/{train,val/{database,queries},test/{database,queries_v1}}`,
    `tokyo-xs/test/{database,queries_v1}`, `tokyo-night/test/queries_v1` (the night queries, looked
    up in tokyo-xs's database) and `night_target`.

    Parameters
    ----------
    plan : how large the city is.
    root : a new or empty folder.
    progress : whether a progress bar is shown.
    processes : how many render; None: one for each core; 1: this process.
    """
    root = Path(root)
    train, target = root / "sf-xs/train", root / "night_target"
    night = root / "tokyo-night/test/queries_v1"
    for made in (train, target, night):
        made.mkdir(parents=True, exist_ok=True)
    jobs: list[tuple] = []
    for part, folder, name, blocks, total, kinds in (
        ("test", "sf-xs/test", "queries_v1", plan.test_blocks, plan.test_queries, ("day",)),
        ("tokyo", "tokyo-xs/test", "queries_v1", plan.tokyo_blocks, plan.tokyo_places, (*LIGHTS,)),
        ("val", "sf-xs/val", "queries", plan.val_blocks, plan.val_queries, ("day",)),
    ):
        database, queries = root / folder / "database", root / folder / name
        for made in (database, queries):
            made.mkdir(parents=True, exist_ok=True)
        if blocks:
            crops = database_photos, database, plan, part, 0
            jobs.append(
                (write_parts, crops, (query_photos, queries, plan, part, 0, total, 1, kinds))
            )
    for k in range(plan.train_districts):
        jobs.append((write_part, training_photos, train, plan, "train", k))
    for k in range(min(2, plan.night_target)):
        more = plan.night_target, 2, ("night",)
        jobs.append((write_part, query_photos, target, plan, "target", k, *more))
    run_jobs(jobs, "rendering the city", progress, processes)
    for photo in sorted((root / "tokyo-xs/test/queries_v1").glob("*@night@.jpg")):
        (night / photo.name).write_bytes(photo.read_bytes())


def write_pretraining(plan: Plan, root, districts: int, progress=True, processes=None) -> None:
    """Renders daylight training streets of `districts` quarters of no particular city.

    They are written under `root`, in no subfolder; the other arguments are as in `write_city`.
    """
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    jobs = [(write_part, training_photos, root, plan, "pretrain", k) for k in range(districts)]
    run_jobs(jobs, "rendering for pre-training", progress, processes)


def run_jobs(jobs: list[tuple], what: str, progress: bool, processes: int | None = None) -> None:
    """Calls job[0](*job[1:]) for each job in spawned processes.

    Parameters
    ----------
    jobs : functions, each of which returns how many images it has made, and their arguments.
    what : the label of the progress bar.
    progress : whether a progress bar is shown.
    processes : None: one for each core; 1: this process, and none is spawned.

    Raises
    ------
    VgeoError : a process died.
    """
    with bar(what if progress else None, None, "images", leave=True) as counter:
        if processes == 1:
            for make, *arguments in jobs:
                counter.update(make(*arguments))
            return
        # spawned, not forked: this process may hold torch's threads
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, context, initializer=_end_with_parent) as pool:
            # a worker inherits that Ctrl-C is ignored: it would print a trace while it imports
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)
            pending = [pool.submit(*job) for job in jobs]
            signal.signal(signal.SIGINT, before)
            try:
                for task in pending:
                    counter.update(result(task, what))
            except BrokenProcessPool:
                raise VgeoError(
                    f"{what}: a process died, as when memory runs out: "
                    "close other programs and call again"
                ) from None
            finally:  # an error or Ctrl-C must not wait for the jobs that have not begun
                pool.shutdown(cancel_futures=True)


def _end_with_parent():
    """Lets a worker end at once, without a message, on Ctrl-C and when its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
