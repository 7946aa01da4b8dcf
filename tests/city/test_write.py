"""The files of a small city against its plan."""

import functools
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from pyproj import Geod, Transformer
from scipy.spatial import cKDTree

from vgeo.city.cameras import ASIDE, TURN
from vgeo.city.write import (
    query_photos,
    run_jobs,
    training_photos,
    write_city,
    write_part,
    write_pretraining,
)
from vgeo.photos.names import parse_name
from vgeo.photos.places import cosplace_classes, open_dataset
from vgeo.photos.tables import read_photos


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def contents(*folders):
    return {path.name: path.read_bytes() for folder in folders for path in Path(folder).iterdir()}


def test_layout(root):
    crops = 16 * 4  # panoramas of a district of a block, directions
    expected = {
        "sf-xs/train": 2 * 48,
        "sf-xs/val/database": crops,
        "sf-xs/val/queries": 10,
        "sf-xs/test/database": 45 * 4,  # 2 x 2 blocks
        "sf-xs/test/queries_v1": 10,
        "tokyo-xs/test/database": crops,
        "tokyo-xs/test/queries_v1": 3 * 12,
        "tokyo-night/test/queries_v1": 12,
        "night_target": 4,
    }
    found = {}
    for path in root.rglob("*"):
        if path.is_file():
            folder = path.parent.relative_to(root).as_posix()
            found[folder] = found.get(folder, 0) + 1
    assert found == expected


def test_names_and_pixels(root):
    for path in root.rglob("*.jpg"):
        fields = parse_name(path)
        zone = {"sf-xs": 10}.get(path.relative_to(root).parts[0], 54)
        assert (fields["zone"], fields["letter"]) == (zone, "S")
        lat, lon = to_degrees(zone).transform(fields["utm_east"], fields["utm_north"])
        assert abs(fields["lat"] - lat) < 1e-5 and abs(fields["lon"] - lon) < 1e-5
        last = 2021 if "database" not in path.parts else 2016
        assert 200801 <= fields["month"] <= last * 100 + 12
        assert cv2.imread(str(path)).shape == (48, 48, 3)


@functools.cache
def to_degrees(zone):
    return Transformer.from_crs(f"EPSG:{32600 + zone}", "EPSG:4326")


def test_panoramas_look_all_around(root):
    photos = read_photos(root / "sf-xs/val/database", "database images")
    for _, crops in photos.table.groupby(["utm_east", "utm_north"]):
        assert np.allclose(np.diff(np.sort(crops["heading"])), 90, atol=0.02)
        assert crops["month"].nunique() == 1 and len(crops) == 4
    nearest = cKDTree(photos.xy).query(photos.xy, k=5)[0][:, 4]
    assert nearest.min() > 20 and nearest.max() < 31  # the next panorama


def test_tokyo_photographs_each_place_three_times(root):
    folder = root / "tokyo-xs/test/queries_v1"
    places = {}
    for name in names(folder):
        fields = parse_name(name)
        places.setdefault(fields["pano"], {})[fields["note"]] = fields
    assert len(places) == 12
    for place in places.values():
        assert set(place) == {"day", "sunset", "night"}
        spots = np.array([[fields["utm_east"], fields["utm_north"]] for fields in place.values()])
        assert 0 < np.ptp(spots, axis=0).max() < 4
        headings = np.radians([fields["heading"] for fields in place.values()])
        assert abs(np.exp(1j * headings).mean()) > 0.98  # the same view, within some degrees
    night = contents(root / "tokyo-night/test/queries_v1")
    assert night == {name: data for name, data in contents(folder).items() if "@night@" in name}


def test_night_is_darker(root):
    folder = root / "tokyo-xs/test/queries_v1"
    mean = {}
    for kind in ("day", "sunset", "night"):
        photos = [cv2.imread(str(path)) for path in folder.glob(f"*@{kind}@.jpg")]
        mean[kind] = np.mean([photo.mean() for photo in photos])
    assert mean["night"] < 0.9 * mean["sunset"] and mean["night"] < 0.8 * mean["day"], mean


def test_parts_share_no_place(root):
    parts = "sf-xs/train", "sf-xs/val/database", "sf-xs/test/database", "tokyo-xs/test/database"
    places = []
    for part in (*parts, "night_target"):
        fields = [parse_name(path) for path in (root / part).iterdir()]
        places.append(np.array([(field["lat"], field["lon"]) for field in fields]))
    for i, one in enumerate(places):
        for other in places[:i]:
            a, b = np.meshgrid(np.arange(len(one)), np.arange(len(other)), indexing="ij")
            a, b = one[a.ravel()], other[b.ravel()]
            apart = Geod(ellps="WGS84").inv(a[:, 1], a[:, 0], b[:, 1], b[:, 0])[2]
            assert apart.min() > 25


@pytest.mark.parametrize(
    "queries, database",
    [
        ("sf-xs/val/queries", "sf-xs/val/database"),
        ("sf-xs/test/queries_v1", "sf-xs/test/database"),
        ("tokyo-xs/test/queries_v1", "tokyo-xs/test/database"),
        ("tokyo-night/test/queries_v1", "tokyo-xs/test/database"),
    ],
)
def test_every_query_has_a_positive(root, queries, database):
    data = open_dataset("city", root / queries, root / database)
    assert data.identity.no_positive == 0
    assert min(map(len, data.positives)) >= 4  # a whole panorama


def test_a_query_is_near_a_crop(root, plan):
    """Within a few metres of a panorama, and turned little from one of its crops."""
    folders = root / "sf-xs/test/queries_v1", root / "sf-xs/test/database"
    queries, database = (read_photos(folder, "photos") for folder in folders)
    apart = np.linalg.norm(queries.xy[:, None] - database.xy, axis=2)
    heading = [photos.table["heading"].to_numpy() for photos in (queries, database)]
    turned = np.abs((heading[0][:, None] - heading[1] + 180) % 360 - 180)
    assert ((apart < 5 * ASIDE) & (turned < 5 * TURN)).any(1).all()
    assert len(np.unique(queries.xy // 50, axis=0)) > 5  # all over the district


def test_training_images_are_one_group(root, plan):
    photos = read_photos(root / "sf-xs/train", "training images")
    classes = cosplace_classes(photos, min_images=plan.images_per_class)
    assert len(classes.photos) == len(photos) and classes.count == plan.train_districts * 48
    assert (np.bincount(classes.labels) == plan.images_per_class).all()


def test_no_two_images_are_the_same(root):
    images = list(contents(root / "sf-xs/train", root / "sf-xs/val/database").values())
    assert len(set(images)) == len(images)


# ---- the seed ----


@pytest.mark.slow
def test_seed_decides_every_byte_in_another_process(root, plan, tmp_path):
    """`root` was made in this process after other parts; here one part in a process of its own."""
    run_jobs([(write_part, training_photos, tmp_path, plan, "train", 1)], "", False)
    images = contents(root / "sf-xs/train")
    assert contents(tmp_path) == {name: data for name, data in images.items() if "@train1" in name}


def test_seed_decides_every_byte_in_this_process(root, plan, tmp_path):
    folders = {seed: tmp_path / str(seed) for seed in (plan.seed, plan.seed + 1)}
    for seed, folder in folders.items():
        folder.mkdir()
        more = plan.night_target, 2, ("night",)
        write_part(query_photos, folder, replace(plan, seed=seed), "target", 0, *more)
        assert len(names(folder)) == 2
    images = contents(root / "night_target")
    assert contents(folders[plan.seed]).items() <= images.items()
    other = contents(folders[plan.seed + 1])
    assert not set(other) & set(images) and not set(other.values()) & set(images.values())


def test_pretraining_streets_are_of_no_data_set(root, plan, tmp_path):
    write_pretraining(plan, tmp_path / "streets", 1, progress=False, processes=1)
    images = contents(tmp_path / "streets")
    assert len(images) == 48 * plan.images_per_class
    assert {parse_name(name)["zone"] for name in images} == {31}
    assert not set(images.values()) & set(contents(root / "sf-xs/train").values())


def test_empty_plan_makes_the_folders(plan, root, tmp_path):
    parts = "train_districts", "val_blocks", "test_blocks", "tokyo_blocks", "night_target"
    write_city(replace(plan, **dict.fromkeys(parts, 0)), tmp_path, False, 1)
    folders = {
        top: {path.relative_to(top) for path in top.rglob("*") if path.is_dir()}
        for top in (root, tmp_path)
    }
    assert folders[tmp_path] == folders[root]
    assert not list(tmp_path.rglob("*.jpg"))


# ---- jobs ----


def fail(message):
    raise ValueError(message)


def one(folder, name):
    (folder / name).write_text(name)
    return 1


def test_a_log_gets_no_progress_bar(tmp_path, capfd):
    run_jobs([(one, tmp_path, "a")], "test", True, 1)
    assert capfd.readouterr() == ("", "")


def test_a_terminal_gets_a_progress_bar(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    run_jobs([(one, tmp_path, "a")], "test", True, 1)
    assert "test: 1 images" in capsys.readouterr().err


def test_jobs_run_in_turn_in_this_process(tmp_path):
    run_jobs([(one, tmp_path, "a"), (one, tmp_path, "b")], "test", False, 1)
    assert names(tmp_path) == ["a", "b"]
    with pytest.raises(ValueError, match="broken"):
        run_jobs([(fail, "broken"), (one, tmp_path, "c")], "test", False, 1)
    assert names(tmp_path) == ["a", "b"]
