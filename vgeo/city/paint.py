"""Painted textures of the city: facades and sprites (trees, cars, people, signs), from a style and a random generator.

Every image is uint8 (H, W, 4). The fourth channel is opacity for sprites; on facades it marks what is lit from inside
at night. Of the arguments, p is the district's `Paints`, scale (or s) the pixels per metre.
"""

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Style:
    """What a quarter is built like. Sizes in metres, shares in 0..1, colours RGB in 0..255."""

    walls: tuple  # facade colours
    materials: tuple  # names of `MATERIALS`, repeated by weight
    floors: tuple = (2, 4)  # above the ground floor
    lot: tuple = (6.0, 13.0)  # width of a house
    street: tuple = (8.5, 10.5)  # half width between facades
    setback: float = 0.8  # the most that a house stands back from its neighbours
    shops: float = 0.5  # share of houses with a shop front
    blades: float = 0.3  # share of houses with a sign across the sidewalk
    trees: float = 0.4  # share of streets with trees, over 1.6
    wires: float = 0.3  # share of streets with poles and wires
    cornice: float = 0.6  # shares of houses, bay: of a house's window columns
    bay: float = 0.3
    balcony: float = 0.2
    kanji: bool = False  # how signs are written
    palms: bool = False


SAN_FRANCISCO = Style(
    walls=(
        (214, 198, 170),
        (188, 200, 205),
        (226, 220, 205),
        (196, 160, 140),
        (170, 185, 160),
        (220, 190, 150),
        (160, 170, 190),
        (205, 205, 200),
        (180, 130, 110),
        (235, 225, 190),
        (150, 150, 150),
        (198, 178, 196),
    ),
    materials=("stucco", "siding", "siding", "stucco", "brick", "stone", "stucco", "panel"),
    floors=(2, 5),
    lot=(6.5, 12.0),
    street=(8.5, 11.0),
    shops=0.4,
    blades=0.25,
    trees=0.45,
    wires=0.4,
    cornice=0.75,
    bay=0.5,
    balcony=0.15,
    palms=True,
)


TOKYO = Style(
    walls=(
        (205, 205, 200),
        (180, 175, 168),
        (150, 140, 130),
        (225, 220, 212),
        (140, 145, 150),
        (170, 150, 130),
        (120, 110, 105),
        (190, 195, 200),
        (232, 228, 222),
    ),
    materials=("tile", "tile", "panel", "glass", "stucco", "tile", "panel", "ribbed"),
    floors=(3, 9),
    lot=(5.0, 11.0),
    street=(6.0, 9.0),
    setback=0.5,
    shops=0.75,
    blades=0.7,
    trees=0.25,
    wires=0.8,
    cornice=0.2,
    bay=0.0,
    balcony=0.5,
    kanji=True,
)


def random_style(rng):
    """A quarter of no particular city: what the starting weights are trained on."""
    walls = tuple(
        tuple(int(c) for c in np.clip(rng.integers(60, 240) + rng.normal(0, 25, 3), 20, 250))
        for _ in range(10)
    )
    low = int(rng.integers(1, 5))
    return Style(
        walls=walls,
        materials=tuple(rng.choice(list(MATERIALS), 6)),
        floors=(low, low + int(rng.integers(1, 6))),
        lot=(float(rng.uniform(4.5, 8)), float(rng.uniform(9, 18))),
        street=(6.5 + float(rng.uniform(0, 2)), 8.5 + float(rng.uniform(0, 4))),
        setback=float(rng.uniform(0, 2)),
        shops=float(rng.uniform(0.1, 0.9)),
        blades=float(rng.uniform(0, 0.7)),
        trees=float(rng.uniform(0, 0.8)),
        wires=float(rng.uniform(0, 0.8)),
        cornice=float(rng.uniform(0, 1)),
        bay=float(rng.uniform(0, 0.5)),
        balcony=float(rng.uniform(0, 0.6)),
        kanji=bool(rng.random() < 0.4),
        palms=bool(rng.random() < 0.2),
    )


def cloud_noise(rng, size=256, power=1.0):
    """Tileable noise of amplitude 1/f^power at frequency f, float32 (size, size), equalised to 0..1."""
    f = np.fft.fftfreq(size)
    spectrum = 1 / np.maximum(np.hypot(f[:, None], f[None]), 1 / size) ** power
    field = np.fft.ifft2(np.fft.fft2(rng.standard_normal((size, size))) * spectrum).real
    rank = np.empty(size * size)
    rank[field.ravel().argsort()] = np.arange(size * size)
    return (rank.reshape(size, size) / (size * size)).astype(np.float32)


class Paints:
    """The noise tiles that every texture of a district is cut from."""

    def __init__(self, rng):
        self.soft, self.rough, self.fine = (cloud_noise(rng, 512, p) for p in (1.6, 1.0, 0.5))

    def cut(self, rng, h, w, tile="rough", zoom=1.0, aspect=1.0):
        """A float32 (h, w) piece in 0..1; zoom > 1 shows larger blobs, aspect > 1 makes them taller."""
        source = getattr(self, tile)
        hh, ww = min(512, int(h / zoom / aspect) + 2), min(512, int(w / zoom) + 2)
        y, x = rng.integers(0, 513 - hh), rng.integers(0, 513 - ww)
        return cv2.resize(source[y : y + hh, x : x + ww], (w, h), interpolation=cv2.INTER_LINEAR)


def _lines(h, w, step, vertical, rng):
    """A mask (h, w) float32 that is 1 on lines every `step` pixels."""
    n = w if vertical else h
    on = ((np.arange(n) + rng.integers(0, 100)) % max(step, 2)) < 1
    return np.broadcast_to(on[None] if vertical else on[:, None], (h, w)).astype(np.float32)


def _bricks(h, w, bh, bw, rng):
    y, x = np.mgrid[:h, :w]
    row = y // bh
    column = (x + (row % 2) * (bw // 2)) // bw
    shade = rng.random((row.max() + 1, column.max() + 1)).astype(np.float32)[row, column]
    return shade, ((y % bh == 0) | ((x + (row % 2) * (bw // 2)) % bw == 0)).astype(np.float32)


def _stucco(p, rng, h, w, s):
    return 1 + 0.10 * (p.cut(rng, h, w, "fine") - 0.5)


def _siding(p, rng, h, w, s):
    boards = _lines(h, w, round(s * rng.uniform(0.22, 0.4)), False, rng)
    return 1 - 0.28 * boards + 0.06 * (p.cut(rng, h, w, "fine") - 0.5)


def _ribbed(p, rng, h, w, s):
    ribs = _lines(h, w, round(s * rng.uniform(0.25, 0.6)), True, rng)
    return 1 - 0.25 * ribs + 0.06 * (p.cut(rng, h, w, "fine") - 0.5)


def _brick(p, rng, h, w, s):
    shade, joint = _bricks(h, w, max(2, round(s * 0.22)), max(4, round(s * 0.5)), rng)
    return (0.78 + 0.4 * shade) * (1 - joint * rng.uniform(-0.4, 0.4)) + 0.1 * (
        p.cut(rng, h, w, "fine") - 0.5
    )


def _stone(p, rng, h, w, s):
    bh, bw = max(3, round(s * rng.uniform(0.4, 0.8))), max(4, round(s * rng.uniform(0.8, 1.6)))
    shade, joint = _bricks(h, w, bh, bw, rng)
    return (0.88 + 0.2 * shade) * (1 - 0.3 * joint) + 0.22 * (p.cut(rng, h, w, "rough") - 0.5)


def _tile(p, rng, h, w, s):
    step = max(2, round(s * rng.uniform(0.2, 0.45)))
    y, x = np.mgrid[:h, :w] // step
    shade = rng.random((y.max() + 1, x.max() + 1)).astype(np.float32)[y, x]
    return 0.9 + 0.18 * shade - 0.12 * _lines(h, w, step, True, rng)


def _panel(p, rng, h, w, s):
    across, up = round(s * rng.uniform(0.9, 2.2)), round(s * rng.uniform(0.8, 1.8))
    joint = np.maximum(_lines(h, w, across, True, rng), _lines(h, w, up, False, rng))
    return 1 - 0.3 * joint + 0.16 * (p.cut(rng, h, w, "rough", 2) - 0.5)


def _glass(p, rng, h, w, s):
    across, up = max(3, round(s * rng.uniform(0.8, 1.5))), max(4, round(s * rng.uniform(1.0, 1.8)))
    y, x = np.arange(h) // up, np.arange(w) // across
    pane = rng.random((y.max() + 1, x.max() + 1)).astype(np.float32)[y][:, x]
    sky = p.cut(rng, h, w, "soft", 2)
    frame = np.maximum(_lines(h, w, across, True, rng), _lines(h, w, up, False, rng))
    return 0.35 + 0.5 * pane * sky + 0.5 * frame


MATERIALS = {
    "stucco": _stucco,
    "siding": _siding,
    "ribbed": _ribbed,
    "brick": _brick,
    "stone": _stone,
    "tile": _tile,
    "panel": _panel,
    "glass": _glass,
}


def wall_surface(p, rng, style, h, w, scale, colour=None, material=None):
    """A wall with weather on it but nothing else, uint8 (h, w, 3)."""
    if colour is None:
        colour = style.walls[rng.integers(len(style.walls))]
    colour = np.array(colour, np.float32) + rng.normal(0, 9, 3)
    relief = MATERIALS[material or style.materials[rng.integers(len(style.materials))]](
        p, rng, h, w, scale
    )
    relief = relief * (1 + 0.22 * (p.cut(rng, h, w, "soft", 1.5) - 0.5))
    streaks = np.maximum(
        p.cut(rng, h, w, "rough", 1.0, 14) - rng.uniform(0.55, 0.95), 0
    ) * rng.uniform(0.2, 1.2)
    foot = np.exp(-np.arange(h)[::-1] / (scale * 0.7))[:, None] * 0.18
    paint = relief * (1 - streaks) * (1 - foot)
    return cv2.merge([np.clip(channel * paint, 0, 255).astype(np.uint8) for channel in colour])


class _Wall:
    """Drawing on one facade in metres: x from the left, z from the ground."""

    def __init__(self, image, scale):
        self.image, self.scale, self.h = image, scale, image.shape[0]

    def box(self, x0, z0, x1, z1):
        """The pixels (x, y) at the top left and bottom right of a rectangle, both inside it."""
        s = self.scale
        top_left = round(float(x0 * s)), round(float(self.h - z1 * s))
        return top_left, (round(float(x1 * s)) - 1, round(float(self.h - z0 * s)) - 1)

    def fill(self, x0, z0, x1, z1, colour, lit=0):
        a, b = self.box(x0, z0, x1, z1)
        if b[0] >= a[0] and b[1] >= a[1]:
            red, green, blue = (
                colour.tolist() if isinstance(colour, np.ndarray) else colour
            )  # numpy's own numbers are ten times slower
            cv2.rectangle(
                self.image,
                a,
                b,
                (
                    int(min(max(red, 0), 255)),
                    int(min(max(green, 0), 255)),
                    int(min(max(blue, 0), 255)),
                    lit,
                ),
                -1,
            )

    def shade(self, x0, z0, x1, z1, factor):
        a, b = self.box(x0, z0, x1, z1)
        part = self.image[max(a[1], 0) : b[1] + 1, max(a[0], 0) : b[0] + 1, :3]
        part[:] = np.clip(part * factor, 0, 255).astype(np.uint8)


def _glyphs(image, rng, colour, kanji, x0, y0, x1, y1):
    """Writing of no language in the pixel box: Latin letters or stacked strokes."""
    w, h = x1 - x0, y1 - y0
    colour = tuple(int(c) for c in colour)
    if w < 4 or h < 4:
        return
    if not kanji:
        text = "".join(
            chr(int(c)) for c in rng.integers(65, 91, max(2, min(9, int(w / max(h, 1) * 1.3))))
        )
        font = int(
            rng.choice(
                [
                    cv2.FONT_HERSHEY_SIMPLEX,
                    cv2.FONT_HERSHEY_DUPLEX,
                    cv2.FONT_HERSHEY_TRIPLEX,
                    cv2.FONT_HERSHEY_SCRIPT_SIMPLEX,
                ]
            )
        )
        (tw, th), _ = cv2.getTextSize(text, font, 1.0, 1)
        size = min(w * 0.92 / tw, h * 0.7 / th)
        cv2.putText(
            image,
            text,
            (x0 + int((w - tw * size) / 2), y0 + int((h + th * size) / 2)),
            font,
            size,
            colour,
            1 + int(size > 0.6),
            cv2.LINE_AA,
        )
        return
    tall = h > w
    cell = max(min(w, h), 4)
    for k in range(max(1, int((h if tall else w) / cell))):
        ox, oy = (x0, y0 + k * cell) if tall else (x0 + k * cell, y0)
        for _ in range(int(rng.integers(3, 7))):
            a, b = rng.uniform(0.15, 0.85, 2), rng.uniform(0.15, 0.85, 2)
            if rng.random() < 0.75:
                b[rng.integers(2)] = a[rng.integers(2)]
            start, end = ((ox + int(c[0] * cell), oy + int(c[1] * cell)) for c in (a, b))
            cv2.line(image, start, end, colour, max(1, cell // 9), cv2.LINE_AA)


def _window(wall, rng, x0, z0, x1, z1, kind, frame):
    dark = rng.uniform(25, 75)
    sky = rng.uniform(0, 70)
    tone = np.array([dark + sky * 0.8, dark + sky * 0.95, dark + sky * 1.1])
    edge = 0.09
    wall.fill(x0 - edge, z0 - edge, x1 + edge, z1 + edge, frame)
    wall.fill(
        x0 - edge, z0 - edge - 0.1, x1 + edge, z0 - edge, np.array(frame) * 0.6
    )  # the sill's shadow
    wall.fill(x0, z0, x1, z1, tone, 255)
    wall.fill(
        x0, z0 + (z1 - z0) * 0.55, x1, z1, tone * rng.uniform(0.7, 1.5) + rng.uniform(0, 25), 255
    )
    drawn = rng.random()
    if drawn < 0.35:  # a blind or curtain
        wall.fill(
            x0,
            z1 - (z1 - z0) * rng.uniform(0.2, 0.9),
            x1,
            z1,
            rng.uniform(110, 215) + rng.normal(0, 12, 3),
            150,
        )
    elif drawn < 0.5:
        side = (x1 - x0) * rng.uniform(0.15, 0.35)
        curtain = rng.uniform(100, 215) + rng.normal(0, 15, 3)
        wall.fill(x0, z0, x0 + side, z1, curtain, 150)
        wall.fill(x1 - side, z0, x1, z1, curtain, 150)
    wall.shade(x0, z1 - 0.18, x1, z1, 0.6)
    if kind in ("sash", "cross"):
        wall.fill(x0, (z0 + z1) / 2 - 0.04, x1, (z0 + z1) / 2 + 0.04, frame)
    if kind in ("cross", "pair"):
        wall.fill((x0 + x1) / 2 - 0.04, z0, (x0 + x1) / 2 + 0.04, z1, frame)
    if kind == "shutter":
        leaf = np.array(frame) * 0.5 + rng.integers(0, 90, 3)
        wall.fill(x0 - 0.45, z0, x0 - 0.08, z1, leaf)
        wall.fill(x1 + 0.08, z0, x1 + 0.45, z1, leaf)
    if rng.random() < 0.06:  # an air conditioner
        wall.fill(x0 + 0.1, z0 - 0.55, x0 + 0.85, z0 - 0.05, (205, 205, 200))
        wall.fill(x0 + 0.2, z0 - 0.48, x0 + 0.6, z0 - 0.12, (120, 120, 120))


def _ground_floor(wall, rng, style, width, height, colour, shop):
    """Doors, garages or a shop front on the lowest `height` metres."""
    x = 0.3
    if shop:
        board = np.clip(rng.uniform(30, 220) + rng.normal(0, 55, 3), 10, 245).astype(int)
        top = height - 0.15
        wall.fill(0.15, 0, width - 0.15, top, np.array(colour) * rng.uniform(0.4, 0.9))
        door = rng.uniform(0.5, max(0.6, width - 1.8))
        while x < width - 0.6:
            step = min(rng.uniform(1.2, 2.8), width - 0.3 - x)
            glass = rng.uniform(25, 85)
            low = 0.1 if x <= door < x + step else rng.uniform(0.3, 0.7)
            wall.fill(x, low, x + step - 0.12, top - 0.75, (glass, glass * 1.05, glass * 1.1), 255)
            for _ in range(int(rng.integers(2, 8))):  # goods, posters, people behind the glass
                gx, gz = x + rng.uniform(0, max(step - 0.5, 0.1)), rng.uniform(0.4, 1.7)
                right, head = (
                    min(gx + rng.uniform(0.15, 0.7), x + step - 0.14),
                    gz + rng.uniform(0.15, 0.8),
                )
                wall.fill(gx, gz, right, head, rng.uniform(40, 200) + rng.normal(0, 28, 3), 255)
            x += step
        wall.fill(0.2, top - 0.7, width - 0.2, top, board, 90)
        a, b = wall.box(0.4, top - 0.65, width - 0.4, top - 0.05)
        ink = 255 - board if abs(board.mean() - 128) > 40 else (245, 245, 240)
        _glyphs(wall.image, rng, (*ink, 90), style.kanji, *a, *b)
        if rng.random() < 0.4:  # a striped awning
            stripe, n = rng.integers(40, 240, 3), max(3, int(width / 0.5))
            for k in range(n):
                wall.fill(
                    0.2 + k * (width - 0.4) / n,
                    top - 1.25,
                    0.2 + (k + 1) * (width - 0.4) / n,
                    top - 0.7,
                    stripe if k % 2 else (235, 232, 225),
                )
        if rng.random() < 0.15:  # closed: a shutter with writing on it
            wall.fill(0.3, 0, width - 0.3, top - 0.75, rng.uniform(110, 190) + rng.normal(0, 6, 3))
            for z in np.arange(0.1, top - 0.8, 0.22):
                wall.shade(0.3, z, width - 0.3, z + 0.07, 0.75)
            a, b = wall.box(0.6, 0.3, width - 0.6, 1.8)
            _glyphs(wall.image, rng, (*rng.integers(0, 255, 3), 0), False, *a, *b)
        return
    while x < width - 1.0:
        roll = rng.random()
        if roll < 0.25 and width - x > 3.0:  # a garage
            tone = rng.uniform(90, 225) + rng.normal(0, 10, 3)
            wall.fill(x, 0, x + 2.6, 2.3, tone)
            for z in np.arange(0.35, 2.2, 0.48):
                wall.shade(x + 0.05, z, x + 2.55, z + 0.09, 0.72)
            x += 2.9
        elif roll < 0.55:  # a door with steps
            tone = rng.integers(25, 170, 3)
            wall.fill(x - 0.12, 0, x + 1.12, 2.65, np.array(colour) * 1.12)
            wall.fill(x, 0.3, x + 1.0, 2.2, tone)
            wall.fill(x, 2.25, x + 1.0, 2.55, (70, 80, 90), 255)
            wall.fill(x + 0.15, 1.2, x + 0.85, 2.05, np.array(tone) * 0.7 + 15)
            for k in range(2):
                wall.fill(x - 0.15, k * 0.15, x + 1.15, k * 0.15 + 0.13, (150 - 25 * k,) * 3)
            x += 1.6
        else:
            kind = rng.choice(["sash", "pair", "plain"])
            frame = rng.uniform(150, 240) + rng.normal(0, 8, 3)
            _window(wall, rng, x, 1.0, x + 1.1, min(2.5, height - 0.6), kind, frame)
            x += 1.8
        x += rng.uniform(0.1, 0.9)


def facade(p, rng, style, width, floors, ground, storey, bay, scale):
    """A house front, uint8 (H, W, 4), ground + floors * storey metres high; bay: the window spacing in metres."""
    height = ground + floors * storey
    h, w = max(8, int(round(height * scale))), max(8, int(round(width * scale)))
    colour = np.array(style.walls[rng.integers(len(style.walls))], np.float32)
    material = style.materials[rng.integers(len(style.materials))]
    image = np.zeros((h, w, 4), np.uint8)
    image[..., :3] = wall_surface(p, rng, style, h, w, scale, colour, material)
    wall = _Wall(image, scale)
    trim = np.clip(colour * rng.uniform(0.5, 1.4) + rng.normal(0, 18, 3), 15, 250)
    frame = rng.uniform(45, 245) + rng.normal(0, 8, 3)
    kind = rng.choice(["sash", "cross", "pair", "plain", "shutter"])
    share = rng.uniform(0.4, 0.75) if kind != "shutter" else rng.uniform(0.35, 0.45)
    sill, head = storey * rng.uniform(0.22, 0.36), storey * rng.uniform(0.78, 0.9)
    bays = max(1, int(width / bay))
    odd = rng.random((floors + 1, bays))
    belt, pilaster = rng.random() < 0.4, rng.random() < 0.3
    balcony = rng.random() < style.balcony
    rail = rng.integers(30, 230, 3)
    bay_columns = rng.random(bays) < (style.bay if floors > 1 else 0)
    for k in range(bays):
        if bay_columns[k]:  # a bay: its cheeks catch the light differently
            wall.shade(
                k * bay + 0.12,
                ground * 0.85,
                k * bay + bay - 0.12,
                height - 0.9,
                rng.uniform(1.02, 1.12),
            )
            wall.shade(
                k * bay + 0.12, ground * 0.85, k * bay + 0.5, height - 0.9, rng.uniform(0.6, 0.8)
            )
            wall.shade(
                k * bay + bay - 0.5,
                ground * 0.85,
                k * bay + bay - 0.12,
                height - 0.9,
                rng.uniform(0.75, 0.95),
            )
            wall.shade(k * bay, ground * 0.78, k * bay + bay, ground * 0.85, 0.55)
        if pilaster:
            wall.fill(k * bay - 0.12, 0, k * bay + 0.12, height, trim)
            wall.shade(k * bay + 0.12, 0, k * bay + 0.2, height, 0.7)
    for f in range(floors):
        z = ground + f * storey
        if belt:
            wall.fill(0, z - 0.12, width, z + 0.1, trim)
            wall.shade(0, z - 0.24, width, z - 0.12, 0.7)
        for k in range(bays):
            if odd[f, k] < 0.05:
                continue
            middle, half = k * bay + bay / 2, bay * share / 2
            _window(wall, rng, middle - half, z + sill, middle + half, z + head, kind, frame)
            if balcony:
                wall.shade(middle - half - 0.3, z + 0.05, middle + half + 0.3, z + 0.12, 0.45)
                if rail[0] > 120:
                    wall.fill(
                        middle - half - 0.3, z + 0.12, middle + half + 0.3, z + sill + 0.25, rail
                    )
                    tone = rng.uniform(0.8, 1.1)
                    wall.shade(
                        middle - half - 0.3, z + 0.12, middle + half + 0.3, z + sill + 0.25, tone
                    )
                else:
                    for x in np.arange(middle - half - 0.3, middle + half + 0.3, 0.22):
                        wall.fill(x, z + 0.12, x + 0.08, z + sill + 0.3, rail)
                if rng.random() < 0.2:  # washing
                    right = middle + half * rng.uniform(0, 1)
                    wall.fill(
                        middle - half,
                        z + sill + 0.1,
                        right,
                        z + head - 0.5,
                        rng.integers(60, 240, 3),
                    )
    _ground_floor(wall, rng, style, width, ground, colour, rng.random() < style.shops)
    if rng.random() < style.cornice:
        deep = rng.uniform(0.3, 0.8)
        wall.fill(0, height - deep, width, height, trim)
        wall.shade(0, height - deep - 0.25, width, height - deep, 0.55)
        for x in np.arange(0.1, width, rng.uniform(0.4, 0.9)):
            wall.fill(x, height - deep - 0.16, x + 0.2, height - deep, trim * 0.9)
    if rng.random() < 0.12:  # graffiti
        x = rng.uniform(0, max(width - 2.5, 0.1))
        a, b = wall.box(x, 0.3, x + 2.4, 1.6)
        _glyphs(image, rng, (*rng.integers(0, 255, 3), 0), False, *a, *b)
    if rng.random() < 0.25:  # a pipe
        x = rng.uniform(0.1, width - 0.2)
        wall.fill(x, 0, x + 0.12, height, trim * 0.7)
    if rng.random() < 0.15 and floors > 1:  # a fire escape
        x, iron = rng.uniform(0.3, max(0.4, width - 3)), (45, 45, 48)
        for f in range(1, floors + 1):
            z = ground + (f - 1) * storey
            wall.fill(x, z, x + 2.6, z + 0.12, iron)
            wall.fill(x, z + 0.85, x + 2.6, z + 0.93, iron)
            for q in np.arange(x, x + 2.6, 0.4):
                wall.fill(q, z, q + 0.06, z + 0.9, iron)
            a, b = wall.box(x, z, x + 2.4, z + storey)
            cv2.line(image, (a[0], b[1]), (b[0], a[1]), (*iron, 0), max(1, int(scale * 0.08)))
    return image


def _blank(width, height, scale):
    return np.zeros(
        (max(4, int(round(height * scale))), max(4, int(round(width * scale))), 4), np.uint8
    )


def _grain(image, p, rng, amount=0.25):
    h, w = image.shape[:2]
    image[..., :3] = np.clip(
        image[..., :3] * (1 + amount * (p.cut(rng, h, w, "rough") - 0.5))[..., None], 0, 255
    )
    return image


def tree(p, rng, width, height, scale, palm=False):
    image = _blank(width, height, scale)
    h, w = image.shape[:2]
    y, x = np.mgrid[:h, :w] / np.array([h, w]).reshape(2, 1, 1)
    trunk = np.abs(x - 0.5 - 0.03 * np.sin(y * 6 + rng.uniform(0, 6))) < 0.12 / width + 0.01
    bark = rng.uniform(50, 110) * np.array([1, 0.85, 0.7])
    image[trunk & (y > 0.25)] = (*bark.astype(int), 255)
    leaves = [[60, 95, 40], [75, 105, 50], [50, 80, 45], [110, 110, 50], [150, 100, 45]]
    leaf = np.array(leaves[rng.integers(5)]) * rng.uniform(0.7, 1.2)
    if palm:
        for angle in np.linspace(0, 2 * np.pi, 14) + rng.uniform(0, 1):
            bend = np.array(
                [
                    [0.5 + 0.45 * t * np.cos(angle), 0.14 - 0.1 * t * np.sin(angle) + 0.12 * t * t]
                    for t in np.linspace(0, 1, 6)
                ]
            )
            colour = (*(leaf * rng.uniform(0.7, 1.2)).astype(int).tolist(), 255)
            cv2.polylines(
                image,
                [(bend * [w, h]).astype(np.int32)],
                False,
                colour,
                max(1, int(scale * 0.22)),
                cv2.LINE_AA,
            )
        return image
    noise, light = p.cut(rng, h, w, "rough", 1.2), p.cut(rng, h, w, "rough", 0.7)
    crown = ((x - 0.5) / 0.48) ** 2 + ((y - rng.uniform(0.36, 0.44)) / 0.40) ** 2
    inside = crown + 0.9 * (noise - 0.5) < rng.uniform(0.6, 0.9)
    shade = 0.45 + 0.8 * light + 0.35 * (0.45 - y)
    image[..., :3][inside] = np.clip(leaf * shade[..., None], 0, 255).astype(np.uint8)[inside]
    image[..., 3][inside] = 255
    return image


def car_side(p, rng, length, height, scale, boxy=False):
    """A car, or a van or bus when boxy, and its colour."""
    image = _blank(length, height, scale)
    h, w = image.shape[:2]
    colours = [
        (215, 215, 215),
        (40, 40, 45),
        (120, 122, 126),
        (150, 30, 30),
        (35, 60, 120),
        (235, 235, 232),
        (80, 90, 80),
        (190, 170, 60),
    ]
    colour = colours[rng.integers(8)]
    body = [
        (0.02, 0.45),
        (0.02, 0.85),
        (0.98, 0.85),
        (0.98, 0.5),
        (0.8, 0.42),
        (0.66, 0.06),
        (0.3, 0.06),
        (0.16, 0.42),
    ]
    if boxy:
        body = [(0.01, 0.04), (0.01, 0.88), (0.99, 0.88), (0.99, 0.5), (0.94, 0.04)]
    points = (np.array(body) * [w, h]).astype(np.int32)
    cv2.fillPoly(image, [points], (*colour, 255))
    glass = (45, 52, 60, 255)
    panes = [
        [(0.2, 0.4), (0.31, 0.12), (0.47, 0.12), (0.47, 0.4)],
        [(0.5, 0.4), (0.5, 0.12), (0.64, 0.12), (0.76, 0.4)],
    ]
    if boxy:
        panes = [
            [(a, 0.42), (a, 0.14), (a + 0.13, 0.14), (a + 0.13, 0.42)]
            for a in np.arange(0.05, 0.85, 0.16)
        ]
        if rng.random() < 0.5:
            panes = panes[-1:]
            _glyphs(
                image,
                rng,
                (*rng.integers(0, 255, 3), 255),
                rng.random() < 0.5,
                int(w * 0.1),
                int(h * 0.2),
                int(w * 0.7),
                int(h * 0.6),
            )
    for pane in panes:
        cv2.fillPoly(image, [(np.array(pane) * [w, h]).astype(np.int32)], glass)
    image[int(h * 0.72) : int(h * 0.86), :, :3] = (
        image[int(h * 0.72) : int(h * 0.86), :, :3] * 0.6
    ).astype(np.uint8)
    for x in (0.2, 0.8):
        cv2.circle(
            image,
            (int(x * w), int(h * 0.83)),
            max(1, int(h * (0.1 if boxy else 0.165))),
            (25, 25, 25, 255),
            -1,
        )
        cv2.circle(
            image, (int(x * w), int(h * 0.83)), max(1, int(h * 0.07)), (140, 140, 140, 255), -1
        )
    return _grain(image, p, rng), colour


def car_end(p, rng, width, height, scale, colour):
    image = _blank(width, height, scale)
    h, w = image.shape[:2]
    points = np.array(
        [(0.02, 0.45), (0.02, 0.95), (0.98, 0.95), (0.98, 0.45), (0.85, 0.05), (0.15, 0.05)]
    ) * [w, h]
    cv2.fillPoly(image, [points.astype(np.int32)], (*colour, 255))
    pane = np.array([(0.12, 0.42), (0.2, 0.12), (0.8, 0.12), (0.88, 0.42)]) * [w, h]
    cv2.fillPoly(image, [pane.astype(np.int32)], (50, 56, 64, 255))
    for x in (0.06, 0.76):
        lamp = (235, 230, 200, 255) if rng.random() < 0.5 else (170, 30, 25, 255)
        cv2.rectangle(
            image, (int(x * w), int(h * 0.52)), (int((x + 0.18) * w), int(h * 0.63)), lamp, -1
        )
    cv2.rectangle(
        image,
        (int(w * 0.35), int(h * 0.7)),
        (int(w * 0.65), int(h * 0.8)),
        (225, 225, 220, 255),
        -1,
    )
    cv2.rectangle(image, (0, int(h * 0.86)), (w, h), (25, 25, 25, 255), -1)
    image[int(h * 0.86) :, int(w * 0.25) : int(w * 0.75), 3] = 0
    return _grain(image, p, rng)


def person(p, rng, scale):
    image = _blank(0.7, 1.75, scale)
    h, w = image.shape[:2]
    coat, legs = rng.integers(20, 225, 3), rng.integers(20, 110, 3)
    skin = np.array([215, 175, 145]) * rng.uniform(0.45, 1.05)
    step = rng.uniform(0.04, 0.22)
    for side in (-1, 1):
        cv2.line(
            image,
            (w // 2, int(h * 0.52)),
            (int(w * (0.5 + side * step)), h - 1),
            (*legs.tolist(), 255),
            max(1, int(w * 0.19)),
        )
        cv2.line(
            image,
            (w // 2, int(h * 0.22)),
            (int(w * (0.5 + side * (step + 0.1))), int(h * 0.5)),
            (*coat.tolist(), 255),
            max(1, int(w * 0.14)),
        )
    cv2.ellipse(
        image,
        (w // 2, int(h * 0.37)),
        (max(1, int(w * 0.24)), max(1, int(h * 0.19))),
        0,
        0,
        360,
        (*coat.tolist(), 255),
        -1,
    )
    cv2.circle(
        image,
        (w // 2, int(h * 0.09)),
        max(1, int(h * 0.075)),
        (*skin.astype(int).tolist(), 255),
        -1,
    )
    cv2.ellipse(
        image,
        (w // 2, int(h * 0.07)),
        (max(1, int(h * 0.07)), max(1, int(h * 0.06))),
        0,
        180,
        360,
        (*rng.integers(10, 90, 3).tolist(), 255),
        -1,
    )
    return _grain(image, p, rng)


def lamp_post(scale):
    image = _blank(2.0, 6.0, scale)
    h, w = image.shape[:2]
    cv2.line(
        image, (w // 2, h), (w // 2, int(h * 0.04)), (85, 88, 90, 255), max(1, int(scale * 0.14))
    )
    cv2.line(
        image,
        (w // 2, int(h * 0.04)),
        (int(w * 0.85), int(h * 0.02)),
        (85, 88, 90, 255),
        max(1, int(scale * 0.1)),
    )
    cv2.ellipse(
        image,
        (int(w * 0.86), int(h * 0.03)),
        (max(1, int(w * 0.12)), max(1, int(h * 0.018))),
        0,
        0,
        360,
        (250, 245, 225, 255),
        -1,
    )
    return image


def pole(rng, scale):
    """A wooden or concrete pole with cross arms and a transformer."""
    image = _blank(2.4, 9.0, scale)
    h, w = image.shape[:2]
    tone = (rng.uniform(70, 150) * np.array([1, 0.93, 0.85])).astype(int).tolist()
    cv2.line(image, (w // 2, h), (w // 2, 0), (*tone, 255), max(1, int(scale * 0.26)))
    for z in (0.05, 0.14):
        cv2.line(
            image,
            (int(w * 0.05), int(h * z)),
            (int(w * 0.95), int(h * z)),
            (*tone, 255),
            max(1, int(scale * 0.14)),
        )
    if rng.random() < 0.5:
        cv2.rectangle(
            image,
            (int(w * 0.58), int(h * 0.16)),
            (int(w * 0.85), int(h * 0.27)),
            (120, 122, 124, 255),
            -1,
        )
    return image


def wires(scale):
    image = _blank(30.0, 2.2, scale)
    h, w = image.shape[:2]
    x = np.arange(w)
    for top, sag in ((0.05, 0.3), (0.3, 0.5), (0.45, 0.4)):
        line = (top + sag * 4 * (x / w) * (1 - x / w)) * h
        cv2.polylines(
            image,
            [np.stack([x, np.clip(line, 0, h - 1)], 1).astype(np.int32)],
            False,
            (30, 30, 32, 230),
            max(1, int(scale * 0.06)),
        )
    return image


def sign(rng, width, height, scale, kanji):
    """A sign board or banner with writing."""
    image = _blank(width, height, scale)
    h, w = image.shape[:2]
    board = np.clip(rng.uniform(30, 235) + rng.normal(0, 60, 3), 10, 250).astype(int)
    image[:] = (*board, 255)
    ink = np.where(board.mean() > 120, rng.integers(0, 90, 3), rng.integers(170, 255, 3))
    cv2.rectangle(image, (0, 0), (w - 1, h - 1), (*ink.tolist(), 255), max(1, int(scale * 0.06)))
    if height > width * 1.5 and not kanji:
        turned = np.ascontiguousarray(np.rot90(image))
        _glyphs(turned, rng, (*ink.tolist(), 255), False, 1, 1, h - 1, w - 1)
        image = np.ascontiguousarray(np.rot90(turned, -1))
    else:
        _glyphs(image, rng, (*ink.tolist(), 255), kanji, 1, 1, w - 1, h - 1)
    return image


def traffic_light(rng, scale):
    image = _blank(0.9, 4.2, scale)
    h, w = image.shape[:2]
    cv2.line(image, (w // 2, h), (w // 2, 0), (60, 62, 64, 255), max(1, int(scale * 0.14)))
    cv2.rectangle(image, (int(w * 0.3), 0), (int(w * 0.7), int(h * 0.26)), (35, 40, 35, 255), -1)
    for k, colour in enumerate(((220, 40, 30), (230, 170, 40), (60, 200, 110))):
        on = 1.0 if k == rng.integers(3) else 0.3
        cv2.circle(
            image,
            (w // 2, int(h * (0.045 + 0.085 * k))),
            max(1, int(w * 0.13)),
            (*(int(c * on) for c in colour), 255),
            -1,
        )
    return image


def clutter(p, rng, scale):
    """Street furniture of about a metre: bins, vending machines, hydrants, boxes, bushes, bicycles."""
    kind = int(rng.integers(6))
    width, height = [(0.6, 1.0), (1.0, 1.85), (0.4, 0.8), (0.9, 1.2), (1.6, 1.0), (1.7, 1.05)][kind]
    image = _blank(width, height, scale)
    h, w = image.shape[:2]
    colour = rng.integers(30, 225, 3).tolist()
    if kind == 4:
        y, x = np.mgrid[:h, :w] / np.array([h, w]).reshape(2, 1, 1)
        inside = ((x - 0.5) / 0.5) ** 2 + ((y - 0.6) / 0.55) ** 2 + 0.8 * (
            p.cut(rng, h, w) - 0.5
        ) < 0.85
        leaf = np.array([60, 95, 45]) * (0.5 + p.cut(rng, h, w, "rough", 0.7))[..., None]
        image[..., :3][inside], image[..., 3][inside] = leaf.astype(np.uint8)[inside], 255
    elif kind == 5:
        for x in (0.22, 0.78):
            cv2.circle(
                image,
                (int(x * w), int(h * 0.66)),
                int(h * 0.3),
                (25, 25, 25, 255),
                max(1, int(scale * 0.05)),
            )
        frame = np.array([(0.22, 0.66), (0.4, 0.25), (0.72, 0.25), (0.5, 0.66), (0.22, 0.66)]) * [
            w,
            h,
        ]
        cv2.polylines(
            image, [frame.astype(np.int32)], False, (*colour, 255), max(1, int(scale * 0.07))
        )
    else:
        cv2.rectangle(image, (0, 0), (w, h), (*colour, 255), -1)
        cv2.rectangle(
            image,
            (int(w * 0.15), int(h * 0.1)),
            (int(w * 0.85), int(h * 0.5)),
            (*rng.integers(120, 245, 3).tolist(), 255),
            -1,
        )
    return _grain(image, p, rng)
