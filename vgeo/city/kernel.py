"""Ray casting of a street scene into one photo: vertical walls, ground, sky and vertical sprites.

World axes: x east, y north, z up, metres. Every visible surface is a vertical rectangle or the
ground plane, so two photos of one facade are related by a true homography. Colours are linear RGB
(the square of the stored 8-bit value, a cheap gamma of 2), as tuples of three floats.
"""

from typing import Any, NamedTuple

import cv2
import numpy as np
from numba import njit

MAX_LAYERS = 4  # walls kept along one azimuth, nearest first: a tower shows above a nearer house
BINS_PER_PIXEL = 2  # azimuth bins per image column
LEVELS = 6  # sizes of which each texture is kept, every one half of the size before
NEAR = 0.3  # metres: nothing nearer is drawn
PAVEMENT = 3.2  # metres: width of the pavement in front of the houses
ENDLESS = 1e9  # rays: the distance of the sky
PARALLEL = 1e-9  # a ray and a wall whose cross product is smaller do not meet
HOUSE = 9.0  # metres: width of the houses that shade the other side of a street
SPRITE_HEIGHT = 2.8  # metres: where the lamps' light on a sprite is computed
MIRROR = 0.05  # the share of a lamp's light that the street mirrors
LAMP_REACH = 500.0  # square metres: the square of the distance beyond which a lamp gives no light

# These relaxations change the rounding of float64, which no 8-bit pixel shows.
FAST: dict[str, Any] = {"error_model": "numpy", "fastmath": {"contract", "arcp", "nsz"}}
# Without reference counts, which took a fifth of the time; such a function can't make an array.
INNER = FAST | {"_nrt": False}
INLINE = INNER | {"forceinline": True}

# left, right: the ends (x, y) as seen from outside; bay, storey: window spacing and storey height;
# ground: height of the ground floor; opposite: how tall the houses across the street are, 0 to 1
WALL = np.dtype(
    [("left", float, 2), ("right", float, 2)]
    + [(name, float) for name in ("height", "bay", "storey", "ground", "opposite")]
    + [("house", np.int64), ("texture", np.int64)]
)
LAMP = np.dtype([("place", float, 3), ("power", float), ("colour", float, 3)])
# place: the middle (x, y); half: half the width as a vector (x, y); low, high: z of the lower and
# upper edge; glow: light of its own; sun: the share of the sun's light that it gets; board: whether
# it is turned to the camera before `render` gets it
SPRITE = np.dtype(
    [("place", float, 2), ("half", float, 2)]
    + [(name, float) for name in ("low", "high", "glow", "sun")]
    + [("texture", np.int64), ("board", np.bool_)]
)


# What `_fronts` computes once of each wall. start: left end minus the camera's place; along: right
# minus left end; cross: their cross product; normal: unit vector to the street; tint: brightness
# of this year's paint; density: texels per metre; sun: cosine between the sun and the normal, 0 for
# a wall that faces away; ahead: metres along the light's way to the house that shades; edge: the
# shadow's height if that house had 6 m; row_seed: decides the heights of the houses that shade
FRONT = np.dtype(
    [("start", float, 2), ("along", float, 2), ("normal", float, 2)]
    + [(name, float) for name in ("cross", "height", "length", "tint", "density")]
    + [(name, float) for name in ("sun", "ahead", "edge")]
    + [("row_seed", np.int64)]
)
Vector = tuple[float, float, float]


class View(NamedTuple):
    """A camera: `size` in pixels, `axes` right, up and forward, `position`, angles in radians.

    Tuples, not arrays: the compiler can't know that writing a pixel changes no array that it reads.
    """

    size: int
    axes: tuple[Vector, Vector, Vector]
    position: Vector
    heading: float
    half_fov: float


class Scene(NamedTuple):
    """What stays: WALL rows, textures (`Textures.packed`), noise and the streets' half widths.

    The streets lie at x and y = 0, spacing, 2 spacing, ...; noise is a square `paint.cloud_noise`.
    """

    walls: np.ndarray
    texels: np.ndarray
    table: np.ndarray
    noise: np.ndarray
    half_x: np.ndarray
    half_y: np.ndarray
    spacing: float


class Lighting(NamedTuple):
    """The numbers of `light.Light` that a ray needs; cloud_white is the brightness of clouds."""

    ambient: tuple[float, float, float]
    sun_colour: tuple[float, float, float]
    sun: tuple[float, float, float]
    zenith: tuple[float, float, float]
    horizon: tuple[float, float, float]
    haze: float
    cloud: float
    lit: float
    lamp: float
    glow: float
    cloud_white: float


class Moment(NamedTuple):
    """What a photo has of its own: LAMP rows, SPRITE rows with the farthest first, the year.

    The seed decides the clouds and which windows are lit.
    """

    seed: int
    year: int
    lamps: np.ndarray
    sprites: np.ndarray


class Azimuths(NamedTuple):
    """The directions on the map that a photo sees, cut into bins of equal angle.

    They reach from -reach to reach radians off the heading. edges (bins + 1, 2): unit vectors of
    the bins' borders. layers (bins, MAX_LAYERS): the nearest walls, -1 where there are fewer.
    """

    reach: float
    edges: np.ndarray
    layers: np.ndarray


class Places(NamedTuple):
    """What the pixels of one row show.

    walls, grounds, skies: the columns that show each, as far as they are filled. wall: the number
    of the wall. t: how many rays away it is. share: of the wall's width, from its left end. flat:
    the ray's length on the map. seen: the share of the light that passes the haze.
    """

    walls: np.ndarray  # uint32, as are the next three: an index without a sign needs no check
    grounds: np.ndarray
    skies: np.ndarray
    wall: np.ndarray
    t: np.ndarray
    share: np.ndarray
    flat: np.ndarray
    seen: np.ndarray


class Textures:
    """8-bit RGBA images and their half-size levels in one array, as `render` reads them."""

    def __init__(self):
        self.data, self.table, self.length = [], [], 0

    def add(self, image: np.ndarray) -> int:
        """Adds a uint8 (H, W, 4) image, row 0 at the top; returns its number."""
        levels = []
        for level in range(LEVELS):
            if level:
                half = max(1, image.shape[1] // 2), max(1, image.shape[0] // 2)
                image = cv2.resize(image, half, interpolation=cv2.INTER_AREA)
            levels.append((self.length, image.shape[0], image.shape[1]))
            self.data.append(image.ravel())
            self.length += image.shape[0] * image.shape[1]
        self.table.append(levels)
        return len(self.table) - 1

    def packed(self) -> tuple[np.ndarray, np.ndarray]:
        """All texels and, int64 (images, levels, 3), the start, height and width of each level.

        The texels are uint32 (n,): red is the lowest byte, the fourth channel the highest.
        """
        texels = np.concatenate(self.data).view("<u4").astype(np.uint32, copy=False)
        return texels, np.array(self.table, np.int64)


# ---- colours ----


@njit(**INLINE)
def _times(a, b):
    return a[0] * b[0], a[1] * b[1], a[2] * b[2]


@njit(**INLINE)
def _plus(a, b):
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


@njit(**INLINE)
def _scaled(a, factor):
    return a[0] * factor, a[1] * factor, a[2] * factor


@njit(**INLINE)
def _mixed(a, b, share):
    """`a` where share is 0, `b` where it is 1."""
    return a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share


@njit(**INLINE)
def _flat(ray):
    """The length of a direction on the map."""
    return np.sqrt(ray[0] * ray[0] + ray[1] * ray[1])


@njit(**INLINE)
def _fading(x):
    """exp(-x) to 1e-7, for x from 0. The library's function can't be compiled into the loop."""
    x = min(x, 20.0) / -64
    y = 1 + x * (1 + x / 2 * (1 + x / 3 * (1 + x / 4 * (1 + x / 5))))
    for _ in range(6):
        y *= y
    return y


@njit(**INLINE)
def _hazy(colour, light, t, ray):
    """A colour seen through haze from a distance of t rays."""
    return _mixed(colour, light.horizon, 1 - _fading(t * _flat(ray) * light.haze))


@njit(**INLINE)
def _clipped(value):
    return min(max(value, 0.0), 1.0)


# ---- textures and noise ----


@njit(**INLINE)
def _level(square, facing):
    """The texture level for a pixel that covers square / facing texels of level 0.

    Its texels are nearest, in octaves, to the pixel's size. The pixels wait for no division.
    """
    level, limit = 0, 2 * facing
    while level < LEVELS - 1 and square >= limit:
        limit *= 4
        level += 1
    return level


@njit(**INLINE)
def _texel(texels, level, u, v):
    """The RGBA, 0 to 255, at u (0 left to 1 right) and v (0 bottom to 1 top)."""
    start, height, width = level[0], level[1], level[2]
    x = min(max(u * width - 0.5, 0.0), width - 1.0)
    y = min(max((1.0 - v) * height - 0.5, 0.0), height - 1.0)
    x0, y0 = int(x), int(y)
    fx, fy = x - x0, y - y0
    right, down = int(x0 < width - 1), width * int(y0 < height - 1)
    # one 32-bit load a texel; unsigned, so that no index is checked for being negative
    a = np.uint64(start + y0 * width + x0)
    right, down = np.uint64(right), np.uint64(down)
    a, b, c, d = texels[a], texels[a + right], texels[a + down], texels[a + down + right]
    return (
        _blend(a, b, c, d, 0, fx, fy),
        _blend(a, b, c, d, 8, fx, fy),
        _blend(a, b, c, d, 16, fx, fy),
        _blend(a, b, c, d, 24, fx, fy),
    )


@njit(**INLINE)
def _blend(a, b, c, d, shift, fx, fy):
    """Bilinear interpolation of the byte that begins at bit `shift` of four neighbours."""
    a, b = float((a >> shift) & 255), float((b >> shift) & 255)
    c, d = float((c >> shift) & 255), float((d >> shift) & 255)
    top, bottom = a + (b - a) * fx, c + (d - c) * fx
    return top + (bottom - top) * fy


@njit(**INLINE)
def _linear(texel):
    """The linear colour of an 8-bit texel."""
    return (texel[0] / 255) ** 2, (texel[1] / 255) ** 2, (texel[2] / 255) ** 2


@njit(**INLINE)
def _noise(tile, x, y):
    """Bilinear sample of square tileable float32 noise in 0..1, whose side is a power of 2."""
    last = np.uint64(tile.shape[0] - 1)
    floor_x, floor_y = np.floor(x), np.floor(y)
    fx, fy = x - floor_x, y - floor_y
    # `& last` is a remainder without a division, which would take longer than all the rest
    i, j = np.uint64(np.int64(floor_y)) & last, np.uint64(np.int64(floor_x)) & last
    i1, j1 = (i + np.uint64(1)) & last, (j + np.uint64(1)) & last
    a, b, c, d = tile[i, j], tile[i, j1], tile[i1, j], tile[i1, j1]
    top, bottom = a + (b - a) * fx, c + (d - c) * fx
    return top + (bottom - top) * fy


@njit(**INLINE)
def _rest(x, step):
    """The remainder of x by step > 0, as % has it but without calling a library."""
    return x - np.floor(x / step) * step


@njit(**INLINE)
def _hash(a, b, c):
    """A number in 0..1 from three integers."""
    h = np.uint32(a) * np.uint32(374761393) + np.uint32(b) * np.uint32(668265263)
    h += np.uint32(c) * np.uint32(2246822519)
    h = (h ^ (h >> np.uint32(13))) * np.uint32(1274126177)
    return ((h ^ (h >> np.uint32(16))) & np.uint32(0xFFFF)) / 65536.0


# ---- which wall a ray meets ----


@njit(**INLINE)
def _off(dx, dy, heading):
    """The azimuth of a direction off the heading, -pi to pi."""
    angle = np.arctan2(dx, dy) - heading
    return angle - 2 * np.pi * np.round(angle / (2 * np.pi))


@njit(**FAST)
def _directions(heading, reach, bins, shift, count):
    """Unit vectors (count, 2), each `shift` of a bin past the left border of bin 0, 1, ..."""
    out = np.empty((count, 2))
    for k in range(count):
        azimuth = heading - reach + (k + shift) * 2 * reach / bins
        out[k, 0], out[k, 1] = np.sin(azimuth), np.cos(azimuth)
    return out


@njit(**FAST)
def _layers(fronts, heading, reach, bins):
    """The `layers` of `Azimuths`."""
    middles = _directions(heading, reach, bins, 0.5, bins)
    index = np.full((bins, MAX_LAYERS), -1, np.int32)
    depth = np.full((bins, MAX_LAYERS), np.inf, np.float32)
    for w in range(len(fronts)):
        ax, ay = fronts[w].start[0], fronts[w].start[1]
        ex, ey = fronts[w].along[0], fronts[w].along[1]
        bx, by = ax + ex, ay + ey
        t0, t1 = _off(ax, ay, heading), _off(bx, by, heading)
        lo, hi = min(t0, t1), max(t0, t1)
        if hi - lo > np.pi:  # the wall passes behind the camera, and may end in view
            if hi > reach and lo < -reach:
                continue
            lo, hi = -reach, reach
        if hi < -reach or lo > reach:
            continue
        first = max(0, int((lo + reach) / (2 * reach) * bins) - 1)
        last = min(bins - 1, int((hi + reach) / (2 * reach) * bins) + 1)
        for k in range(first, last + 1):
            dx, dy = middles[k, 0], middles[k, 1]
            den = dx * ey - dy * ex
            if abs(den) < PARALLEL:
                continue
            t, s = (ax * ey - ay * ex) / den, (ax * dy - ay * dx) / den
            if t < NEAR or s < -0.02 or s > 1.02:
                continue
            for m in range(MAX_LAYERS):
                if t < depth[k, m]:
                    for n in range(MAX_LAYERS - 1, m, -1):
                        depth[k, n], index[k, n] = depth[k, n - 1], index[k, n - 1]
                    depth[k, m], index[k, m] = t, w
                    break
    return index


@njit(**INLINE)
def _bin(k, dx, dy, azimuths, heading):
    """The azimuth bin of a direction, perhaps outside the table; k: that of a pixel beside it.

    Neighbouring bins are tried first, because the arctangent took a quarter of a photo's time. It
    is taken where rounding could decide and where k leaves the table.
    """
    reach, edges = azimuths.reach, azimuths.edges
    bins = len(edges) - 1
    while 0 < k < bins - 1:
        # the sine of the angle past the bin's left and right border, times the length
        left = dx * edges[k, 1] - dy * edges[k, 0]
        right = dx * edges[k + 1, 1] - dy * edges[k + 1, 0]
        if right > 0:
            k += 1
        elif left < 0:
            k -= 1
        elif min(left, -right) > 1e-9 * (abs(dx) + abs(dy)):
            return k
        else:
            break
    return int((_off(dx, dy, heading) + reach) / (2 * reach) * bins)


@njit(**FAST)
def _fronts(scene, sun, year, x, y):
    """The FRONT rows of all walls, seen from (x, y)."""
    walls = scene.walls
    fronts = np.empty(len(walls), FRONT)
    flat = max(_flat(sun), 1e-6)
    for w in range(len(walls)):
        wall, front = walls[w], fronts[w]
        ax, ay = wall.left[0] - x, wall.left[1] - y
        ex, ey = wall.right[0] - wall.left[0], wall.right[1] - wall.left[1]
        length = np.sqrt(ex * ex + ey * ey)
        front.start[0], front.start[1], front.along[0], front.along[1] = ax, ay, ex, ey
        front.normal[0], front.normal[1] = ey / length, -ex / length
        front.cross, front.height, front.length = ax * ey - ay * ex, wall.height, length
        front.tint = 0.82 + 0.3 * _hash(wall.house, year // 4, 5)
        front.density = scene.table[wall.texture, 0, 1] / wall.height
        front.sun = max((ey * sun[0] - ex * sun[1]) / length, 0.0)
        # metres to the house that shades, along the light's way
        front.ahead = (17.0 + 6 * wall.opposite) / max(front.sun / flat, 0.15)
        front.edge = 6.0 - front.ahead * sun[2] / flat
        front.row_seed = int(wall.opposite * 50)
    return fronts


@njit(**INLINE)
def _ray(view, tangent, row, col):
    """The direction (x, y, z) through a pixel, as long as it takes to come one metre forward."""
    (right, up, forward), size = view.axes, view.size
    a = ((col + 0.5) / size * 2 - 1) * tangent
    b = -((row + 0.5) / size * 2 - 1) * tangent
    dx = forward[0] + b * up[0] + a * right[0]
    dy = forward[1] + b * up[1] + a * right[1]
    dz = forward[2] + b * up[2] + a * right[2]
    return dx, dy, dz


@njit(**INLINE)
def _hit(fronts, layers, k, eye_z, ray):
    """The first wall of bin k that a ray meets, after how many rays, at which share of its width.

    The number of the wall is -1 where the ray meets none.
    """
    dx, dy, dz = ray
    for m in range(MAX_LAYERS):
        w = layers[k, m]
        if w < 0:
            break
        front = fronts[np.uint64(w)]
        den = dx * front.along[1] - dy * front.along[0]
        if abs(den) < PARALLEL:
            continue
        t = front.cross / den
        if t >= NEAR and eye_z + t * dz < front.height:
            return w, t, _clipped((front.start[0] * dy - front.start[1] * dx) / den)
    return -1, ENDLESS, 0.0


# ---- what it looks like there ----


@njit(**INLINE)
def _illumination(light, sky, sun, lamps, x, y, z, nx, ny, nz, every_way):
    """The light on a surface: `sky` times the ambient light, `sun` times the sun's, the lamps'.

    (nx, ny, nz) is the surface's direction; a share `every_way` of the lamps' light arrives
    whatever it is.
    """
    red = light.ambient[0] * sky + light.sun_colour[0] * sun
    green = light.ambient[1] * sky + light.sun_colour[1] * sun
    blue = light.ambient[2] * sky + light.sun_colour[2] * sun
    if light.lamp > 0:
        for q in range(len(lamps)):
            lamp = lamps[q]
            lx, ly, lz = lamp.place[0] - x, lamp.place[1] - y, lamp.place[2] - z
            square = lx * lx + ly * ly + lz * lz
            if square < LAMP_REACH:
                facing = max((lx * nx + ly * ny + lz * nz) / np.sqrt(square) + every_way, 0.0)
                near = light.lamp * lamp.power * facing / (square + 3.0)
                red += near * lamp.colour[0]
                green += near * lamp.colour[1]
                blue += near * lamp.colour[2]
    return red, green, blue


@njit(**INLINE)
def _sun_on_wall(front, x, y, z):
    """The share of the sun's light on a wall: the houses across the street shade its lower part."""
    if front.sun <= 0:
        return 0.0
    along = x * front.normal[1] - y * front.normal[0] + front.ahead * 0.5
    house = int(np.floor(along / HOUSE))
    edge = front.edge + 11.0 * _hash(house, front.row_seed, 9)
    return front.sun * _clipped((z - edge) / 0.6 + 0.5)


@njit(**INLINE)
def _lit_window(light, wall, length, s, z, seed, texel):
    """What a window adds to its wall's colour: black, or the light of the room behind it."""
    if z < wall.ground:  # a shop window of 5 m
        column, storey, chance = int(s * length / 5.0), -1, min(1.0, light.lit * 1.6)
    else:
        column, chance = int(s * length / wall.bay), light.lit
        storey = int((z - wall.ground) / wall.storey)
    luck = _hash(wall.house * 31 + column, storey + 7, seed % 1000003)
    if luck >= chance:
        return 0.0, 0.0, 0.0
    warm = _hash(column, storey + 3, wall.house)
    glow = (0.35 + 0.65 * luck / chance) * texel[3] / 255 * light.glow
    inside = 0.5 + 0.5 * (texel[0] + texel[1] + texel[2]) / 500
    colour = 1.0, 0.62 + 0.3 * warm, 0.25 + 0.65 * warm
    return _scaled(colour, glow * inside)


@njit(**INLINE)
def _wall(scene, light, moment, front, point, ray, flat, footprint, w, s):
    """The colour of wall w at a point, which is the share s of its width from its left end.

    flat: the ray's length on the map; footprint: metres that the pixel covers at that distance.
    """
    wall, (x, y, z) = scene.walls[w], point
    nx, ny = front.normal[0], front.normal[1]
    facing = max(abs(ray[0] * nx + ray[1] * ny), 0.08 * flat)
    level = _level((footprint * front.density) ** 2 * flat, facing)
    texel = _texel(scene.texels, scene.table[wall.texture, level], s, z / front.height)
    sun = _sun_on_wall(front, x, y, z)
    sky = 0.55 + 0.45 * min(z / 9.0, 1.0)  # less sky is seen from low on the wall
    arriving = _illumination(light, sky, sun, moment.lamps, x, y, z, nx, ny, 0.0, 0.25)
    red, green, blue = _times(_scaled(_linear(texel), front.tint), arriving)
    if light.lit > 0 and texel[3] > 8:
        glow = _lit_window(light, wall, front.length, s, z, moment.seed, texel)
        red, green, blue = red + glow[0], green + glow[1], blue + glow[2]
    return red, green, blue


@njit(**INLINE)
def _street(p, half, spacing):
    """How far p is from the nearest street 0, spacing, ..., the street's number, half width."""
    n = min(max(int(np.round(p / spacing)), 0), len(half) - 1)
    return abs(p - n * spacing), n, half[n]


@njit(**INLINE)
def _marked(off, along, side, half, cross, cross_half):
    """Whether there is white paint on a carriageway.

    off: distance to its middle. along, side: the coordinates along and across it. cross,
    cross_half: distance to the street that crosses it, half of that street's width.
    """
    edge = cross_half - PAVEMENT
    if edge < cross < edge + 3.0:  # a zebra crossing
        return _rest(side, 1.1) < 0.55
    return off < 0.09 and _rest(along, 6.0) < 3.2 or abs(off - (half - PAVEMENT - 2.2)) < 0.05


@njit(**INLINE)
def _mirrored(light, lamps, x, y, ray, wet):
    """The light of lamps that the ground at (x, y) mirrors: a streak towards each lamp.

    wet: 0 for a rough ground to 1 for a smooth one.
    """
    red = green = blue = 0.0
    flat = _flat(ray)
    for q in range(len(lamps)):
        lamp = lamps[q]
        lx, ly, lz = lamp.place[0] - x, lamp.place[1] - y, lamp.place[2]
        away = np.sqrt(lx * lx + ly * ly)
        # A rough ground mirrors a wide range of heights and a narrow one of sides.
        ahead = (lx * ray[0] + ly * ray[1]) / (away * flat + 1e-6)
        height = lz / (away + 1e-6) + ray[2] / flat
        if ahead > 0.9:
            side = (1 - ahead) * 900.0
            strength = 1 / (1 + side * side) / (1 + 12.0 * height * height)
            strength *= MIRROR * wet * light.lamp * lamp.power / (away + 5.0)
            red += strength * lamp.colour[0]
            green += strength * lamp.colour[1]
            blue += strength * lamp.colour[2]
    return red, green, blue


@njit(**INLINE)
def _ground(scene, light, lamps, x, y, t, ray):
    """The colour of the street or pavement at (x, y), seen along a ray from the distance t."""
    noise = scene.noise
    east, ix, wx = _street(x, scene.half_x, scene.spacing)
    north, iy, wy = _street(y, scene.half_y, scene.spacing)
    far = min(t / 60.0, 1.0)
    grain = _noise(noise, x * 9, y * 9) * (1 - far) + 0.5 * far
    patch = _noise(noise, x * 0.9 + 31, y * 0.9)
    on_x, on_y = east < wx - PAVEMENT, north < wy - PAVEMENT
    if on_x or on_y:
        v = 0.075 + 0.05 * patch + 0.05 * (grain - 0.5)
        mark = False
        if on_x and not on_y:
            mark = _marked(east, y, x, wx, north, wy)
        elif on_y and not on_x:
            mark = _marked(north, x, y, wy, east, wx)
        if mark:
            v = v + (0.5 - v) * (0.55 + 0.4 * patch)
        colour = v, v, v * 1.03
    else:
        v = 0.2 + 0.08 * patch + 0.06 * (grain - 0.5)
        slab = _hash(ix, iy, 3) + 0.8  # metres
        if _rest(x, slab) < 0.05 or _rest(y, slab) < 0.05:
            v *= 0.75
        if min(abs(east - (wx - PAVEMENT)), abs(north - (wy - PAVEMENT))) < 0.2:  # the kerb
            v *= 1.25
        colour = v * 1.04, v, v * 0.93
    sun = max(light.sun[2], 0.0)
    if sun > 0:
        shade = _noise(noise, x * 0.11 + ix * 17, y * 0.11 + iy * 5)
        sun *= _clipped((shade - 0.5 + light.sun[2] * 0.35) * 6)
    arriving = _illumination(light, 0.85, sun, lamps, x, y, 0.0, 0.0, 0.0, 1.0, 0.0)
    colour = _times(colour, arriving)
    if light.lamp > 0:
        colour = _plus(colour, _mirrored(light, lamps, x, y, ray, patch))
    return colour


@njit(**INLINE)
def _sky(noise, light, seed, ray):
    """The colour of the sky in the direction of a ray."""
    dx, dy, dz = ray
    up = _clipped(dz / np.sqrt(dx * dx + dy * dy + dz * dz))
    colour = _mixed(light.horizon, light.zenith, np.sqrt(up))
    if light.cloud > 0:
        x, y = dx / (dz + 0.12) * 22 + seed % 251, dy / (dz + 0.12) * 22 + seed % 127
        puff = 0.6 * _noise(noise, x, y) + 0.4 * _noise(noise, x * 3.1, y * 3.1)
        cover = _clipped((puff - 1 + light.cloud * 0.75) * 4) * min(up * 5, 1.0)
        white = (0.75 + 0.5 * puff) * light.cloud_white
        colour = _mixed(colour, (white, white, white), cover)
    return colour


# ---- the photo ----


@njit(**INNER)
def _surfaces(view, scene, light, moment, azimuths, fronts, image, depth, places):
    """Fills the image with walls, ground and sky, and `depth` with their distances in rays.

    places: memory for one row. A row of the image is made in several loops, each of which the
    compiler can do better than all of them at once.
    """
    eye_x, eye_y, eye_z = view.position
    tangent, size = np.tan(view.half_fov), view.size
    pixel = 2 * tangent / size  # metres that a pixel covers after one ray
    first = -1  # the bin of a row's first pixel
    for row in range(size):
        k, walls, grounds, skies = first, 0, 0, 0
        for col in range(size):
            ray = _ray(view, tangent, row, col)
            k = _bin(k, ray[0], ray[1], azimuths, view.heading)
            first = k if col == 0 else first
            w, t, s = -1, ENDLESS, 0.0
            if 0 <= k < len(azimuths.layers):
                w, t, s = _hit(fronts, azimuths.layers, k, eye_z, ray)
            if w >= 0 and eye_z + t * ray[2] >= 0:
                places.walls[walls], places.wall[col], places.share[col] = col, w, s
                walls += 1
            elif ray[2] < -1e-4:
                t = -eye_z / ray[2]
                places.grounds[grounds] = col
                grounds += 1
            else:
                t = ENDLESS
                places.skies[skies] = col
                skies += 1
            places.t[col] = t
        for col in range(size):
            flat = places.flat[col] = _flat(_ray(view, tangent, row, col))
            places.seen[col] = _fading(places.t[col] * flat * light.haze)
            depth[row, col] = places.t[col]
        for n in range(walls):
            col = places.walls[n]
            ray, t = _ray(view, tangent, row, col), places.t[col]
            w, s = places.wall[col], places.share[col]
            x, y, z = eye_x + t * ray[0], eye_y + t * ray[1], eye_z + t * ray[2]
            front, point = fronts[w], (x, y, z)
            flat, wide = places.flat[col], t * pixel
            colour = _wall(scene, light, moment, front, point, ray, flat, wide, w, s)
            colour = _mixed(colour, light.horizon, 1 - places.seen[col])
            image[row, col, 0], image[row, col, 1], image[row, col, 2] = colour
        for n in range(grounds):
            col = places.grounds[n]
            ray, t = _ray(view, tangent, row, col), places.t[col]
            x, y = eye_x + t * ray[0], eye_y + t * ray[1]
            colour = _ground(scene, light, moment.lamps, x, y, t, ray)
            colour = _mixed(colour, light.horizon, 1 - places.seen[col])
            image[row, col, 0], image[row, col, 1], image[row, col, 2] = colour
        for n in range(skies):
            col = places.skies[n]
            colour = _sky(scene.noise, light, moment.seed, _ray(view, tangent, row, col))
            image[row, col, 0], image[row, col, 1], image[row, col, 2] = colour


@njit(**INNER)
def _outline(view, sprite, tangent, corners):
    """The first and last column and row that a sprite can cover; empty where it is out of view."""
    size, axes = view.size, view.axes
    for c in range(4):  # its corners as the camera sees them: right, up, forward
        side = -1.0 if c % 2 == 0 else 1.0
        x = sprite.place[0] - view.position[0] + side * sprite.half[0]
        y = sprite.place[1] - view.position[1] + side * sprite.half[1]
        z = (sprite.low if c < 2 else sprite.high) - view.position[2]
        for k in range(3):
            corners[c, k] = x * axes[k][0] + y * axes[k][1] + z * axes[k][2]
    col0, col1, row0, row1 = size, -1, size, -1
    # both ends of each edge: an end nearer than NEAR is moved to where the edge is NEAR away
    for i, j in ((0, 1), (1, 0), (1, 3), (3, 1), (3, 2), (2, 3), (2, 0), (0, 2)):
        f, g = corners[i, 2], corners[j, 2]
        if f < NEAR and g < NEAR:
            continue
        share = (NEAR - f) / (g - f) if f < NEAR else 0.0
        f = max(f, NEAR)
        x = (corners[i, 0] + share * (corners[j, 0] - corners[i, 0])) / f / tangent
        y = (corners[i, 1] + share * (corners[j, 1] - corners[i, 1])) / f / tangent
        col, row = int((x + 1) * size / 2), int((1 - y) * size / 2)
        col0, col1, row0, row1 = min(col0, col), max(col1, col), min(row0, row), max(row1, row)
    return max(col0 - 1, 0), min(col1 + 1, size - 1), max(row0 - 1, 0), min(row1 + 1, size - 1)


@njit(**INNER)
def _sprite(view, scene, light, lamps, sprite, image, depth, corners):
    """Draws a sprite over what lies behind it; the opaque parts change the depth."""
    tangent = np.tan(view.half_fov)
    col0, col1, row0, row1 = _outline(view, sprite, tangent, corners)
    if col0 > col1 or row0 > row1:
        return
    ox, oy = sprite.place[0] - view.position[0], sprite.place[1] - view.position[1]
    ux, uy, low, high = sprite.half[0], sprite.half[1], sprite.low, sprite.high
    half, away = np.hypot(ux, uy), np.hypot(ox, oy)
    nx, ny = -uy / half, ux / half
    x, y = sprite.place[0], sprite.place[1]
    red, green, blue = _illumination(
        light, 0.85, 0.55 * sprite.sun, lamps, x, y, SPRITE_HEIGHT, 0.0, 0.0, 0.0, 0.7
    )
    arriving = red + sprite.glow, green + sprite.glow, blue + sprite.glow
    density = scene.table[sprite.texture, 0, 1] / (high - low)  # texels per metre
    facing = max(abs(ox * nx + oy * ny) / max(away, 0.1), 0.1)
    pixel = 2 * tangent / view.size
    level = scene.table[sprite.texture, _level((away * pixel * density) ** 2, facing)]
    for row in range(row0, row1 + 1):
        for col in range(col0, col1 + 1):
            ray = _ray(view, tangent, row, col)
            den = ray[0] * uy - ray[1] * ux
            if abs(den) < PARALLEL:
                continue
            t = (ox * uy - oy * ux) / den
            if t < NEAR or t > depth[row, col]:
                continue
            s = (ox * ray[1] - oy * ray[0]) / den  # along the sprite's own axis, in half widths
            z = view.position[2] + t * ray[2]
            if abs(s) > 1 or z < low or z > high:
                continue
            if ray[0] * nx + ray[1] * ny > 0:  # seen from behind: right is left
                s = -s
            u, v = 0.5 - 0.5 * s, (z - low) / (high - low)
            texel = _texel(scene.texels, level, u, v)
            alpha = texel[3] / 255
            if alpha < 0.02:
                continue
            colour = _times(_linear(texel), arriving)
            colour = _hazy(colour, light, t, ray)
            for k in range(3):
                image[row, col, k] += (colour[k] - image[row, col, k]) * alpha
            if alpha > 0.5:
                depth[row, col] = t


@njit(**FAST, cache=True)
def _render(view, scene, light, moment):
    """`render` for plain tuples: a stored compilation must not name classes, which may move."""
    view, scene = View(*view), Scene(*scene)
    light, moment = Lighting(*light), Moment(*moment)
    size, x, y = view.size, view.position[0], view.position[1]
    reach = min(np.pi * 0.6, view.half_fov * 1.45 + 0.15)  # more than a rolled photo's corners see
    bins = size * BINS_PER_PIXEL
    edges = _directions(view.heading, reach, bins, 0.0, bins + 1)
    fronts = _fronts(scene, light.sun, moment.year, x, y)
    azimuths = Azimuths(reach, edges, _layers(fronts, view.heading, reach, bins))
    image, depth = np.empty((size, size, 3), np.float32), np.empty((size, size), np.float32)
    corners = np.empty((4, 3))
    t, share, flat, seen = np.empty((4, size))
    walls, grounds, skies, wall = np.empty((4, size), np.uint32)
    places = Places(walls, grounds, skies, wall, t, share, flat, seen)
    _surfaces(view, scene, light, moment, azimuths, fronts, image, depth, places)
    for n in range(len(moment.sprites)):
        sprite = moment.sprites[n]
        _sprite(view, scene, light, moment.lamps, sprite, image, depth, corners)
    return image


def render(view: View, scene: Scene, light: Lighting, moment: Moment) -> np.ndarray:
    """Renders one photo without lens and sensor: float32 (size, size, 3), linear RGB."""
    return _render(tuple(view), tuple(scene), tuple(light), tuple(moment))
