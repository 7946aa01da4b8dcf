"""Ray casting of a street scene into one photo: vertical walls, ground, sky and vertical sprites.

World axes: x east, y north, z up, metres. Every visible surface is a vertical rectangle or the ground plane, so two
photos of one facade are related by a true homography. Colours are linear (the square of the stored 8-bit value, a
cheap gamma of 2).
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit

MAX_LAYERS = (
    4  # walls kept along one azimuth, nearest first: a tower shows above the house before it
)


BINS_PER_PIXEL = 2  # azimuth bins per image column


NEAR = 0.3  # metres: nothing nearer is drawn


FAST = {
    "cache": True,
    "error_model": "numpy",
    "fastmath": {"contract", "arcp", "nsz"},
}  # rounds float64 otherwise, which no 8-bit pixel shows


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: position in metres, angles in degrees, `fov` the horizontal field of view, `size` in pixels.

    heading is clockwise from north, pitch looks up, roll turns the camera counter-clockwise (the scene clockwise).
    """

    x: float
    y: float
    z: float
    heading: float
    pitch: float
    roll: float
    fov: float
    size: int

    def axes(self):
        """Right, up and forward unit vectors, float64 (3, 3)."""
        h, p, r = np.radians([self.heading, self.pitch, self.roll])
        forward = np.array([np.sin(h) * np.cos(p), np.cos(h) * np.cos(p), np.sin(p)])
        right = np.array([np.cos(h), -np.sin(h), 0.0])
        up = np.cross(right, forward)
        return np.stack(
            [right * np.cos(r) + up * np.sin(r), up * np.cos(r) - right * np.sin(r), forward]
        )

    def project(self, points):
        """Pixel coordinates (..., 2), column and row, of world points (..., 3), which must lie in front.

        The centre of the first pixel is (0.5, 0.5).
        """
        local = (np.asarray(points, float) - [self.x, self.y, self.z]) @ self.axes().T
        half = np.tan(np.radians(self.fov) / 2)
        plane = local[..., :2] / local[..., 2:] / half
        return (plane * [1, -1] + 1) * self.size / 2


class Textures:
    """8-bit RGBA images with all their half-size levels in one flat array, as the kernel reads them."""

    def __init__(self):
        self.data, self.table, self.length = [], [], 0

    def add(self, image):
        """Adds a uint8 (H, W, 4) image, row 0 at the top; returns its number."""
        levels = []
        for _ in range(6):
            levels.append((self.length, image.shape[0], image.shape[1]))
            self.data.append(image.ravel())
            self.length += image.size
            half = max(1, image.shape[1] // 2), max(1, image.shape[0] // 2)
            image = cv2.resize(image, half, interpolation=cv2.INTER_AREA)
        self.table.append(levels)
        return len(self.table) - 1

    def packed(self):
        """All texels, uint8 (n,), and int64 (images, levels, 3): where each level starts, its height and width."""
        return np.concatenate(self.data), np.array(self.table, np.int64)


@njit(**FAST, inline="always")
def _texel(data, start, height, width, u, v, out):
    """Bilinear sample at u (0 left to 1 right), v (0 bottom to 1 top), clamped; out gets 4 values in 0..255."""
    x = min(max(u * width - 0.5, 0.0), width - 1.0)
    y = min(max((1.0 - v) * height - 0.5, 0.0), height - 1.0)
    x0, y0 = int(x), int(y)
    x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
    fx, fy = x - x0, y - y0
    a, b = start + 4 * (y0 * width + x0), start + 4 * (y0 * width + x1)
    c, d = start + 4 * (y1 * width + x0), start + 4 * (y1 * width + x1)
    for k in range(4):
        top = data[a + k] * (1 - fx) + data[b + k] * fx
        bottom = data[c + k] * (1 - fx) + data[d + k] * fx
        out[k] = top * (1 - fy) + bottom * fy


@njit(**FAST, inline="always")
def _noise(tile, x, y):
    """Bilinear sample of a square tileable float32 noise in 0..1, whose side is a power of 2."""
    last = tile.shape[0] - 1
    x0, y0 = int(np.floor(x)), int(np.floor(y))
    fx, fy = x - x0, y - y0
    i, j, i1, j1 = (
        y0 & last,
        x0 & last,
        (y0 + 1) & last,
        (x0 + 1) & last,
    )  # a division would take longer than all the rest
    return (tile[i, j] * (1 - fx) + tile[i, j1] * fx) * (1 - fy) + (
        tile[i1, j] * (1 - fx) + tile[i1, j1] * fx
    ) * fy


@njit(**FAST, inline="always")
def _hash(a, b, c):
    """A number in 0..1 from three integers."""
    h = (
        np.uint32(a) * np.uint32(374761393)
        + np.uint32(b) * np.uint32(668265263)
        + np.uint32(c) * np.uint32(2246822519)
    )
    h = (h ^ (h >> np.uint32(13))) * np.uint32(1274126177)
    return ((h ^ (h >> np.uint32(16))) & np.uint32(0xFFFF)) / 65536.0


@njit(**FAST)
def _layers(walls, cx, cy, heading, reach, bins):
    """The nearest MAX_LAYERS walls in each azimuth bin from -reach to reach off the heading; -1 where fewer."""
    middles = np.empty((bins, 2))
    for k in range(bins):
        t = heading - reach + (k + 0.5) * 2 * reach / bins
        middles[k, 0], middles[k, 1] = np.sin(t), np.cos(t)
    index = np.full((bins, MAX_LAYERS), -1, np.int32)
    depth = np.full((bins, MAX_LAYERS), np.inf, np.float32)
    for w in range(walls.shape[0]):
        ax, ay, bx, by = walls[w, 0] - cx, walls[w, 1] - cy, walls[w, 2] - cx, walls[w, 3] - cy
        t0 = np.arctan2(ax, ay) - heading
        t0 -= 2 * np.pi * np.round(t0 / (2 * np.pi))
        t1 = np.arctan2(bx, by) - heading
        t1 -= 2 * np.pi * np.round(t1 / (2 * np.pi))
        lo, hi = min(t0, t1), max(t0, t1)
        if hi - lo > np.pi:  # the wall passes behind the camera, and may end in view
            if hi > reach and lo < -reach:
                continue
            lo, hi = -reach, reach
        if hi < -reach or lo > reach:
            continue
        first = max(0, int((lo + reach) / (2 * reach) * bins) - 1)
        last = min(bins - 1, int((hi + reach) / (2 * reach) * bins) + 1)
        ex, ey = bx - ax, by - ay
        for k in range(first, last + 1):
            dx, dy = middles[k, 0], middles[k, 1]
            den = dx * ey - dy * ex
            if abs(den) < 1e-9:
                continue
            dist = (ax * ey - ay * ex) / den
            if dist < NEAR:
                continue
            s = (ax * dy - ay * dx) / den
            if s < -0.02 or s > 1.02:
                continue
            for m in range(MAX_LAYERS):
                if dist < depth[k, m]:
                    for n in range(MAX_LAYERS - 1, m, -1):
                        depth[k, n], index[k, n] = depth[k, n - 1], index[k, n - 1]
                    depth[k, m], index[k, m] = dist, w
                    break
    return index


@njit(**FAST, inline="always")
def _level(square):
    """The texture level whose texels are nearest, in octaves, to a footprint of that many texels of level 0 squared."""
    level = 0
    while level < 5 and square >= 2:
        square *= 0.25
        level += 1
    return level


@njit(**FAST, inline="always")
def _street(p, half, spacing, count):
    """Distance of coordinate p to the nearest of the streets 0, spacing, ..., its number and its half width."""
    n = min(max(int(np.round(p / spacing)), 0), count - 1)
    return abs(p - n * spacing), n, half[n]


@njit(**FAST, inline="always")
def _bin(dx, dy, heading, reach, bins):
    """The azimuth bin of a direction; it may lie outside 0 .. bins - 1."""
    azimuth = np.arctan2(dx, dy) - heading
    azimuth -= 2 * np.pi * np.round(azimuth / (2 * np.pi))
    return int((azimuth + reach) / (2 * reach) * bins)


@njit(**FAST, inline="always")
def _next_bin(k, dx, dy, edges, heading, reach, bins):
    """`_bin` from the bin k of the pixel before, without the arctangent, which took a quarter of a photo's time.

    edges (bins + 1, 2): unit vectors x, y of the bins' borders. Where rounding could decide, or k leaves the table, `_bin` decides.
    """
    while 0 < k < bins - 1:
        left = (
            dx * edges[k, 1] - dy * edges[k, 0]
        )  # the sine of the angle past the bin's left border, times the length
        right = dx * edges[k + 1, 1] - dy * edges[k + 1, 0]
        if right > 0:
            k += 1
        elif left < 0:
            k -= 1
        elif min(left, -right) > 1e-9 * (abs(dx) + abs(dy)):
            return k
        else:
            break
    return _bin(dx, dy, heading, reach, bins)


@njit(**FAST)
def render(
    size,
    axes,
    position,
    heading,
    half_fov,
    walls,
    wall_texture,
    data,
    table,
    noise,
    half_x,
    half_y,
    spacing,
    light,
    lamps,
    seed,
    epoch,
    sprites,
    sprite_texture,
    image,
):
    """Fills image, float32 (size, size, 3) RGB, with linear light; metres and radians.

    axes, position, heading, half_fov: the camera (`Camera.axes`; position (3,)). data, table: `Textures.packed`.
    walls (n, 10): x, y of the left and right end as seen from outside, height, window spacing, storey height, height of
    the ground floor, house number, how tall the houses opposite are (0..1). wall_texture, sprite_texture: int64 (n,).
    noise: a square `paint.cloud_noise` tile. half_x, half_y, spacing: half widths of the streets, their distance.
    light: `city.Light.vector`. lamps (n, 7): x, y, z, power, RGB. seed: of clouds and lit windows; epoch: the year.
    sprites (n, 8), far ones first: x, y, half width as a vector (x, y), lowest and highest z, glow, share of the sun.
    """
    reach = min(np.pi * 0.6, half_fov * 1.45 + 0.15)
    bins = size * BINS_PER_PIXEL
    layers = _layers(walls, position[0], position[1], heading, reach, bins)
    tangent = np.tan(half_fov)
    pixel = 2 * tangent / size  # footprint of a pixel at one metre
    depth = np.full((size, size), np.float32(1e9))
    sample = np.zeros(4, np.float64)
    sun_x, sun_y, sun_z = light[6], light[7], light[8]
    sun_flat = max(np.hypot(sun_x, sun_y), 1e-6)
    haze, cloud, lit, lamp = light[15], light[16], light[17], light[18]
    edges = np.empty((bins + 1, 2))
    for k in range(bins + 1):
        border = heading - reach + k * 2 * reach / bins
        edges[k, 0], edges[k, 1] = np.sin(border), np.cos(border)
    fronts = np.empty(
        (walls.shape[0], 4)
    )  # of each wall: length, direction towards the street, brightness of its paint
    for w in range(walls.shape[0]):
        ex, ey = walls[w, 2] - walls[w, 0], walls[w, 3] - walls[w, 1]
        length = np.sqrt(ex * ex + ey * ey)
        fronts[w, 0], fronts[w, 1], fronts[w, 2] = length, ey / length, -ex / length
        fronts[w, 3] = 0.82 + 0.3 * _hash(int(walls[w, 8]), epoch // 4, 5)
    first = -1  # the bin of a row's first pixel
    for row in range(size):
        k = first
        b = -((row + 0.5) / size * 2 - 1) * tangent
        for col in range(size):
            a = ((col + 0.5) / size * 2 - 1) * tangent
            dx = axes[2, 0] + a * axes[0, 0] + b * axes[1, 0]
            dy = axes[2, 1] + a * axes[0, 1] + b * axes[1, 1]
            dz = axes[2, 2] + a * axes[0, 2] + b * axes[1, 2]
            k = _next_bin(k, dx, dy, edges, heading, reach, bins)
            first = k if col == 0 else first
            hit, hit_t, hit_s = -1, 1e9, 0.0
            if 0 <= k < bins:
                for m in range(MAX_LAYERS):
                    w = layers[k, m]
                    if w < 0:
                        break
                    ax, ay = walls[w, 0] - position[0], walls[w, 1] - position[1]
                    ex, ey = walls[w, 2] - walls[w, 0], walls[w, 3] - walls[w, 1]
                    den = dx * ey - dy * ex
                    if abs(den) < 1e-9:
                        continue
                    t = (ax * ey - ay * ex) / den
                    if t < NEAR:
                        continue
                    z = position[2] + t * dz
                    if z < walls[w, 4]:
                        hit, hit_t, hit_s = w, t, min(max((ax * dy - ay * dx) / den, 0.0), 1.0)
                        break
            r = g = bl = 0.0
            if hit >= 0 and position[2] + hit_t * dz >= 0:
                w, t = hit, hit_t
                z = position[2] + t * dz
                height = walls[w, 4]
                length, nx, ny, tint = fronts[w, 0], fronts[w, 1], fronts[w, 2], fronts[w, 3]
                flat = np.sqrt(dx * dx + dy * dy)
                facing = max(abs(dx * nx + dy * ny) / flat, 0.08)
                number = wall_texture[w]
                texels = table[number, 0, 1] / height
                level = _level((t * pixel * texels) ** 2 / facing)
                start, rows, cols = (
                    table[number, level, 0],
                    table[number, level, 1],
                    table[number, level, 2],
                )
                _texel(data, start, rows, cols, hit_s, z / height, sample)
                r, g, bl = (
                    (sample[0] / 255) ** 2 * tint,
                    (sample[1] / 255) ** 2 * tint,
                    (sample[2] / 255) ** 2 * tint,
                )
                px, py = position[0] + t * dx, position[1] + t * dy
                sun = max(nx * sun_x + ny * sun_y, 0.0)
                if sun > 0:  # the houses across the street shade the lower part
                    across = (nx * sun_x + ny * sun_y) / sun_flat
                    ahead = (17.0 + 6 * walls[w, 9]) / max(across, 0.15)
                    along = int(np.floor((px * ny - py * nx + ahead * 0.5) / 9.0))
                    edge = (
                        6.0
                        + 11.0 * _hash(along, int(walls[w, 9] * 50), 9)
                        - ahead * sun_z / sun_flat
                    )
                    sun *= min(max((z - edge) / 0.6 + 0.5, 0.0), 1.0)
                sky = 0.55 + 0.45 * min(z / 9.0, 1.0)  # less sky is seen from low on the wall
                lr = light[0] * sky + light[3] * sun
                lg = light[1] * sky + light[4] * sun
                lb = light[2] * sky + light[5] * sun
                if lamp > 0:
                    for q in range(lamps.shape[0]):
                        lx, ly, lz = lamps[q, 0] - px, lamps[q, 1] - py, lamps[q, 2] - z
                        d2 = lx * lx + ly * ly + lz * lz
                        if d2 < 500:
                            near = (
                                lamp
                                * lamps[q, 3]
                                * max((lx * nx + ly * ny) / np.sqrt(d2) + 0.25, 0.0)
                                / (d2 + 3.0)
                            )
                            lr, lg, lb = (
                                lr + near * lamps[q, 4],
                                lg + near * lamps[q, 5],
                                lb + near * lamps[q, 6],
                            )
                r, g, bl = r * lr, g * lg, bl * lb
                if lit > 0 and sample[3] > 8:
                    ground = walls[w, 7]
                    if z < ground:
                        cu, cz, chance = int(hit_s * length / 5.0), -1, min(1.0, lit * 1.6)
                    else:
                        cu, cz, chance = (
                            int(hit_s * length / walls[w, 5]),
                            int((z - ground) / walls[w, 6]),
                            lit,
                        )
                    h = _hash(int(walls[w, 8]) * 31 + cu, cz + 7, seed % 1000003)
                    if h < chance:
                        warm = _hash(cu, cz + 3, int(walls[w, 8]))
                        glow = (0.35 + 0.65 * h / chance) * sample[3] / 255 * light[19]
                        inside = 0.5 + 0.5 * (sample[0] + sample[1] + sample[2]) / 500
                        r += glow * inside
                        g += glow * inside * (0.62 + 0.3 * warm)
                        bl += glow * inside * (0.25 + 0.65 * warm)
                depth[row, col] = t
                fog = 1 - np.exp(-t * flat * haze)
                r, g, bl = (
                    r + (light[12] - r) * fog,
                    g + (light[13] - g) * fog,
                    bl + (light[14] - bl) * fog,
                )
            elif dz < -1e-4:
                t = -position[2] / dz
                px, py = position[0] + t * dx, position[1] + t * dy
                east, ix, wx = _street(px, half_x, spacing, half_x.shape[0])
                north, iy, wy = _street(py, half_y, spacing, half_y.shape[0])
                far = min(t / 60.0, 1.0)
                grain = _noise(noise, px * 9, py * 9) * (1 - far) + 0.5 * far
                patch = _noise(noise, px * 0.9 + 31, py * 0.9)
                pave = 3.2  # width of the sidewalk, metres
                on_x, on_y = east < wx - pave, north < wy - pave
                if on_x or on_y:
                    v = 0.075 + 0.05 * patch + 0.05 * (grain - 0.5)
                    mark = False
                    if on_x and not on_y:
                        mark = (
                            east < 0.09 and (py % 6.0) < 3.2 or abs(east - (wx - pave - 2.2)) < 0.05
                        )
                        if wy - pave < north < wy - pave + 3.0:
                            mark = (px % 1.1) < 0.55
                    elif on_y and not on_x:
                        mark = (
                            north < 0.09
                            and (px % 6.0) < 3.2
                            or abs(north - (wy - pave - 2.2)) < 0.05
                        )
                        if wx - pave < east < wx - pave + 3.0:
                            mark = (py % 1.1) < 0.55
                    if mark:
                        v = v + (0.5 - v) * (0.55 + 0.4 * patch)
                    r, g, bl = v, v, v * 1.03
                else:
                    v = 0.2 + 0.08 * patch + 0.06 * (grain - 0.5)
                    slab = _hash(ix, iy, 3) + 0.8  # metres
                    if (px % slab) < 0.05 or (py % slab) < 0.05:
                        v *= 0.75
                    if min(abs(east - (wx - pave)), abs(north - (wy - pave))) < 0.2:
                        v *= 1.25
                    r, g, bl = v * 1.04, v, v * 0.93
                sun = max(sun_z, 0.0)
                if sun > 0:
                    shade = _noise(noise, px * 0.11 + ix * 17, py * 0.11 + iy * 5)
                    sun *= min(max((shade - 0.5 + sun_z * 0.35) * 6, 0.0), 1.0)
                lr = light[0] * 0.85 + light[3] * sun
                lg = light[1] * 0.85 + light[4] * sun
                lb = light[2] * 0.85 + light[5] * sun
                if lamp > 0:
                    for q in range(lamps.shape[0]):
                        lx, ly, lz = lamps[q, 0] - px, lamps[q, 1] - py, lamps[q, 2]
                        d2 = lx * lx + ly * ly + lz * lz
                        if d2 < 500:
                            near = lamp * lamps[q, 3] * lz / np.sqrt(d2) / (d2 + 3.0)
                            lr, lg, lb = (
                                lr + near * lamps[q, 4],
                                lg + near * lamps[q, 5],
                                lb + near * lamps[q, 6],
                            )
                r, g, bl = r * lr, g * lg, bl * lb
                depth[row, col] = t
                fog = 1 - np.exp(-t * np.sqrt(dx * dx + dy * dy) * haze)
                r, g, bl = (
                    r + (light[12] - r) * fog,
                    g + (light[13] - g) * fog,
                    bl + (light[14] - bl) * fog,
                )
            else:
                up = min(max(dz / np.sqrt(dx * dx + dy * dy + dz * dz), 0.0), 1.0)
                mix = np.sqrt(up)
                r = light[12] + (light[9] - light[12]) * mix
                g = light[13] + (light[10] - light[13]) * mix
                bl = light[14] + (light[11] - light[14]) * mix
                if cloud > 0:
                    sx, sy = dx / (dz + 0.12) * 22 + seed % 251, dy / (dz + 0.12) * 22 + seed % 127
                    puff = 0.6 * _noise(noise, sx, sy) + 0.4 * _noise(noise, sx * 3.1, sy * 3.1)
                    cover = min(max((puff - 1 + cloud * 0.75) * 4, 0.0), 1.0) * min(up * 5, 1.0)
                    white = (0.75 + 0.5 * puff) * light[20]
                    r, g, bl = (
                        r + (white - r) * cover,
                        g + (white - g) * cover,
                        bl + (white - bl) * cover,
                    )
            image[row, col, 0], image[row, col, 1], image[row, col, 2] = r, g, bl

    corners = np.empty((4, 3))
    # sprites: vertical rectangles with transparency, far ones first
    for n in range(sprites.shape[0]):
        ox, oy = sprites[n, 0] - position[0], sprites[n, 1] - position[1]
        ux, uy, z0, z1 = sprites[n, 2], sprites[n, 3], sprites[n, 4], sprites[n, 5]
        glow, shade = sprites[n, 6], sprites[n, 7]
        for c in range(4):  # its corners as the camera sees them: right, up, forward
            sx, sz = (-1.0 if c % 2 == 0 else 1.0), (z0 if c < 2 else z1) - position[2]
            wx, wy = ox + sx * ux, oy + sx * uy
            for k in range(3):
                corners[c, k] = wx * axes[k, 0] + wy * axes[k, 1] + sz * axes[k, 2]
        col0, col1, row0, row1 = size, -1, size, -1
        for i, j in (
            (0, 1),
            (1, 3),
            (3, 2),
            (2, 0),
        ):  # each edge's two ends, the nearer moved to NEAR where it lies before it
            for c, other in ((i, j), (j, i)):
                f, g = corners[c, 2], corners[other, 2]
                if f < NEAR and g < NEAR:
                    continue
                share = (NEAR - f) / (g - f) if f < NEAR else 0.0
                f = max(f, NEAR)
                cx = (corners[c, 0] + share * (corners[other, 0] - corners[c, 0])) / f / tangent
                cy = (corners[c, 1] + share * (corners[other, 1] - corners[c, 1])) / f / tangent
                col, row = int((cx + 1) * size / 2), int((1 - cy) * size / 2)
                col0, col1, row0, row1 = (
                    min(col0, col),
                    max(col1, col),
                    min(row0, row),
                    max(row1, row),
                )
        col0, col1, row0, row1 = (
            max(col0 - 1, 0),
            min(col1 + 1, size - 1),
            max(row0 - 1, 0),
            min(row1 + 1, size - 1),
        )
        if col0 > col1 or row0 > row1:
            continue
        number = sprite_texture[n]
        half = np.hypot(ux, uy)
        nx, ny = -uy / half, ux / half
        lr = light[0] * 0.85 + light[3] * 0.55 * shade
        lg = light[1] * 0.85 + light[4] * 0.55 * shade
        lb = light[2] * 0.85 + light[5] * 0.55 * shade
        if lamp > 0:
            for q in range(lamps.shape[0]):
                lx, ly = lamps[q, 0] - sprites[n, 0], lamps[q, 1] - sprites[n, 1]
                d2 = lx * lx + ly * ly + 9.0
                if d2 < 500:
                    near = 0.7 * lamp * lamps[q, 3] / (d2 + 3.0)
                    lr, lg, lb = (
                        lr + near * lamps[q, 4],
                        lg + near * lamps[q, 5],
                        lb + near * lamps[q, 6],
                    )
        texels = table[number, 0, 1] / (z1 - z0)
        mean_t = np.hypot(ox, oy)
        facing = max(abs(ox * nx + oy * ny) / max(mean_t, 0.1), 0.1)
        level = _level((mean_t * pixel * texels) ** 2 / facing)
        start, height, width = (
            table[number, level, 0],
            table[number, level, 1],
            table[number, level, 2],
        )
        for row in range(row0, row1 + 1):
            b = -((row + 0.5) / size * 2 - 1) * tangent
            for col in range(col0, col1 + 1):
                a = ((col + 0.5) / size * 2 - 1) * tangent
                dx = axes[2, 0] + a * axes[0, 0] + b * axes[1, 0]
                dy = axes[2, 1] + a * axes[0, 1] + b * axes[1, 1]
                dz = axes[2, 2] + a * axes[0, 2] + b * axes[1, 2]
                den = dx * uy - dy * ux
                if abs(den) < 1e-9:
                    continue
                t = (ox * uy - oy * ux) / den
                if t < NEAR or t > depth[row, col]:
                    continue
                s = (ox * dy - oy * dx) / den  # along the sprite's own axis, in half widths
                z = position[2] + t * dz
                if abs(s) > 1 or z < z0 or z > z1:
                    continue
                if dx * nx + dy * ny > 0:  # seen from behind: right is left
                    s = -s
                _texel(data, start, height, width, 0.5 - 0.5 * s, (z - z0) / (z1 - z0), sample)
                alpha = sample[3] / 255
                if alpha < 0.02:
                    continue
                r, g, bl = (sample[0] / 255) ** 2, (sample[1] / 255) ** 2, (sample[2] / 255) ** 2
                r, g, bl = r * (lr + glow), g * (lg + glow), bl * (lb + glow)
                fog = 1 - np.exp(-t * np.sqrt(dx * dx + dy * dy) * haze)
                r, g, bl = (
                    r + (light[12] - r) * fog,
                    g + (light[13] - g) * fog,
                    bl + (light[14] - bl) * fog,
                )
                image[row, col, 0] += (r - image[row, col, 0]) * alpha
                image[row, col, 1] += (g - image[row, col, 1]) * alpha
                image[row, col, 2] += (bl - image[row, col, 2]) * alpha
                if alpha > 0.5:
                    depth[row, col] = t
