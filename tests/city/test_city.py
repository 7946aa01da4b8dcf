"""The rendered city: camera and kernel against closed forms, facades against homographies, files against the plan."""

import functools
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from pyproj import Geod, Transformer
from scipy.spatial import cKDTree

from vgeo import city, paint
from vgeo.city.light import Light
from vgeo.city.plan import Plan
from vgeo.photos.places import cosplace_classes, open_dataset, positions
from vgeo.photos.names import parse_name
from vgeo.photos.tables import read_photos
from vgeo.city.kernel import NEAR, Camera, Textures, render

PLAN = Plan(
    size=48,
    seed=5,
    train_districts=2,
    images_per_class=1,
    val_districts=1,
    val_queries=10,
    test_districts=1,
    test_queries=10,
    tokyo_districts=1,
    tokyo_places=12,
    night_target=4,
    heading_step=90,
)
EVEN = Light(
    (1.0, 1.0, 1.0),
    (0.0, 0.0, 0.0),
    (0.0, 0.0, 1.0),
    (0.0, 0.0, 1.0),
    (0.0, 0.0, 1.0),
    0.0,
    cloud=0,
    noise=0,
)
CAMERA = Camera(0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 60.0, 64)
TURNED = replace(CAMERA, heading=25.0, pitch=6.0, roll=-7.0)
RED, BLUE = (255, 0, 0, 255), (0, 0, 255, 255)


def in_turn(jobs, what, progress):
    """What `city._run` does, in this process and from the last job to the first."""
    for part, *arguments in reversed(jobs):
        part(*arguments)


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("city")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(city, "_run", in_turn)
        patch.setattr(
            city, "_district", functools.cache(city._district)
        )  # a part's database and queries share one
        city.write_city(PLAN, root)
    return root


@pytest.fixture(scope="session")
def empty_streets():
    """A district without anything that stands before its walls."""
    district = city.District(3, paint.SAN_FRANCISCO, 1, 12)
    district._standing = lambda era, glow: np.zeros((0, 10))
    district._traffic = lambda rng, camera, crowd: np.zeros((0, 10))
    return district


def draw(camera, walls=(), sprites=(), colours=(RED,)):
    """A picture of a few walls (x, y, x, y, height) and sprites in vertical stripes of the colours, left to right."""
    stripes = np.repeat(np.array(colours, np.uint8)[None].repeat(32, 0), 32 // len(colours), 1)
    pool = Textures()
    number = pool.add(stripes)
    walls = np.array([[*wall, 3.0, 3.0, 4.0, 7, 0.5] for wall in walls], float).reshape(-1, 10)
    sprites = np.array([[*sprite, 0.0, 0.0] for sprite in sprites], float).reshape(-1, 8)
    image = np.empty((camera.size, camera.size, 3), np.float32)
    noise, half, lamps = np.full((8, 8), 0.5, np.float32), np.full(2, 3.0), np.zeros((0, 7))
    render(
        camera.size,
        camera.axes(),
        np.array([camera.x, camera.y, camera.z]),
        np.radians(camera.heading),
        np.radians(camera.fov) / 2,
        walls,
        np.full(len(walls), number),
        *pool.packed(),
        noise,
        half,
        half,
        500.0,
        EVEN.vector(),
        lamps,
        1,
        2015,
        sprites,
        np.full(len(sprites), number),
        image,
    )
    return image


def corners(wall, low=0.0):
    """The corners of a wall x, y, x, y, height in space: left and right top, right and left bottom."""
    ax, ay, bx, by, height = wall[:5]
    return np.array([(ax, ay, height), (bx, by, height), (bx, by, low), (ax, ay, low)])


def red(image):
    return (image[..., 0] > 0.3) & (image[..., 2] < 0.1)


# ---- the camera ----


def test_camera_is_a_pinhole():
    half = np.tan(np.radians(30))
    assert np.allclose(CAMERA.project([0, 10, 2]), [32, 32])  # straight ahead
    assert np.allclose(
        CAMERA.project([10 * half, 10, 2]), [64, 32]
    )  # the field of view ends at the right border
    assert np.allclose(CAMERA.project([0, 10, 2 + 10 * half]), [32, 0])  # and at the top
    assert np.allclose(
        replace(CAMERA, heading=90.0).project([10, 0, 2]), [32, 32]
    )  # clockwise from north: east
    assert np.allclose(replace(CAMERA, pitch=45.0).project([0, 10, 12]), [32, 32])  # looking up
    x, y = replace(CAMERA, roll=10.0).project(
        [10 * half, 10, 2]
    )  # turned counter-clockwise, the scene clockwise
    assert np.allclose([x, y], [32 + 32 * np.cos(np.radians(10)), 32 + 32 * np.sin(np.radians(10))])


def test_camera_agrees_with_opencv():
    points = np.array([[3.0, 12.0, 5.0], [-2.0, 20.0, 0.0], [8.0, 15.0, 2.5]])
    axes = TURNED.axes() * [[1], [-1], [1]]  # OpenCV's y points down
    focal = 32 / np.tan(np.radians(30))
    matrix = np.array([[focal, 0, 32], [0, focal, 32], [0, 0, 1]])
    expected, _ = cv2.projectPoints(points, axes, -axes @ [0, 0, 2.0], matrix, None)
    assert np.allclose(TURNED.project(points), expected[:, 0], atol=1e-6)


@pytest.mark.parametrize("camera", [CAMERA, TURNED])
@pytest.mark.parametrize("wall", [(-3.0, 11.0, 4.0, 11.0, 5.0), (1.0, 9.0, 6.0, 14.0, 4.0)])
def test_wall_covers_what_the_camera_projects(camera, wall):
    outline = camera.project(corners(wall)).astype(np.float32)
    mask = red(draw(camera, [wall]))
    assert mask.sum() > 200
    for row, col in np.ndindex(mask.shape):
        inside = cv2.pointPolygonTest(
            outline, (col + 0.5, row + 0.5), True
        )  # pixels to the border, negative outside
        assert mask[row, col] == (inside > 0) or abs(inside) < 1


def test_nearer_wall_hides_and_towers_show_above():
    low, tower = (-20.0, 8.0, 20.0, 8.0, 4.0), (-20.0, 30.0, 20.0, 30.0, 14.0)
    image = draw(CAMERA, [tower, low])
    column = red(image)[:, 32]
    top = int(CAMERA.project([0, 30, 14])[1]), int(CAMERA.project([0, 8, 4])[1])
    assert abs(int(column.argmax()) - top[0]) <= 1
    assert column[top[0] + 1 : top[1] + 3].all()  # no gap between the two
    alone = draw(CAMERA, [low])
    assert np.array_equal(image[top[1] + 1 :], alone[top[1] + 1 :])


def test_wall_that_passes_behind_the_camera_is_seen():
    """A camera close to a wall and turned from it: the wall leaves the view on the left, and ends behind its back."""
    camera = replace(CAMERA, heading=25.0, fov=70.0)
    wall = (-1.0, -20.0, -1.0, 30.0, 5.0)  # its azimuths: 203 (behind, on the right) to 358
    mask = red(draw(camera, [wall]))
    edge = camera.project([-1, 30, 2])[0]
    assert mask[32, : int(edge)].all() and not mask[32, int(edge) + 2 :].any() and edge > 5


@pytest.mark.parametrize("heading, y", [(0.0, 10.0), (180.0, -10.0)])
def test_left_stays_left(heading, y):
    """Walls from their street, and sprites from either side, show the texture as it is, never its mirror image."""
    camera, stripes = replace(CAMERA, heading=heading), (RED, BLUE)
    side = np.sign(y)
    for image in (
        draw(camera, [(-4 * side, y, 4 * side, y, 4.0)], colours=stripes),
        draw(camera, sprites=[(0.0, y, 4.0, 0.0, 0.0, 4.0)], colours=stripes),
    ):
        row = image[32]
        assert row[24, 0] > 0.3 > row[24, 2] and row[40, 2] > 0.3 > row[40, 0]


def test_sprite_covers_what_the_camera_projects():
    sprite, camera = (1.0, 12.0, 2.0, 1.0, 0.5, 4.5), TURNED
    outline = camera.project([(-1, 11, 4.5), (3, 13, 4.5), (3, 13, 0.5), (-1, 11, 0.5)]).astype(
        np.float32
    )
    mask = red(draw(camera, sprites=[sprite]))
    for row, col in np.ndindex(mask.shape):
        inside = cv2.pointPolygonTest(outline, (col + 0.5, row + 0.5), True)
        assert mask[row, col] == (inside > 0) or abs(inside) < 0.1
    before = [(-20.0, 8.0, 20.0, 8.0, 9.0)]
    assert np.array_equal(draw(camera, before, [sprite]), draw(camera, before))


@pytest.mark.parametrize(
    "sprite",
    [
        (1.5, 2.0, 0.3, 15.0, 0.5, 4.5),
        (-0.6, -3.0, 0.1, 15.0, 3.0, 9.0),
        (0.2, 9.0, -1.0, 9.5, 0.0, 1.0),
    ],
)
def test_sprite_that_passes_the_camera_is_seen_where_it_lies_before_it(sprite):
    x, y, ux, uy, low, high = sprite
    mask = red(draw(TURNED, sprites=[sprite]))
    middles = (np.arange(TURNED.size) + 0.5) / TURNED.size * 2 - 1
    right, up = np.meshgrid(middles * np.tan(np.radians(30)), -middles * np.tan(np.radians(30)))
    rays = np.stack([right, up, np.ones_like(up)], -1) @ TURNED.axes()
    depth = (x * uy - y * ux) / (rays[..., 0] * uy - rays[..., 1] * ux)
    points = [TURNED.x, TURNED.y, TURNED.z] + depth[..., None] * rays
    along = ((points[..., 0] - x) * ux + (points[..., 1] - y) * uy) / (ux**2 + uy**2)
    expected = (depth > NEAR) & (abs(along) < 1) & (low < points[..., 2]) & (points[..., 2] < high)
    assert mask.sum() > 50 and (mask != expected).sum() <= 2


# ---- one facade from two places ----


def homography(wall, behind, first, second):
    """From first to second, for the plane `behind` metres behind the wall (OpenCV's pixel centres are integers)."""
    along = wall[2:4] - wall[:2]
    inward = np.array([-along[1], along[0]]) / np.hypot(*along)
    moved = corners([*(wall[:2] + behind * inward), *(wall[2:4] + behind * inward), wall[4]])
    return cv2.getPerspectiveTransform(
        *(camera.project(moved).astype(np.float32) - 0.5 for camera in (first, second))
    )


def opposite(district):
    """The fronts around the block, each with two cameras across the street that look at it from its left and right."""
    for wall in district.walls[::3]:  # a front and two sides for each house
        middle, along = (
            (wall[:2] + wall[2:4]) / 2,
            (wall[2:4] - wall[:2]) / np.hypot(*(wall[2:4] - wall[:2])),
        )
        if not (5 < middle.min() and middle.max() < 95 and abs(middle - 50).min() < 30):
            continue  # across the street, or at a corner
        outward, cameras = np.array([along[1], -along[0]]), []
        for shift, turn in ((-4.0, 14.0), (5.0, -14.0)):
            heading = np.degrees(np.arctan2(*-outward)) + turn
            cameras.append(
                Camera(
                    *(middle + 14 * outward + shift * along),
                    2.5,
                    heading % 360,
                    10.0,
                    2.0,
                    62.0,
                    96,
                )
            )
        yield wall, cameras


def photograph(district, camera):
    return district.photo(camera, EVEN, 201506, np.random.default_rng(0))


def test_facade_from_two_places_is_one_homography(empty_streets):
    scores = []
    for wall, cameras in opposite(empty_streets):
        first, second = (
            cv2.cvtColor(photograph(empty_streets, camera), cv2.COLOR_RGB2GRAY)
            for camera in cameras
        )
        inside = [
            cv2.fillConvexPoly(
                np.zeros((96, 96), np.uint8), camera.project(corners(wall)).astype(np.int32), 1
            )
            for camera in cameras
        ]
        true = homography(wall, 0.0, *cameras)
        seen = (
            cv2.erode(inside[1] & cv2.warpPerspective(inside[0], true, (96, 96)), np.ones((5, 5)))
            > 0
        )
        if seen.sum() < 400:
            continue
        wrong = (
            np.eye(3),
            homography(wall, 2.0, *cameras),
            homography(wall, -2.0, *cameras),
            np.linalg.inv(true),
        )
        warped = [cv2.warpPerspective(first, matrix, (96, 96))[seen] for matrix in (true, *wrong)]
        scores.append([np.corrcoef(part, second[seen])[0, 1] for part in warped])
    scores = np.array(scores)
    assert len(scores) >= 8
    assert (
        np.median(scores[:, 0]) > 0.95
    )  # not of all: a neighbour's side may stand before the house
    assert (scores[:, :1] > scores[:, 1:]).all()
    assert np.median(scores[:, 1:], axis=0).max() < 0.6


def test_photo_shows_roofs_where_the_camera_projects_them(empty_streets):
    """What the homography alone can't tell: that the camera stands and looks where it says."""
    off = []
    for wall, cameras in opposite(empty_streets):
        for camera in cameras:
            col, row = camera.project([*(wall[:2] + wall[2:4]) / 2, wall[4]])
            if 5 < row < 91 and 5 < col < 91:
                sky = (
                    photograph(empty_streets, camera)[:, int(col), 0] < 10
                )  # even light's sky has no red at all
                off.append(int(sky.argmin()) - row)
    assert len(off) >= 8
    assert np.mean(np.abs(off) < 1.5) > 0.7  # others show a taller house behind


# ---- files ----


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def contents(*folders):
    return {path.name: path.read_bytes() for folder in folders for path in Path(folder).iterdir()}


def test_layout(root):
    crops = 40 * 4  # panoramas of a district, directions
    expected = {
        "sf-xs/train": 2 * 48,
        "sf-xs/val/database": crops,
        "sf-xs/val/queries": 10,
        "sf-xs/test/database": crops,
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
    table = read_photos(root / "sf-xs/val/database")
    for _, crops in table.groupby(["utm_east", "utm_north"]):
        assert np.allclose(np.diff(np.sort(crops["heading"])), 90, atol=0.02)
        assert crops["month"].nunique() == 1 and len(crops) == 4
    nearest = cKDTree(positions(table)).query(positions(table), k=5)[0][:, 4]
    assert 6 < nearest.min() and nearest.max() < 16  # the next panorama


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
    mean = {
        kind: np.mean([cv2.imread(str(path)).mean() for path in folder.glob(f"*@{kind}@.jpg")])
        for kind in ("day", "sunset", "night")
    }
    assert mean["night"] < 0.9 * mean["sunset"] and mean["night"] < 0.8 * mean["day"], mean


def test_parts_share_no_place(root):
    parts = [
        root / "sf-xs/train",
        root / "sf-xs/val/database",
        root / "sf-xs/test/database",
        root / "tokyo-xs/test/database",
        root / "night_target",
    ]
    places = []
    for part in parts:
        fields = [parse_name(path) for path in part.iterdir()]
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


def test_training_images_are_one_group(root):
    table = read_photos(root / "sf-xs/train")
    classes = cosplace_classes(table, min_images=PLAN.images_per_class)
    assert len(classes) == len(table) and classes.attrs["classes"] == PLAN.train_districts * 48
    assert (classes["label"].value_counts() == PLAN.images_per_class).all()


def test_seed_decides_every_byte(root, tmp_path):
    """`root` was made in this process, from the last job to the first; here one job in a process of its own."""
    train, other = tmp_path / "train", tmp_path / "other"
    train.mkdir()
    other.mkdir()
    city._run([(city._train_part, PLAN, "train", 1, train)], "", False)
    assert contents(train) == {
        name: data for name, data in contents(root / "sf-xs/train").items() if "@train1" in name
    }
    city._query_part(replace(PLAN, seed=6), "target", 0, {"night": other}, PLAN.night_target, 2)
    images = contents(root / "night_target")
    assert len(names(other)) == 2
    assert not set(names(other)) & set(images) and not set(contents(other).values()) & set(
        images.values()
    )


def test_no_two_images_are_the_same(root):
    images = list(contents(root / "sf-xs/train", root / "sf-xs/val/database").values())
    assert len(set(images)) == len(images)


# ---- noise ----


@pytest.mark.parametrize("power", [0.5, 1.0, 1.6])
def test_cloud_noise_tiles_and_is_equalised(power):
    size = 64
    noise = paint.cloud_noise(np.random.default_rng(2), size, power)
    assert noise.dtype == np.float32
    assert np.array_equal(
        np.sort(noise.ravel()), np.arange(size * size, dtype=np.float32) / (size * size)
    )
    for axis in (0, 1):
        steps = np.abs(noise - np.roll(noise, 1, axis)).mean(
            1 - axis
        )  # the first is from the last line to the first
        assert steps[0] < 1.3 * steps.mean()


def test_cloud_noise_is_smoother_with_power():
    rough, soft = (paint.cloud_noise(np.random.default_rng(2), 64, power) for power in (0.5, 1.6))
    assert np.abs(np.diff(soft)).mean() < 0.6 * np.abs(np.diff(rough)).mean()
