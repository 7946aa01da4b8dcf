"""The camera and the kernel against closed forms, OpenCV and rays that are followed one by one."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from vgeo.city import kernel
from vgeo.city.cameras import Camera
from vgeo.city.kernel import LAMP, NEAR, SPRITE, WALL, Moment, Scene, Textures, render

CAMERA = Camera(0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 60.0, 64)
TURNED = replace(CAMERA, heading=25.0, pitch=6.0, roll=-7.0)
RED, BLUE = (255, 0, 0, 255), (0, 0, 255, 255)


@pytest.fixture
def draw(even):
    def draw(camera, walls=(), sprites=(), colours=(RED,), light=even, lamps=()):
        """Walls (x, y, x, y, height) and sprites (x, y, half x, half y, low, high) in even light.

        Both are painted in vertical stripes of the colours, left to right.
        """
        stripes = np.repeat(np.array(colours, np.uint8)[None].repeat(32, 0), 32 // len(colours), 1)
        pool = Textures()
        texture = pool.add(stripes)
        walls = [(wall[:2], wall[2:4], wall[4], 3.0, 3.0, 4.0, 0.5, 7, texture) for wall in walls]
        sprites = [(s[:2], s[2:4], s[4], s[5], 0.0, 0.0, texture, False) for s in sprites]
        noise, half = np.full((8, 8), 0.5, np.float32), np.full(2, 3.0)
        scene = Scene(np.array(walls, WALL), *pool.packed(), noise, half, half, 500.0)
        moment = Moment(1, 2015, np.array(list(lamps), LAMP), np.array(sprites, SPRITE))
        return render(camera.view(camera.size), scene, light.rays(), moment)

    return draw


def red(image):
    return (image[..., 0] > 0.3) & (image[..., 2] < 0.1)


def distances(mask, outline):
    """(pixel of the mask, how many pixels its centre lies inside the outline) of all pixels."""
    outline = outline.astype(np.float32)
    for row, col in np.ndindex(mask.shape):
        yield mask[row, col], cv2.pointPolygonTest(outline, (col + 0.5, row + 0.5), True)


# ---- the camera ----


def test_camera_is_a_pinhole():
    half = np.tan(np.radians(30))
    assert np.allclose(CAMERA.project([0, 10, 2]), [32, 32])  # straight ahead
    assert np.allclose(CAMERA.project([10 * half, 10, 2]), [64, 32])  # the right border
    assert np.allclose(CAMERA.project([0, 10, 2 + 10 * half]), [32, 0])  # the upper border
    assert np.allclose(replace(CAMERA, heading=90.0).project([10, 0, 2]), [32, 32])  # east
    assert np.allclose(replace(CAMERA, pitch=45.0).project([0, 10, 12]), [32, 32])  # looking up
    # the camera is turned counter-clockwise, the scene clockwise
    place = replace(CAMERA, roll=10.0).project([10 * half, 10, 2])
    angle = np.radians(10)
    assert np.allclose(place, [32 + 32 * np.cos(angle), 32 + 32 * np.sin(angle)])


def test_camera_agrees_with_opencv():
    points = np.array([[3.0, 12.0, 5.0], [-2.0, 20.0, 0.0], [8.0, 15.0, 2.5]])
    axes = TURNED.axes() * [[1], [-1], [1]]  # OpenCV's y points down
    focal = 32 / np.tan(np.radians(30))
    matrix = np.array([[focal, 0, 32], [0, focal, 32], [0, 0, 1]])
    expected, _ = cv2.projectPoints(points, axes, -axes @ [0, 0, 2.0], matrix, None)
    assert np.allclose(TURNED.project(points), expected[:, 0], atol=1e-6)


# ---- walls ----


@pytest.mark.parametrize("camera", [CAMERA, TURNED])
@pytest.mark.parametrize("wall", [(-3.0, 11.0, 4.0, 11.0, 5.0), (1.0, 9.0, 6.0, 14.0, 4.0)])
def test_wall_covers_what_the_camera_projects(camera, wall, draw, corners):
    outline = camera.project(corners(wall[:2], wall[2:4], wall[4]))
    mask = red(draw(camera, [wall]))
    assert mask.sum() > 200
    for seen, inside in distances(mask, outline):
        assert seen == (inside > 0) or abs(inside) < 1


def test_nearer_wall_hides_and_towers_show_above(draw):
    low, tower = (-20.0, 8.0, 20.0, 8.0, 4.0), (-20.0, 30.0, 20.0, 30.0, 14.0)
    image = draw(CAMERA, [tower, low])
    column = red(image)[:, 32]
    top = int(CAMERA.project([0, 30, 14])[1]), int(CAMERA.project([0, 8, 4])[1])
    assert abs(int(column.argmax()) - top[0]) <= 1
    assert column[top[0] + 1 : top[1] + 3].all()  # no gap between the two
    alone = draw(CAMERA, [low])
    assert np.array_equal(image[top[1] + 1 :], alone[top[1] + 1 :])


def test_wall_that_passes_behind_the_camera_is_seen(draw):
    """A wall that leaves the view on the left and ends behind the camera's back."""
    camera = replace(CAMERA, heading=25.0, fov=70.0)
    wall = (-1.0, -20.0, -1.0, 30.0, 5.0)  # its azimuths: 203 (behind, on the right) to 358
    mask = red(draw(camera, [wall]))
    edge = camera.project([-1, 30, 2])[0]
    assert mask[32, : int(edge)].all() and not mask[32, int(edge) + 2 :].any() and edge > 5


@pytest.mark.parametrize("heading, y", [(0.0, 10.0), (180.0, -10.0)])
def test_left_stays_left(heading, y, draw):
    """Walls from their street, and sprites from either side, never show their mirror image."""
    camera, stripes = replace(CAMERA, heading=heading), (RED, BLUE)
    side = np.sign(y)
    wall, sprite = (-4 * side, y, 4 * side, y, 4.0), (0.0, y, 4.0, 0.0, 0.0, 4.0)
    for scene in ({"walls": [wall]}, {"sprites": [sprite]}):
        row = draw(camera, **scene, colours=stripes)[32]
        assert row[24, 0] > 0.3 > row[24, 2] and row[40, 2] > 0.3 > row[40, 0]


# ---- sprites ----


def test_sprite_covers_what_the_camera_projects(draw, corners):
    sprite, camera = (1.0, 12.0, 2.0, 1.0, 0.5, 4.5), TURNED
    outline = camera.project(corners((-1, 11), (3, 13), 4.5, 0.5))
    for seen, inside in distances(red(draw(camera, sprites=[sprite])), outline):
        assert seen == (inside > 0) or abs(inside) < 0.1
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
def test_sprite_that_passes_the_camera_is_seen_where_it_lies_before_it(sprite, draw):
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


# ---- light ----


def test_wall_in_even_light_has_its_colour(draw):
    """Linear light is the square of the texture; below 9 m a wall sees less of the sky."""
    wall = (-5.0, 10.0, 5.0, 10.0, 9.0)
    full = draw(CAMERA, [wall], colours=((255, 255, 255, 255),))
    half = draw(CAMERA, [wall], colours=((51, 102, 153, 255),))
    ratio = half[32, 32] / full[32, 32]
    assert np.allclose(ratio, np.square([0.2, 0.4, 0.6]), atol=1e-5)
    assert np.allclose(full[32, 32], full[32, 32, 0])
    column = full[20:32, 32, 0]  # from high on the wall to the height of the camera
    assert (np.diff(column) < 0).all()


def test_sun_lights_the_walls_that_face_it(draw, even):
    """High on a wall, where no house across the street gives shade."""
    wall = (-40.0, 30.0, 40.0, 30.0, 60.0)
    camera = replace(CAMERA, pitch=45.0)
    shaded = draw(camera, [wall], light=even)
    for azimuth in (180.0, 120.0, 60.0, 0.0):  # the wall looks south
        x, y = np.sin(np.radians(azimuth)), np.cos(np.radians(azimuth))
        light = replace(even, sun=(x * 0.8, y * 0.8, 0.6), sun_colour=(2.0, 2.0, 2.0))
        lit = draw(camera, [wall], light=light)[32, 32, 0] / shaded[32, 32, 0]
        expected = 1 + 2.0 * max(-y * 0.8, 0.0)  # so high the ambient light is whole
        assert np.isclose(lit, expected, rtol=1e-4), azimuth


def test_light_of_a_lamp_falls_with_the_distance(draw, even):
    """A camera that looks down on the pavement; both lights fall on the same colours."""
    dark = replace(even, ambient=(0.0, 0.0, 0.0), lamp=10.0)
    down = replace(CAMERA, z=10.0, pitch=-90.0)
    lamp = ((0.0, 0.0, 3.0), 2.0, (1.0, 0.5, 0.25))
    assert not draw(down, light=dark).any()
    ratio = draw(down, light=dark, lamps=[lamp]) / (draw(down, light=even) / 0.85)
    metres = 10.0 * np.tan(np.radians(30)) * ((np.arange(64) + 0.5) / 32 - 1)
    square = metres**2 + metres[:, None] ** 2 + 3.0**2
    expected = 10.0 * 2.0 * 3.0 / np.sqrt(square) / (square + 3.0)  # the cosine and the distance
    assert np.allclose(ratio, expected[..., None] * lamp[2], rtol=1e-4)


def test_haze_hides_what_is_far(draw, even):
    near, far = (-30.0, 10.0, 30.0, 10.0, 40.0), (-30.0, 25.0, 30.0, 25.0, 90.0)
    light = replace(even, haze=0.05)
    for wall, distance in ((near, 10), (far, 25)):
        clear, hazy = draw(CAMERA, [wall]), draw(CAMERA, [wall], light=light)
        seen = np.exp(-0.05 * distance)
        expected = clear[32, 32] * seen + np.array([0.0, 0.0, 1.0]) * (1 - seen)
        assert np.allclose(hazy[32, 32], expected, atol=0.01)


def test_own_arithmetic_is_that_of_the_library():
    for x in (0.0, 1e-9, 0.01, 0.5, 3.0, 8.0, 40.0, 1e9):
        assert np.isclose(kernel._fading(x), np.exp(-x), rtol=1e-6, atol=1e-7)
        for sign in (-1, 1):
            rest = kernel._rest(sign * x, 1.1)
            assert x > 1e6 or np.isclose(rest, np.mod(sign * x, 1.1), atol=1e-9)


def test_textures_are_read_at_the_level_of_their_distance():
    pool = Textures()
    image = np.random.default_rng(0).integers(0, 256, (48, 32, 4), dtype=np.uint8)
    assert [pool.add(image), pool.add(image[:5, :3])] == [0, 1]
    data, table = pool.packed()
    for number, first in ((0, image), (1, image[:5, :3])):
        for level, (start, height, width) in enumerate(table[number]):
            expected = [max(1, side >> level) for side in first.shape[:2]]
            assert [height, width] == expected
            texels = data[start : start + height * width]
            texels = np.stack([texels >> shift & 255 for shift in (0, 8, 16, 24)], 1)
            texels = texels.reshape(height, width, 4)
            mean = first.reshape(-1, 4).mean(0)
            assert abs(texels.reshape(-1, 4).mean(0) - mean).max() < (3 if number == 0 else 60)
            if level == 0:
                assert np.array_equal(texels, first)


def test_street_mirrors_a_lamp_along_the_way_to_it(draw, even):
    """The streak lies below the lamp's own place in the photo, and the other ground has none."""
    night = replace(even, ambient=(0.01, 0.01, 0.01), zenith=(0.0,) * 3, horizon=(0.0,) * 3)
    night = replace(night, sun_colour=(0.0,) * 3, lamp=20.0)
    lamp = ((6.0, 60.0, 5.8), 1.0, (1.0, 0.5, 0.25))
    image = draw(replace(CAMERA, pitch=-6.0), light=night, lamps=[lamp])
    col, row = replace(CAMERA, pitch=-6.0).project(lamp[0]).astype(int)
    ground = image[row + 8 : 52].mean(0)  # nearer than the light that the lamp casts on the street
    streak = int(ground[:, 0].argmax())
    assert abs(streak - col) <= 1
    assert ground[streak, 0] > 3 * np.median(ground[:, 0])
    assert np.allclose(ground[streak] / ground[streak, 0], lamp[2], atol=0.15)
