"""Houses in rows, facades that look alike from two places, furniture, traffic, signs."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from vgeo.city.cameras import Camera, panoramas, phone_camera
from vgeo.city.district import FAR, District, _visible
from vgeo.city.kernel import SPRITE
from vgeo.city.light import DARK, LIGHTS
from vgeo.city.paint import TOKYO
from vgeo.city.plan import SPACING

PLACES = panoramas(1, 10)
DAY, NIGHT = (LIGHTS[kind](np.random.default_rng(0)) for kind in ("day", "night"))


@pytest.fixture(scope="module")
def district():
    return District(8, TOKYO, 1, 5)


@pytest.fixture
def photograph(empty_streets, even):
    def photograph(camera):
        return empty_streets.photo(camera, even, 201506, np.random.default_rng(0), crowd=0)

    return photograph


# ---- one facade from two places ----


def homography(wall, behind, first, second, corners):
    """From the first camera's pixels to the second's, for the plane `behind` metres in the house.

    OpenCV's pixel centres are integers.
    """
    along = wall["right"] - wall["left"]
    inward = np.array([-along[1], along[0]]) / np.hypot(*along) * behind
    moved = corners(wall["left"] + inward, wall["right"] + inward, wall["height"])
    pixels = (camera.project(moved).astype(np.float32) - 0.5 for camera in (first, second))
    return cv2.getPerspectiveTransform(*pixels)


def opposite(district):
    """Fronts around the block, each with two cameras across the street, left and right of it."""
    for wall in district.scene.walls[::3]:  # a front and two sides for each house
        middle, along = (wall["left"] + wall["right"]) / 2, wall["right"] - wall["left"]
        along = along / np.hypot(*along)
        if not (middle.min() > 5 and middle.max() < 95 and abs(middle - 50).min() < 30):
            continue  # across the street, or at a corner
        outward, cameras = np.array([along[1], -along[0]]), []
        for shift, turn in ((-4.0, 14.0), (5.0, -14.0)):
            heading, place = np.degrees(np.arctan2(*-outward)), middle + 14 * outward
            place = place + shift * along
            cameras.append(Camera(*place, 2.5, (heading + turn) % 360, 10.0, 2.0, 62.0, 96))
        yield wall, cameras


def test_facade_from_two_places_is_one_homography(empty_streets, photograph, corners):
    scores = []
    for wall, cameras in opposite(empty_streets):
        first, second = (cv2.cvtColor(photograph(each), cv2.COLOR_RGB2GRAY) for each in cameras)
        outline = corners(wall["left"], wall["right"], wall["height"])
        inside = [
            cv2.fillConvexPoly(
                np.zeros((96, 96), np.uint8), each.project(outline).astype(np.int32), 1
            )
            for each in cameras
        ]
        true = homography(wall, 0.0, *cameras, corners)
        both = inside[1] & cv2.warpPerspective(inside[0], true, (96, 96))
        seen = cv2.erode(both, np.ones((5, 5))) > 0
        if seen.sum() < 400:
            continue
        moved = (homography(wall, behind, *cameras, corners) for behind in (2.0, -2.0))
        matrices = true, np.eye(3), *moved, np.linalg.inv(true)
        warped = [cv2.warpPerspective(first, matrix, (96, 96))[seen] for matrix in matrices]
        scores.append([np.corrcoef(each, second[seen])[0, 1] for each in warped])
    scores = np.array(scores)
    assert len(scores) >= 8
    assert np.median(scores[:, 0]) > 0.95  # not of all: a neighbour's side may stand before it
    assert (scores[:, :1] > scores[:, 1:]).all()
    assert np.median(scores[:, 1:], axis=0).max() < 0.6


def test_photo_shows_roofs_where_the_camera_projects_them(empty_streets, photograph):
    """The homography alone can't tell that the camera stands and looks where it says."""
    off = []
    for wall, cameras in opposite(empty_streets):
        for camera in cameras:
            roof = [*(wall["left"] + wall["right"]) / 2, wall["height"]]
            col, row = camera.project(roof)
            if 5 < row < 91 and 5 < col < 91:
                sky = photograph(camera)[:, int(col), 0] < 10  # even light's sky has no red at all
                off.append(int(sky.argmin()) - row)
    assert len(off) >= 8
    assert np.mean(np.abs(off) < 1.5) > 0.7  # others show a taller house behind


# ---- houses ----


@pytest.mark.parametrize("place", ["empty_streets", "district"])
def test_houses_stand_wall_to_wall_along_every_street(place, request):
    district = request.getfixturevalue(place)
    style = district.paints.style
    fronts = district.scene.walls[::3]
    middle, along = (fronts["left"] + fronts["right"]) / 2, fronts["right"] - fronts["left"]
    widths = np.hypot(*along.T)
    outward = np.stack([along[:, 1], -along[:, 0]], 1) / widths[:, None]
    for street in district.streets:
        for side in (-1, 1):
            distance = side * (middle @ street.normal - street.middle)  # off the street's middle
            row = (outward @ street.normal * side < -0.99) & (distance > 0)
            row &= distance < street.half + style.setback + 1e-6
            assert (distance[row] >= street.half - 1e-6).all()
            inner = row & (middle @ street.axis > 0) & (middle @ street.axis < 100)
            assert 100 - 2 * style.street[1] - 1e-6 <= widths[inner].sum() <= 100
    assert widths.max() <= style.lot[1] + style.lot[0] * 0.7 + 1e-6
    assert (fronts["height"] >= 3.3 + style.floors[0] * 2.7).all()
    sides = district.scene.walls[np.arange(len(district.scene.walls)) % 3 > 0]
    assert (np.repeat(fronts["house"], 2) == sides["house"]).all()


def test_houses_far_from_all_cameras_have_half_the_texels_of_a_metre(district):
    fronts, end = district.scene.walls[::3], district.blocks * SPACING
    middle = (fronts["left"] + fronts["right"]) / 2
    off = np.maximum(-middle, middle - end).max(1)  # metres off the square of the streets
    density = district.scene.table[fronts["texture"], 0, 1] / fronts["height"]
    setback = TOKYO.setback  # a front may stand that far behind the side of its block
    near, far = density[off <= FAR], density[off > FAR + setback]
    assert len(near) > 20 and len(far) > 20
    assert np.median(far) == pytest.approx(np.median(near) / 2, rel=0.05)
    assert far.max() < near.min()


def test_furniture_stands_on_the_pavement(district):
    # wires hang above the street, and poles stand at crossings too
    hung = np.isin(district.furniture["texture"], [*district.stock.poles, district.stock.wires])
    place = district.furniture["place"][~hung]
    off = [abs(place @ each.normal - each.middle) - each.half for each in district.streets]
    nearest = np.min(off, axis=0)
    assert (nearest < 0.5).all()  # nothing inside a house
    assert (nearest > -3.7).all()  # nor on a carriageway
    lamps = district.lamps["place"]
    assert len(lamps) > 20 and (lamps[:, 2] == 5.8).all()


# ---- what a moment changes ----


def shot(district, seed=0, month=201506, crowd=1.0, light="day", **view):
    camera = replace(Camera(2.0, 50.0, 1.6, 20.0, 2.0, 0.0, 60.0, 48), **view)
    rng = np.random.default_rng
    return district.photo(camera, LIGHTS[light](rng(1)), month, rng(seed), crowd)


def test_the_generator_decides_the_photo(district):
    first, again, other = shot(district, 1), shot(district, 1), shot(district, 2)
    assert first.dtype == np.uint8 and first.shape == (48, 48, 3)
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_the_seed_decides_the_district(district):
    same, other = (District(seed, TOKYO, 1, 5) for seed in (8, 9))
    for name in ("walls", "texels", "table"):
        assert np.array_equal(getattr(district.scene, name), getattr(same.scene, name))
    assert np.array_equal(shot(district), shot(same))
    assert not np.array_equal(shot(district), shot(other))


def test_crowds_are_people_and_moving_cars(district):
    here = np.array([50.0, 0.0])
    people, cars = {}, {}
    for crowd in (0.0, 1.0, 4.0):
        people[crowd], cars[crowd] = [], []
        for seed in range(60):
            rng = np.random.default_rng(seed)
            cars[crowd].append(sum(map(len, district._cars(rng, here, crowd, DAY))))
            people[crowd].append(sum(map(len, district._people(rng, here, crowd))))
    assert max(people[0.0]) == 0 and min(cars[0.0]) > 0  # parked cars stay
    assert np.isclose(np.mean(people[4.0]) / np.mean(people[1.0]), 4, rtol=0.15)
    assert np.mean(cars[4.0]) > np.mean(cars[1.0]) > np.mean(cars[0.0])


def test_traffic_is_on_the_streets(district):
    here = np.array([50.0, 0.0])
    for seed in range(20):
        rng = np.random.default_rng(seed)
        for rows in district._cars(rng, here, 1.0, DAY) + district._people(rng, here, 1.0):
            off = [
                abs(rows["place"] @ street.normal - street.middle) - street.half
                for street in district.streets
            ]
            assert (np.min(off, axis=0) < -0.2).all()
            assert (np.hypot(*(rows["place"] - here).T) > 1.5).all()


def test_moving_cars_have_lights_by_night(district):
    here, lights = np.array([50.0, 0.0]), (district.stock.headlight, district.stock.tail_light)
    shining = 0
    for seed in range(20):
        day, night = (
            district._cars(np.random.default_rng(seed), here, 3.0, light) for light in (DAY, NIGHT)
        )
        assert all(np.array_equal(*pair) for pair in zip(day, night, strict=False))
        assert not np.isin(np.concatenate(day)["texture"], lights).any()
        white, red = np.array_split(np.concatenate([np.zeros(0, SPRITE), *night[len(day) :]]), 2)
        assert set(white["texture"]) <= {lights[0]} and set(red["texture"]) <= {lights[1]}
        assert len(white) == len(red) and (white["glow"] > red["glow"]).all()
        shining += len(white)
        apart = np.hypot(*(white["place"] - red["place"]).T)  # the length of the car
        assert ((apart > 3.7) & (apart < 8.6)).all()
    assert shining > 40


def test_brightness_of_the_hours(district):
    """Night is as much darker than day as in photographs of Tokyo, and its lamps saturate."""
    bright = {kind: [] for kind in LIGHTS}
    for seed in range(24):
        rng = np.random.default_rng(seed)
        x, y, _ = PLACES[rng.integers(len(PLACES))]
        camera = phone_camera(x, y, rng.uniform(0, 360), 64, rng)
        for kind in LIGHTS:
            rng = np.random.default_rng([seed, 1])
            bright[kind].append(district.photo(camera, LIGHTS[kind](rng), 201801, rng))
    mean = {kind: np.mean(images) for kind, images in bright.items()}
    assert 0.40 < mean["night"] / mean["day"] < 0.55
    assert 0.65 < mean["sunset"] / mean["day"] < 0.9
    night = np.array(bright["night"])
    assert 0.001 < (night.max(-1) >= 250).mean() < 0.02 and (night.mean(-1) < 16).mean() > 0.02


def test_lamps_shine_by_night(district):
    """A photo of a lamp from below has a saturated spot at the lamp, and by day none."""
    lamp = district.lamps["place"][0]
    camera = Camera(lamp[0], lamp[1] - 8.0, 1.6, 0.0, 27.0, 0.0, 50.0, 48)
    col, row = camera.project(lamp).astype(int)
    plain = replace(NIGHT, glow=0.0, noise=0.0)
    by_night = district.photo(camera, plain, 201506, np.random.default_rng(0), crowd=0)
    spot = by_night[row - 2 : row + 3, col - 2 : col + 3].min(-1).max()
    assert spot > 245 and plain.lamp >= DARK
    assert spot > np.percentile(by_night.min(-1), 97)


def test_a_quarter_of_the_houses_change_their_signs(district):
    before, same, after = (district._signs(era, 0.5) for era in (671, 671, 672))
    assert np.array_equal(before, same) and len(before) > 20
    changed = before["texture"] != after["texture"]
    changing = district.signs["house"] % 4 == 0
    assert changed.any() and not (changed & ~changing).any()
    shining = district.signs["house"] % 3 > 0
    assert np.array_equal(before["glow"] > 0, shining)
    out = before["place"] - district.signs["place"]
    assert (np.einsum("ni,ni->n", out, district.signs["out"]) <= 0.25 + 1e-9).all()


def test_sprites_are_seen_from_the_farthest_to_the_nearest():
    rng = np.random.default_rng(0)
    sprites = np.zeros(300, SPRITE)
    sprites["place"], sprites["half"] = rng.uniform(-120, 120, (300, 2)), rng.normal(size=(300, 2))
    sprites["board"], sprites["texture"] = rng.random(300) < 0.5, np.arange(300)
    here, heading = np.array([10.0, -5.0]), 70.0
    seen = _visible([sprites[:100], sprites[100:]], here, heading)
    offset = seen["place"] - here
    away = np.hypot(*offset.T)
    assert (np.diff(away) <= 0).all() and 30 < len(seen) < 200
    look = np.array([np.sin(np.radians(heading)), np.cos(np.radians(heading))])
    left_out = np.delete(sprites, seen["texture"])["place"] - here
    assert ((np.hypot(*left_out.T) >= 85) | (left_out @ look <= -4)).all()
    old = sprites[seen["texture"]]
    assert np.allclose(np.hypot(*seen["half"].T), np.hypot(*old["half"].T))
    board = seen["board"]
    assert np.array_equal(seen[~board], old[~board])
    assert np.allclose(np.einsum("ni,ni->n", seen["half"], offset)[board], 0, atol=1e-9)
