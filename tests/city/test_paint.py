"""Noise and textures."""

from copy import copy

import numpy as np
import pytest

from vgeo.city import paint

SCALE = 8.0  # pixels per metre


@pytest.fixture(scope="module")
def make():
    """Paints of a seed and a style, all with the same noise."""
    noise = paint.Paints(np.random.default_rng(0), paint.SAN_FRANCISCO)

    def make(seed=0, style=paint.SAN_FRANCISCO):
        paints = copy(noise)
        paints.rng, paints.style = np.random.default_rng(seed), style
        return paints

    return make


# ---- noise ----


@pytest.mark.parametrize("power", [0.5, 1.0, 1.6])
def test_cloud_noise_tiles_and_is_equalised(power):
    size = 64
    noise = paint.cloud_noise(np.random.default_rng(2), size, power)
    assert noise.dtype == np.float32
    levels = np.arange(size * size, dtype=np.float32) / (size * size)
    assert np.array_equal(np.sort(noise.ravel()), levels)
    for axis in (0, 1):
        # the first step is from the last line to the first
        steps = np.abs(noise - np.roll(noise, 1, axis)).mean(1 - axis)
        assert steps[0] < 1.3 * steps.mean()


def test_cloud_noise_is_smoother_with_power():
    rough, soft = (paint.cloud_noise(np.random.default_rng(2), 64, power) for power in (0.5, 1.6))
    assert np.abs(np.diff(soft)).mean() < 0.6 * np.abs(np.diff(rough)).mean()


def test_pieces_of_noise(make):
    paints = make()
    for h, w, more in ((40, 30, {}), (1, 1, {}), (700, 20, {"zoom": 2.0}), (90, 9, {"aspect": 14})):
        piece = paints.cut(h, w, **more)
        assert piece.shape == (h, w) and piece.min() >= 0 and piece.max() <= 1
    steps = [np.abs(np.diff(paints.cut(200, 200, zoom=zoom), axis=1)).mean() for zoom in (1, 4)]
    assert steps[1] < 0.6 * steps[0]  # larger blobs
    tall = paints.cut(200, 200, aspect=8.0)
    assert np.abs(np.diff(tall, axis=0)).mean() < 0.5 * np.abs(np.diff(tall, axis=1)).mean()


@pytest.mark.parametrize(
    "h, w, bh, bw", [(1, 1, 2, 4), (9, 40, 3, 5), (57, 5, 2, 9), (8, 30, 9, 4)]
)
def test_bricks_are_laid_half_a_brick_apart(h, w, bh, bw):
    shade, joint = paint._bricks(h, w, bh, bw, np.random.default_rng(0))
    numbers = {}
    for y, x in np.ndindex(h, w):
        row, along = y // bh, x + (y // bh) % 2 * (bw // 2)
        assert joint[y, x] == (y % bh == 0 or along % bw == 0)
        assert shade[y, x] == numbers.setdefault((row, along // bw), shade[y, x])
    assert len(set(numbers.values())) == len(numbers)  # each brick has a shade of its own


# ---- styles ----


@pytest.mark.parametrize("style", [paint.SAN_FRANCISCO, paint.TOKYO])
def test_styles_name_materials_and_colours(style):
    check(style)


def test_random_styles_are_styles():
    styles = [paint.random_style(np.random.default_rng(seed)) for seed in range(30)]
    for style in styles:
        check(style)
    assert len({style.walls for style in styles}) == 30


def check(style):
    assert set(style.materials) <= set(paint.MATERIALS)
    assert all(len(wall) == 3 and min(wall) >= 0 and max(wall) <= 255 for wall in style.walls)
    for low, high in (style.floors, style.lot, style.street):
        assert 0 < low <= high
    for share in (style.shops, style.blades, style.trees, style.wires, style.cornice, style.bay):
        assert 0 <= share <= 1


# ---- textures ----


@pytest.mark.parametrize("material", paint.MATERIALS)
def test_walls_have_their_colour(material, make):
    colour = (150, 120, 90)
    wall = paint.wall_surface(make(), 60, 80, SCALE, colour, material)
    assert wall.dtype == np.uint8 and wall.shape == (60, 80, 3)
    mean = wall.reshape(-1, 3).mean(0) / colour
    assert mean.min() > 0.4 and mean.max() < 1.4 and np.ptp(mean) < 0.5
    assert wall.std(axis=(0, 1)).min() > 1  # not flat
    again, other = (
        paint.wall_surface(make(seed), 60, 80, SCALE, colour, material) for seed in (0, 1)
    )
    assert np.array_equal(wall, again) and not np.array_equal(wall, other)


@pytest.mark.parametrize("style", [paint.SAN_FRANCISCO, paint.TOKYO])
def test_facades_have_windows_that_can_be_lit(style, make):
    paints = make(1, style)
    for width, floors, storey in ((6.0, 2, 3.0), (11.0, 4, 2.8), (5.0, 1, 3.3)):
        bay = width / 3
        image = paint.facade(paints, width, floors, 4.0, storey, bay, SCALE)
        height = 4.0 + floors * storey
        assert image.shape == (round(height * SCALE), round(width * SCALE), 4)
        lit = image[..., 3] > 8
        upper = lit[: -int(4.0 * SCALE)]
        assert 0.05 < upper.mean() < 0.7
        # the wall between two storeys has no window
        floor = round((height - 4.0 - storey * (floors - 1)) * SCALE)
        assert lit[floor - 2 : floor + 2].mean() < 0.3
    assert not np.array_equal(*(paint.facade(paints, 6.0, 2, 4.0, 3.0, 2.0, SCALE) for _ in "ab"))


def test_sprites_are_cut_out_and_of_their_size(make):
    paints = make(4)
    car, colour = paint.car_side(paints, 4.5, 1.5, SCALE)
    bus, _ = paint.car_side(paints, 8.0, 3.0, SCALE, boxy=True)
    for image, width, height, least, most in (
        (paint.tree(paints, 5.0, 7.0, SCALE), 5.0, 7.0, 0.2, 0.8),
        (paint.tree(paints, 4.0, 9.0, SCALE, palm=True), 4.0, 9.0, 0.02, 0.4),
        (car, 4.5, 1.5, 0.4, 0.9),
        (bus, 8.0, 3.0, 0.7, 1.0),
        (paint.car_end(paints, 1.8, 1.5, SCALE, colour), 1.8, 1.5, 0.5, 1.0),
        (paint.person(paints, SCALE), 0.7, 1.75, 0.2, 0.8),
        (paint.lamp_post(SCALE), 2.0, 6.0, 0.02, 0.3),
        (paint.pole(paints, SCALE), 2.4, 9.0, 0.05, 0.4),
        (paint.wires(SCALE), 30.0, 2.2, 0.02, 0.4),
        (paint.traffic_light(paints, SCALE), 0.9, 4.2, 0.1, 0.6),
        (paint.sign(paints, 1.0, 3.0, SCALE), 1.0, 3.0, 1.0, 1.0),
    ):
        assert image.dtype == np.uint8
        assert image.shape == (*(max(4, round(side * SCALE)) for side in (height, width)), 4)
        assert least <= (image[..., 3] > 0).mean() <= most
    for _ in range(30):
        image = paint.clutter(paints, SCALE)
        assert image[..., 3].any() and max(image.shape[:2]) <= round(1.85 * SCALE)


@pytest.mark.parametrize("style", [paint.SAN_FRANCISCO, paint.TOKYO])
def test_signs_carry_writing(style, make):
    paints, written = make(0, style), []
    for _ in range(20):
        image = paint.sign(paints, 2.0, 1.0, 30.0)
        inner = image[4:-4, 4:-4, :3].reshape(-1, 3)  # without the border
        colours, counts = np.unique(inner, axis=0, return_counts=True)
        board = colours[counts.argmax()].astype(int)
        written.append((np.abs(inner - board).sum(1) > 60).mean())
    assert 0.05 < np.mean(written) < 0.5
