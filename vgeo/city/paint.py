"""Painted textures of the city: facades and sprites (trees, cars, people, signs).

Every image is uint8 (H, W, 4), row 0 at the top. The fourth channel is opacity for sprites; on
facades it marks what is lit from inside at night. `scale` is pixels per metre, other sizes are
metres, `paints` are the district's `Paints`.
"""

from array import array
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numba import njit


def _colours(text):
    """RGB tuples, 0 to 255, of colours written as six hex digits."""
    return tuple(tuple(bytes.fromhex(colour)) for colour in text.split())


@dataclass(frozen=True)
class Style:
    """What a quarter is built like. Sizes in metres, shares in 0..1, colours RGB in 0..255."""

    walls: tuple[tuple[int, ...], ...]  # facade colours
    materials: tuple[str, ...]  # names of `MATERIALS`, repeated by weight
    floors: tuple[int, int] = (2, 4)  # least and most above the ground floor
    lot: tuple[float, float] = (6.0, 13.0)  # least and largest width of a house
    street: tuple[float, float] = (8.5, 10.5)  # least and largest half width between facades
    setback: float = 0.8  # the most that a house stands back from its neighbours
    shops: float = 0.5  # share of houses with a shop front
    blades: float = 0.3  # share of houses with signs that stand out from the wall
    trees: float = 0.4  # share of streets with trees, over 1.6
    wires: float = 0.3  # share of streets with poles and wires
    cornice: float = 0.6  # share of houses
    bay: float = 0.3  # share of a house's window columns that are bay windows
    balcony: float = 0.2  # share of houses
    kanji: bool = False  # how signs are written
    palms: bool = False


SAN_FRANCISCO = Style(
    walls=_colours(
        "d6c6aa bcc8cd e2dccd c4a08c aab9a0 dcbe96 a0aabe cdcdc8 b4826e ebe1be 969696 c6b2c4"
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
    walls=_colours("cdcdc8 b4afa8 968c82 e1dcd4 8c9196 aa9682 786e69 bec3c8 e8e4de"),
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
CAR_COLOURS = _colours("d7d7d7 28282d 787a7e 961e1e 233c78 ebebe8 505a50 beaa3c")
LEAF_COLOURS = _colours("3c5f28 4b6932 32502d 6e6e32 96642d")
TRAFFIC_COLOURS = _colours("dc281e e6aa28 3cc86e")
FONTS = [
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
    cv2.FONT_HERSHEY_SCRIPT_SIMPLEX,
]


def random_style(rng) -> Style:
    """A quarter of no particular city: what the starting weights are trained on."""

    def shade():
        return tuple(int(c) for c in np.clip(rng.integers(60, 240) + rng.normal(0, 25, 3), 20, 250))

    def share(low, high):
        return float(rng.uniform(low, high))

    walls, low = tuple(shade() for _ in range(10)), int(rng.integers(1, 5))
    return Style(
        walls=walls,
        materials=tuple(rng.choice(list(MATERIALS), 6)),
        floors=(low, low + int(rng.integers(1, 6))),
        lot=(share(4.5, 8), share(9, 18)),
        street=(6.5 + share(0, 2), 8.5 + share(0, 4)),
        setback=share(0, 2),
        shops=share(0.1, 0.9),
        blades=share(0, 0.7),
        trees=share(0, 0.8),
        wires=share(0, 0.8),
        cornice=share(0, 1),
        bay=share(0, 0.5),
        balcony=share(0, 0.6),
        kanji=bool(rng.random() < 0.4),
        palms=bool(rng.random() < 0.2),
    )


# ---- noise ----


def cloud_noise(rng, size: int = 256, power: float = 1.0) -> np.ndarray:
    """Tileable noise of amplitude 1/f^power at frequency f, equalised to 0..1.

    Returns float32 (size, size).
    """
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) * _amplitude(size, power)
    field = np.fft.irfft2(spectrum, (size, size))
    rank = np.empty(size * size, np.float32)
    rank[field.ravel().argsort()] = np.arange(size * size) / (size * size)
    return rank.reshape(size, size)


@cache
def _amplitude(size, power):
    """1/f^power of the frequencies of `np.fft.rfft2`."""
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    return 1 / np.maximum(f, 1 / size) ** power


@cache
def _tiles():
    """The noise of all districts: soft, rough and fine."""
    return [cloud_noise(np.random.default_rng(k), 512, p) for k, p in enumerate((1.6, 1.0, 0.5))]


class Paints:
    """What every texture of a district is made with: a random generator, a style, noise tiles."""

    def __init__(self, rng, style: Style):
        self.rng, self.style = rng, style
        # a district's own by where it begins; making it took a tenth of a district's time
        shifts = rng.integers(512, size=(3, 2))
        tiles = (np.roll(tile, shift, (0, 1)) for tile, shift in zip(_tiles(), shifts, strict=True))
        self.soft, self.rough, self.fine = tiles

    def pick(self, choices):
        """One of a sequence."""
        return choices[self.rng.integers(len(choices))]

    def cut(self, h: int, w: int, tile="rough", zoom=1.0, aspect=1.0) -> np.ndarray:
        """A float32 (h, w) piece of a tile, in 0..1.

        zoom > 1 shows larger blobs, aspect > 1 makes them taller.
        """
        height, width = min(512, int(h / zoom / aspect) + 2), min(512, int(w / zoom) + 2)
        y, x = self.rng.integers(0, 513 - height), self.rng.integers(0, 513 - width)
        piece = getattr(self, tile)[y : y + height, x : x + width]
        return cv2.resize(piece, (w, h), interpolation=cv2.INTER_LINEAR)


# ---- materials: the brightness of a wall, float32 (h, w), about 1 ----


def _lines(h, w, step, vertical, rng):
    """1 on lines every `step` pixels, 0 elsewhere."""
    n = w if vertical else h
    on = ((np.arange(n) + rng.integers(0, 100)) % max(step, 2)) < 1
    return np.broadcast_to(on[None] if vertical else on[:, None], (h, w)).astype(np.float32)


def _bricks(h, w, bh, bw, rng):
    """The shade of each brick of bh x bw pixels, 0 to 1, and 1 on the joints."""
    y, rows = np.arange(h), (h - 1) // bh + 1
    # where a pixel lies along an even and an odd row of bricks; a wall may have no odd one
    x = np.arange(w) + np.array([[0], [bw // 2]])[: min(rows, 2)]
    odd, column = np.arange(rows) % 2, x // bw
    shade = rng.random((rows, column.max() + 1)).astype(np.float32)
    shade, upright = shade[np.arange(rows)[:, None], column[odd]], (x % bw == 0)[odd]
    joint = upright[y // bh] | (y % bh == 0)[:, None]
    return shade[y // bh], joint.astype(np.float32)


def _stucco(p, h, w, s):
    return 1 + 0.10 * (p.cut(h, w, "fine") - 0.5)


def _siding(p, h, w, s):
    boards = _lines(h, w, round(s * p.rng.uniform(0.22, 0.4)), False, p.rng)
    return 1 - 0.28 * boards + 0.06 * (p.cut(h, w, "fine") - 0.5)


def _ribbed(p, h, w, s):
    ribs = _lines(h, w, round(s * p.rng.uniform(0.25, 0.6)), True, p.rng)
    return 1 - 0.25 * ribs + 0.06 * (p.cut(h, w, "fine") - 0.5)


def _brick(p, h, w, s):
    shade, joint = _bricks(h, w, max(2, round(s * 0.22)), max(4, round(s * 0.5)), p.rng)
    relief = (0.78 + 0.4 * shade) * (1 - joint * p.rng.uniform(-0.4, 0.4))
    return relief + 0.1 * (p.cut(h, w, "fine") - 0.5)


def _stone(p, h, w, s):
    bh, bw = (round(s * p.rng.uniform(*sizes)) for sizes in ((0.4, 0.8), (0.8, 1.6)))
    shade, joint = _bricks(h, w, max(3, bh), max(4, bw), p.rng)
    return (0.88 + 0.2 * shade) * (1 - 0.3 * joint) + 0.22 * (p.cut(h, w, "rough") - 0.5)


def _tile(p, h, w, s):
    step = max(2, round(s * p.rng.uniform(0.2, 0.45)))
    y, x = np.arange(h) // step, np.arange(w) // step
    shade = p.rng.random((y.max() + 1, x.max() + 1)).astype(np.float32)[y][:, x]
    return 0.9 + 0.18 * shade - 0.12 * _lines(h, w, step, True, p.rng)


def _grid(h, w, across, up, rng):
    """1 on the lines of a grid, every `across` and `up` pixels."""
    return np.maximum(_lines(h, w, across, True, rng), _lines(h, w, up, False, rng))


def _panel(p, h, w, s):
    across, up = round(s * p.rng.uniform(0.9, 2.2)), round(s * p.rng.uniform(0.8, 1.8))
    joint = _grid(h, w, across, up, p.rng)
    return 1 - 0.3 * joint + 0.16 * (p.cut(h, w, "rough", 2) - 0.5)


def _glass(p, h, w, s):
    across = max(3, round(s * p.rng.uniform(0.8, 1.5)))
    up = max(4, round(s * p.rng.uniform(1.0, 1.8)))
    y, x = np.arange(h) // up, np.arange(w) // across
    pane = p.rng.random((y.max() + 1, x.max() + 1)).astype(np.float32)[y][:, x]
    sky = p.cut(h, w, "soft", 2)
    return 0.35 + 0.5 * pane * sky + 0.5 * _grid(h, w, across, up, p.rng)


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


def wall_surface(paints, h: int, w: int, scale: float, colour=None, material=None) -> np.ndarray:
    """A wall with weather on it but nothing else, uint8 (h, w, 3).

    The colour (RGB) and the material are those of the style where they are not given.
    """
    rng, style = paints.rng, paints.style
    if colour is None:
        colour = paints.pick(style.walls)
    colour = np.array(colour, np.float32) + rng.normal(0, 9, 3)
    relief = MATERIALS[material or paints.pick(style.materials)](paints, h, w, scale)
    relief = relief * (0.89 + 0.22 * paints.cut(h, w, "soft", 1.5))
    streaks = np.maximum(paints.cut(h, w, "rough", 1.0, 14) - rng.uniform(0.55, 0.95), 0)
    relief *= 1 - streaks * rng.uniform(0.2, 1.2)
    foot = np.exp(-np.arange(h, dtype=np.float32)[::-1] / (scale * 0.7))  # dirt near the ground
    relief *= 1 - 0.18 * foot[:, None]
    # half a level less: rounded as if the fraction were cut off
    channels = [cv2.addWeighted(relief, c, relief, 0, -0.5, dtype=cv2.CV_8U) for c in colour]
    return cv2.merge(channels)


def _glyphs(image, rng, colour, kanji, x0, y0, x1, y1):
    """Writing of no language in the pixel box: Latin letters or stacked strokes; colour: RGBA."""
    w, h = x1 - x0, y1 - y0
    colour = tuple(int(c) for c in colour)
    if w < 4 or h < 4:
        return
    if not kanji:
        letters = rng.integers(65, 91, max(2, min(9, int(w / max(h, 1) * 1.3))))
        text, font = "".join(map(chr, letters)), int(rng.choice(FONTS))
        (tw, th), _ = cv2.getTextSize(text, font, 1.0, 1)
        size = min(w * 0.92 / tw, h * 0.7 / th)
        place = x0 + int((w - tw * size) / 2), y0 + int((h + th * size) / 2)
        cv2.putText(image, text, place, font, size, colour, 1 + int(size > 0.6), cv2.LINE_AA)
        return
    tall, cell = h > w, max(min(w, h), 4)
    for k in range(max(1, int((h if tall else w) / cell))):
        corner = (x0, y0 + k * cell) if tall else (x0 + k * cell, y0)
        for _ in range(int(rng.integers(3, 7))):
            a, b = rng.uniform(0.15, 0.85, 2), rng.uniform(0.15, 0.85, 2)
            if rng.random() < 0.75:
                b[rng.integers(2)] = a[rng.integers(2)]
            start, end = ((point * cell).astype(int) + corner for point in (a, b))
            cv2.line(image, start, end, colour, max(1, cell // 9), cv2.LINE_AA)


# ---- facades ----


@njit(cache=True, error_model="numpy")
def _paint(image, strokes, scale):
    """Does the strokes of a `_Front`, in their order.

    Calls of OpenCV and NumPy for so many small rectangles took a third of a district's time.
    """
    height, width = image.shape[0], image.shape[1]
    for x0, z0, x1, z1, red, green, blue, lit in strokes:
        left, right = max(round(x0 * scale), 0), min(round(x1 * scale), width)
        top, bottom = max(round(height - z1 * scale), 0), min(round(height - z0 * scale), height)
        if lit < 0:
            for y in range(top, bottom):
                for x in range(left, right):
                    for k in range(3):
                        image[y, x, k] = np.uint8(min(image[y, x, k] * red, 255.0))
            continue
        red, green, blue = (
            np.uint8(min(max(red, 0.0), 255.0)),
            np.uint8(min(max(green, 0.0), 255.0)),
            np.uint8(min(max(blue, 0.0), 255.0)),
        )
        for y in range(top, bottom):
            for x in range(left, right):
                image[y, x, 0], image[y, x, 1], image[y, x, 2] = red, green, blue
                image[y, x, 3] = np.uint8(lit)


class _Front:
    """A house front that is being painted, in metres: x from the left, z from the ground."""

    def __init__(self, paints, width, floors, ground, storey, bay, scale):
        self.rng, self.style, self.scale = paints.rng, paints.style, scale
        self.width, self.floors, self.ground, self.storey = width, floors, ground, storey
        self.bay, self.bays, self.height = bay, max(1, int(width / bay)), ground + floors * storey
        rng, style = self.rng, self.style
        self.h, w = (max(8, round(length * scale)) for length in (self.height, width))
        self.colour = np.array(paints.pick(style.walls), np.float32) + rng.normal(0, 25, 3)
        material = paints.pick(style.materials)
        self.image = np.zeros((self.h, w, 4), np.uint8)
        self.image[..., :3] = wall_surface(paints, self.h, w, scale, self.colour, material)
        # of fill: x0, z0, x1, z1, red, green, blue, lit; of shade: the factor for red and lit -1
        self.strokes = array("d")
        trim = self.colour * rng.uniform(0.5, 1.4) + rng.normal(0, 18, 3)
        self.trim = np.clip(trim, 15, 250)
        self.frame = rng.uniform(45, 245) + rng.normal(0, 8, 3)
        self.kind = rng.choice(["sash", "cross", "pair", "plain", "shutter"])

    def box(self, x0, z0, x1, z1):
        """The pixels (x, y) at the top left and bottom right of a rectangle, both inside it."""
        s, h = self.scale, self.h
        x0, z0, x1, z1 = float(x0), float(z0), float(x1), float(z1)  # numpy's own are slow
        return (round(x0 * s), round(h - z1 * s)), (round(x1 * s) - 1, round(h - z0 * s) - 1)

    def fill(self, x0, z0, x1, z1, colour, lit=0):
        """Paints a rectangle; lit: how much it shines when the room behind it is lit, 0 to 255."""
        self.strokes.extend((x0, z0, x1, z1, *colour, lit))

    def shade(self, x0, z0, x1, z1, factor):
        """Makes a rectangle darker or brighter."""
        self.strokes.extend((x0, z0, x1, z1, factor, 0, 0, -1))

    def painted(self):
        """The image with all that was painted so far."""
        if self.strokes:
            _paint(self.image, np.array(self.strokes).reshape(-1, 8), self.scale)
            self.strokes = array("d")
        return self.image

    def write(self, x0, z0, x1, z1, colour, kanji=False):
        """Writing in a rectangle; colour: RGBA."""
        a, b = self.box(x0, z0, x1, z1)
        _glyphs(self.painted(), self.rng, colour, kanji, *a, *b)

    def window(self, x0, z0, x1, z1, kind, frame):
        rng, fill = self.rng, self.fill
        wide, high = x1 - x0, z1 - z0
        dark, sky = rng.uniform(25, 75), rng.uniform(0, 70)
        tone = np.array([dark + sky * 0.8, dark + sky * 0.95, dark + sky * 1.1])
        edge = 0.09
        fill(x0 - edge, z0 - edge, x1 + edge, z1 + edge, frame)
        fill(x0 - edge, z0 - edge - 0.1, x1 + edge, z0 - edge, frame * 0.6)  # the sill's shadow
        fill(x0, z0, x1, z1, tone, 255)
        fill(x0, z0 + high * 0.55, x1, z1, tone * rng.uniform(0.7, 1.5) + rng.uniform(0, 25), 255)
        drawn = rng.random()
        if drawn < 0.35:  # a blind
            low = z1 - high * rng.uniform(0.2, 0.9)
            fill(x0, low, x1, z1, rng.uniform(110, 215) + rng.normal(0, 12, 3), 150)
        elif drawn < 0.5:  # curtains
            side = wide * rng.uniform(0.15, 0.35)
            curtain = rng.uniform(100, 215) + rng.normal(0, 15, 3)
            fill(x0, z0, x0 + side, z1, curtain, 150)
            fill(x1 - side, z0, x1, z1, curtain, 150)
        self.shade(x0, z1 - 0.18, x1, z1, 0.6)
        middle, half = (x0 + x1) / 2, (z0 + z1) / 2
        if kind in ("sash", "cross"):
            fill(x0, half - 0.04, x1, half + 0.04, frame)
        if kind in ("cross", "pair"):
            fill(middle - 0.04, z0, middle + 0.04, z1, frame)
        if kind == "shutter":
            leaf = frame * 0.5 + rng.integers(0, 90, 3)
            fill(x0 - 0.45, z0, x0 - 0.08, z1, leaf)
            fill(x1 + 0.08, z0, x1 + 0.45, z1, leaf)
        if rng.random() < 0.06:  # an air conditioner
            fill(x0 + 0.1, z0 - 0.55, x0 + 0.85, z0 - 0.05, (205, 205, 200))
            fill(x0 + 0.2, z0 - 0.48, x0 + 0.6, z0 - 0.12, (120, 120, 120))

    def columns(self, bays, pilasters):
        """Bay windows where `bays` is true, and pilasters between the window columns."""
        rng, bay, low, high = self.rng, self.bay, self.ground * 0.85, self.height - 0.9
        for k in range(self.bays):
            left, right = k * bay + 0.12, k * bay + bay - 0.12
            if bays[k]:  # its cheeks catch the light differently
                self.shade(left, low, right, high, rng.uniform(1.02, 1.12))
                self.shade(left, low, k * bay + 0.5, high, rng.uniform(0.6, 0.8))
                self.shade(k * bay + bay - 0.5, low, right, high, rng.uniform(0.75, 0.95))
                self.shade(k * bay, self.ground * 0.78, k * bay + bay, low, 0.55)
            if pilasters:
                self.fill(k * bay - 0.12, 0, left, self.height, self.trim)
                self.shade(left, 0, k * bay + 0.2, self.height, 0.7)

    def upper_floor(self, z, windows, share, sill, head, belt, rail):
        """A storey whose floor is at z, with a window in each column where `windows` is true.

        share: the windows' share of a column's width; sill, head: where they begin and end above
        the floor; belt: whether a band runs along the floor; rail: the balconies' colour or None.
        """
        rng, bay = self.rng, self.bay
        if belt:
            self.fill(0, z - 0.12, self.width, z + 0.1, self.trim)
            self.shade(0, z - 0.24, self.width, z - 0.12, 0.7)
        for k in range(self.bays):
            if not windows[k]:
                continue
            middle, half = k * bay + bay / 2, bay * share / 2
            left, right = middle - half, middle + half
            self.window(left, z + sill, right, z + head, self.kind, self.frame)
            if rail is None:
                continue
            x0, x1 = left - 0.3, right + 0.3
            self.shade(x0, z + 0.05, x1, z + 0.12, 0.45)
            if rail[0] > 120:  # a solid balcony
                self.fill(x0, z + 0.12, x1, z + sill + 0.25, rail)
                self.shade(x0, z + 0.12, x1, z + sill + 0.25, rng.uniform(0.8, 1.1))
            else:
                for x in np.arange(x0, x1, 0.22):
                    self.fill(x, z + 0.12, x + 0.08, z + sill + 0.3, rail)
            if rng.random() < 0.2:  # washing
                end, colour = middle + half * rng.uniform(0, 1), rng.integers(60, 240, 3)
                self.fill(left, z + sill + 0.1, end, z + head - 0.5, colour)

    def shop(self):
        """A shop front on the ground floor."""
        rng, fill, width = self.rng, self.fill, self.width
        board = np.clip(rng.uniform(30, 220) + rng.normal(0, 55, 3), 10, 245).astype(int)
        top = self.ground - 0.15
        fill(0.15, 0, width - 0.15, top, self.colour * rng.uniform(0.4, 0.9))
        door = rng.uniform(0.5, max(0.6, width - 1.8))
        x = 0.3
        while x < width - 0.6:
            step = min(rng.uniform(1.2, 2.8), width - 0.3 - x)
            glass = rng.uniform(25, 85)
            low = 0.1 if x <= door < x + step else rng.uniform(0.3, 0.7)
            colour = glass, glass * 1.05, glass * 1.1
            fill(x, low, x + step - 0.12, top - 0.75, colour, 255)
            for _ in range(int(rng.integers(2, 8))):  # goods, posters, people behind the glass
                gx, gz = x + rng.uniform(0, max(step - 0.5, 0.1)), rng.uniform(0.4, 1.7)
                right = min(gx + rng.uniform(0.15, 0.7), x + step - 0.14)
                head = gz + rng.uniform(0.15, 0.8)
                fill(gx, gz, right, head, rng.uniform(40, 200) + rng.normal(0, 28, 3), 255)
            x += step
        fill(0.2, top - 0.7, width - 0.2, top, board, 90)
        ink = 255 - board if abs(board.mean() - 128) > 40 else (245, 245, 240)
        self.write(0.4, top - 0.65, width - 0.4, top - 0.05, (*ink, 90), self.style.kanji)
        if rng.random() < 0.4:  # a striped awning
            stripe, n = rng.integers(40, 240, 3), max(3, int(width / 0.5))
            for k in range(n):
                x0, x1 = (0.2 + i * (width - 0.4) / n for i in (k, k + 1))
                fill(x0, top - 1.25, x1, top - 0.7, stripe if k % 2 else (235, 232, 225))
        if rng.random() < 0.15:  # closed: a shutter with writing on it
            tone = rng.uniform(110, 190) + rng.normal(0, 6, 3)
            fill(0.3, 0, width - 0.3, top - 0.75, tone)
            for z in np.arange(0.1, top - 0.8, 0.22):
                self.shade(0.3, z, width - 0.3, z + 0.07, 0.75)
            self.write(0.6, 0.3, width - 0.6, 1.8, (*rng.integers(0, 255, 3), 0))

    def entrances(self):
        """Garages, doors and windows on the ground floor of a house without a shop."""
        rng, fill, x = self.rng, self.fill, 0.3
        while x < self.width - 1.0:
            roll = rng.random()
            if roll < 0.25 and self.width - x > 3.0:  # a garage
                fill(x, 0, x + 2.6, 2.3, rng.uniform(90, 225) + rng.normal(0, 10, 3))
                for z in np.arange(0.35, 2.2, 0.48):
                    self.shade(x + 0.05, z, x + 2.55, z + 0.09, 0.72)
                x += 2.9
            elif roll < 0.55:  # a door with steps
                tone = rng.integers(25, 170, 3)
                fill(x - 0.12, 0, x + 1.12, 2.65, self.colour * 1.12)
                fill(x, 0.3, x + 1.0, 2.2, tone)
                fill(x, 2.25, x + 1.0, 2.55, (70, 80, 90), 255)
                fill(x + 0.15, 1.2, x + 0.85, 2.05, tone * 0.7 + 15)
                for k in range(2):
                    fill(x - 0.15, k * 0.15, x + 1.15, k * 0.15 + 0.13, (150 - 25 * k,) * 3)
                x += 1.6
            else:
                kind = rng.choice(["sash", "pair", "plain"])
                frame = rng.uniform(150, 240) + rng.normal(0, 8, 3)
                self.window(x, 1.0, x + 1.1, min(2.5, self.ground - 0.6), kind, frame)
                x += 1.8
            x += rng.uniform(0.1, 0.9)

    def cornice(self):
        deep = self.rng.uniform(0.3, 0.8)
        low = self.height - deep
        self.fill(0, low, self.width, self.height, self.trim)
        self.shade(0, low - 0.25, self.width, low, 0.55)
        for x in np.arange(0.1, self.width, self.rng.uniform(0.4, 0.9)):
            self.fill(x, low - 0.16, x + 0.2, low, self.trim * 0.9)

    def fire_escape(self):
        x, iron = self.rng.uniform(0.3, max(0.4, self.width - 3)), (45, 45, 48)
        for f in range(self.floors):
            z = self.ground + f * self.storey
            self.fill(x, z, x + 2.6, z + 0.12, iron)
            self.fill(x, z + 0.85, x + 2.6, z + 0.93, iron)
            for q in np.arange(x, x + 2.6, 0.4):
                self.fill(q, z, q + 0.06, z + 0.9, iron)
            (left, top), (right, bottom) = self.box(x, z, x + 2.4, z + self.storey)
            thick = max(1, int(self.scale * 0.08))
            cv2.line(self.painted(), (left, bottom), (right, top), (*iron, 0), thick)


def facade(paints, width, floors, ground, storey, bay, scale) -> np.ndarray:
    """A house front.

    Parameters
    ----------
    width : metres.
    floors : how many there are above the ground floor.
    ground, storey : heights in metres of the ground floor and of the others.
    bay : metres from window to window.
    scale : pixels per metre.

    Returns
    -------
    uint8 (H, W, 4), ground + floors * storey metres high.
    """
    front = _Front(paints, width, floors, ground, storey, bay, scale)
    rng, style = paints.rng, paints.style
    share = rng.uniform(0.35, 0.45) if front.kind == "shutter" else rng.uniform(0.4, 0.75)
    sill, head = storey * rng.uniform(0.22, 0.36), storey * rng.uniform(0.78, 0.9)
    windows = rng.random((floors + 1, front.bays)) >= 0.05
    belt, pilasters = rng.random() < 0.4, rng.random() < 0.3
    balconies, rail = rng.random() < style.balcony, rng.integers(30, 230, 3)
    front.columns(rng.random(front.bays) < (style.bay if floors > 1 else 0), pilasters)
    for f in range(floors):
        z = ground + f * storey
        front.upper_floor(z, windows[f], share, sill, head, belt, rail if balconies else None)
    if rng.random() < style.shops:
        front.shop()
    else:
        front.entrances()
    if rng.random() < style.cornice:
        front.cornice()
    if rng.random() < 0.12:  # graffiti
        x = rng.uniform(0, max(width - 2.5, 0.1))
        front.write(x, 0.3, x + 2.4, 1.6, (*rng.integers(0, 255, 3), 0))
    if rng.random() < 0.25:  # a pipe
        x = rng.uniform(0.1, width - 0.2)
        front.fill(x, 0, x + 0.12, front.height, front.trim * 0.7)
    if rng.random() < 0.15 and floors > 1:
        front.fire_escape()
    return front.painted()


# ---- sprites ----


class _Canvas:
    """A transparent image of so many metres. Places are shares of its width and height.

    Colours are RGB, or RGBA where they are not opaque. Radii and thicknesses are pixels.
    """

    def __init__(self, width, height, scale):
        self.h, self.w = (max(4, round(length * scale)) for length in (height, width))
        self.image = np.zeros((self.h, self.w, 4), np.uint8)

    def at(self, x, y):
        return int(x * self.w), int(y * self.h)

    def line(self, start, end, colour, thick):
        start, end = self.at(*start), self.at(*end)
        cv2.line(self.image, start, end, _rgba(colour), max(1, int(thick)))

    def curve(self, points, colour, thick, kind=cv2.LINE_8):
        points = (np.array(points) * [self.w, self.h]).astype(np.int32)
        cv2.polylines(self.image, [points], False, _rgba(colour), max(1, int(thick)), kind)

    def polygon(self, points, colour):
        points = (np.array(points) * [self.w, self.h]).astype(np.int32)
        cv2.fillPoly(self.image, [points], _rgba(colour))

    def box(self, x0, y0, x1, y1, colour):
        cv2.rectangle(self.image, self.at(x0, y0), self.at(x1, y1), _rgba(colour), -1)

    def disc(self, x, y, radius, colour):
        cv2.circle(self.image, self.at(x, y), max(1, int(radius)), _rgba(colour), -1)

    def ellipse(self, x, y, across, up, colour, start=0):
        """An ellipse, or its upper half where start is 180; across, up: its radii."""
        radii = max(1, int(across)), max(1, int(up))
        cv2.ellipse(self.image, self.at(x, y), radii, 0, start, 360, _rgba(colour), -1)

    def shares(self):
        """The places (y, x) of all pixels, each (h, w)."""
        return np.mgrid[: self.h, : self.w] / np.array([self.h, self.w]).reshape(2, 1, 1)

    def grained(self, paints, amount=0.25):
        """The image with noise on its colours."""
        noise = 1 + amount * (paints.cut(self.h, self.w, "rough") - 0.5)
        self.image[..., :3] = np.clip(self.image[..., :3] * noise[..., None], 0, 255)
        return self.image


def _rgba(colour):
    """A colour as OpenCV takes it, opaque where it has three channels."""
    return (*(int(channel) for channel in colour), 255)[:4]


def tree(paints, width, height, scale, palm=False) -> np.ndarray:
    """A broad-leaved tree or a palm."""
    rng, canvas = paints.rng, _Canvas(width, height, scale)
    image, h, w = canvas.image, canvas.h, canvas.w
    y, x = canvas.shares()
    trunk = np.abs(x - 0.5 - 0.03 * np.sin(y * 6 + rng.uniform(0, 6))) < 0.12 / width + 0.01
    bark = rng.uniform(50, 110) * np.array([1, 0.85, 0.7])
    image[trunk & (y > 0.25)] = _rgba(bark)
    leaf = np.array(paints.pick(LEAF_COLOURS)) * rng.uniform(0.7, 1.2)
    if palm:
        t = np.linspace(0, 1, 6)
        for angle in np.linspace(0, 2 * np.pi, 14) + rng.uniform(0, 1):
            frond_x = 0.5 + 0.45 * t * np.cos(angle)
            frond_y = 0.14 - 0.1 * t * np.sin(angle) + 0.12 * t * t
            colour = leaf * rng.uniform(0.7, 1.2)
            canvas.curve(np.stack([frond_x, frond_y], 1), colour, scale * 0.22, cv2.LINE_AA)
        return image
    noise, light = paints.cut(h, w, "rough", 1.2), paints.cut(h, w, "rough", 0.7)
    crown = ((x - 0.5) / 0.48) ** 2 + ((y - rng.uniform(0.36, 0.44)) / 0.40) ** 2
    inside = crown + 0.9 * (noise - 0.5) < rng.uniform(0.6, 0.9)
    shade = 0.45 + 0.8 * light + 0.35 * (0.45 - y)
    image[..., :3][inside] = np.clip(leaf * shade[..., None], 0, 255).astype(np.uint8)[inside]
    image[..., 3][inside] = 255
    return image


def car_side(paints, length, height, scale, boxy=False) -> tuple[np.ndarray, tuple]:
    """The side of a car, or of a van or bus where boxy, and its colour."""
    rng, canvas = paints.rng, _Canvas(length, height, scale)
    image, h = canvas.image, canvas.h
    colour, glass = paints.pick(CAR_COLOURS), (45, 52, 60)
    if boxy:
        body = [(0.01, 0.04), (0.01, 0.88), (0.99, 0.88), (0.99, 0.5), (0.94, 0.04)]
        panes = [
            [(a, 0.42), (a, 0.14), (a + 0.13, 0.14), (a + 0.13, 0.42)]
            for a in np.arange(0.05, 0.85, 0.16)
        ]
    else:
        body = [(0.02, 0.45), (0.02, 0.85), (0.98, 0.85), (0.98, 0.5), (0.8, 0.42), (0.66, 0.06)]
        body += [(0.3, 0.06), (0.16, 0.42)]
        panes = [
            [(0.2, 0.4), (0.31, 0.12), (0.47, 0.12), (0.47, 0.4)],
            [(0.5, 0.4), (0.5, 0.12), (0.64, 0.12), (0.76, 0.4)],
        ]
    canvas.polygon(body, colour)
    if boxy and rng.random() < 0.5:  # a van with writing on it
        panes = panes[-1:]
        ink, kanji = (*rng.integers(0, 255, 3), 255), rng.random() < 0.5
        _glyphs(image, rng, ink, kanji, *canvas.at(0.1, 0.2), *canvas.at(0.7, 0.6))
    for pane in panes:
        canvas.polygon(pane, glass)
    low = image[int(h * 0.72) : int(h * 0.86), :, :3]
    low[:] = (low * 0.6).astype(np.uint8)
    for x in (0.2, 0.8):
        canvas.disc(x, 0.83, h * (0.1 if boxy else 0.165), (25, 25, 25))
        canvas.disc(x, 0.83, h * 0.07, (140, 140, 140))
    return canvas.grained(paints), colour


def car_end(paints, width, height, scale, colour) -> np.ndarray:
    """The front or back of a car."""
    canvas = _Canvas(width, height, scale)
    h, w = canvas.h, canvas.w
    body = [(0.02, 0.45), (0.02, 0.95), (0.98, 0.95), (0.98, 0.45), (0.85, 0.05), (0.15, 0.05)]
    canvas.polygon(body, colour)
    canvas.polygon([(0.12, 0.42), (0.2, 0.12), (0.8, 0.12), (0.88, 0.42)], (50, 56, 64))
    for x in (0.06, 0.76):
        lamp = (235, 230, 200) if paints.rng.random() < 0.5 else (170, 30, 25)
        canvas.box(x, 0.52, x + 0.18, 0.63, lamp)
    canvas.box(0.35, 0.7, 0.65, 0.8, (225, 225, 220))
    canvas.box(0, 0.86, 1, 1, (25, 25, 25))
    canvas.image[int(h * 0.86) :, int(w * 0.25) : int(w * 0.75), 3] = 0
    return canvas.grained(paints)


def person(paints, scale) -> np.ndarray:
    """Somebody who stands or walks."""
    rng, canvas = paints.rng, _Canvas(0.7, 1.75, scale)
    h, w = canvas.h, canvas.w
    coat, legs = rng.integers(20, 225, 3), rng.integers(20, 110, 3)
    skin = np.array([215, 175, 145]) * rng.uniform(0.45, 1.05)
    step = rng.uniform(0.04, 0.22)
    for side in (-1, 1):
        foot = int(w * (0.5 + side * step)), h - 1
        cv2.line(canvas.image, canvas.at(0.5, 0.52), foot, _rgba(legs), max(1, int(w * 0.19)))
        canvas.line((0.5, 0.22), (0.5 + side * (step + 0.1), 0.5), coat, w * 0.14)
    canvas.ellipse(0.5, 0.37, w * 0.24, h * 0.19, coat)
    canvas.disc(0.5, 0.09, h * 0.075, skin)
    canvas.ellipse(0.5, 0.07, h * 0.07, h * 0.06, rng.integers(10, 90, 3), start=180)
    return canvas.grained(paints)


def lamp_post(scale) -> np.ndarray:
    """A street lamp of 6 m."""
    canvas, grey = _Canvas(2.0, 6.0, scale), (85, 88, 90)
    canvas.line((0.5, 1), (0.5, 0.04), grey, scale * 0.14)
    canvas.line((0.5, 0.04), (0.85, 0.02), grey, scale * 0.1)
    canvas.ellipse(0.86, 0.03, canvas.w * 0.12, canvas.h * 0.018, (250, 245, 225))
    return canvas.image


def lamp(colour) -> np.ndarray:
    """A round light, opaque in the middle and transparent at its edge."""
    y, x = np.mgrid[-1:1:16j, -1:1:16j]
    image = np.empty((16, 16, 4), np.uint8)
    image[:], image[..., 3] = _rgba(colour), 255 * np.clip(1.6 - 1.6 * np.hypot(x, y), 0, 1)
    return image


def pole(paints, scale) -> np.ndarray:
    """A wooden or concrete pole with cross arms and, on some, a transformer."""
    canvas = _Canvas(2.4, 9.0, scale)
    tone = paints.rng.uniform(70, 150) * np.array([1, 0.93, 0.85])
    canvas.line((0.5, 1), (0.5, 0), tone, scale * 0.26)
    for z in (0.05, 0.14):
        canvas.line((0.05, z), (0.95, z), tone, scale * 0.14)
    if paints.rng.random() < 0.5:
        canvas.box(0.58, 0.16, 0.85, 0.27, (120, 122, 124))
    return canvas.image


def wires(scale) -> np.ndarray:
    """Three wires that sag between poles 30 m apart."""
    canvas = _Canvas(30.0, 2.2, scale)
    h, w = canvas.h, canvas.w
    x = np.arange(w)
    for top, sag in ((0.05, 0.3), (0.3, 0.5), (0.45, 0.4)):
        y = np.clip((top + sag * 4 * (x / w) * (1 - x / w)) * h, 0, h - 1)
        points, thick = np.stack([x, y], 1).astype(np.int32), max(1, int(scale * 0.06))
        cv2.polylines(canvas.image, [points], False, (30, 30, 32, 230), thick)
    return canvas.image


def sign(paints, width, height, scale) -> np.ndarray:
    """A sign board or banner with writing."""
    rng, kanji, canvas = paints.rng, paints.style.kanji, _Canvas(width, height, scale)
    image, h, w = canvas.image, canvas.h, canvas.w
    board = np.clip(rng.uniform(30, 235) + rng.normal(0, 60, 3), 10, 250).astype(int)
    image[:] = _rgba(board)
    ink = np.where(board.mean() > 120, rng.integers(0, 90, 3), rng.integers(170, 255, 3))
    cv2.rectangle(image, (0, 0), (w - 1, h - 1), _rgba(ink), max(1, int(scale * 0.06)))
    if height > width * 1.5 and not kanji:
        turned = np.ascontiguousarray(np.rot90(image))
        _glyphs(turned, rng, _rgba(ink), False, 1, 1, h - 1, w - 1)
        return np.ascontiguousarray(np.rot90(turned, -1))
    _glyphs(image, rng, _rgba(ink), kanji, 1, 1, w - 1, h - 1)
    return image


def traffic_light(paints, scale) -> np.ndarray:
    """A traffic light; any of its three colours may shine."""
    canvas = _Canvas(0.9, 4.2, scale)
    canvas.line((0.5, 1), (0.5, 0), (60, 62, 64), scale * 0.14)
    canvas.box(0.3, 0, 0.7, 0.26, (35, 40, 35))
    for k, colour in enumerate(TRAFFIC_COLOURS):
        on = 1.0 if k == paints.rng.integers(3) else 0.3
        canvas.disc(0.5, 0.045 + 0.085 * k, canvas.w * 0.13, [c * on for c in colour])
    return canvas.image


def clutter(paints, scale) -> np.ndarray:
    """Street furniture of about a metre: a bin, vending machine, hydrant, box, bush or bicycle."""
    rng, kind = paints.rng, int(paints.rng.integers(6))
    sizes = [(0.6, 1.0), (1.0, 1.85), (0.4, 0.8), (0.9, 1.2), (1.6, 1.0), (1.7, 1.05)]
    canvas = _Canvas(*sizes[kind], scale)
    image, h, w = canvas.image, canvas.h, canvas.w
    colour = rng.integers(30, 225, 3)
    if kind == 4:  # a bush
        y, x = canvas.shares()
        crown = ((x - 0.5) / 0.5) ** 2 + ((y - 0.6) / 0.55) ** 2
        inside = crown + 0.8 * (paints.cut(h, w) - 0.5) < 0.85
        leaf = np.array([60, 95, 45]) * (0.5 + paints.cut(h, w, "rough", 0.7))[..., None]
        image[..., :3][inside], image[..., 3][inside] = leaf.astype(np.uint8)[inside], 255
    elif kind == 5:  # a bicycle
        for x in (0.22, 0.78):
            thick = max(1, int(scale * 0.05))
            cv2.circle(image, canvas.at(x, 0.66), int(h * 0.3), (25, 25, 25, 255), thick)
        frame = [(0.22, 0.66), (0.4, 0.25), (0.72, 0.25), (0.5, 0.66), (0.22, 0.66)]
        canvas.curve(frame, colour, scale * 0.07)
    else:
        canvas.box(0, 0, 1, 1, colour)
        canvas.box(0.15, 0.1, 0.85, 0.5, rng.integers(120, 245, 3))
    return canvas.grained(paints)
