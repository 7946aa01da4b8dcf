"""TODO: city.district."""

from functools import lru_cache

import cv2
import numpy as np

from vgeo.city.kernel import Textures, render
from vgeo.city.paint import (
    Paints,
    car_end,
    car_side,
    clutter,
    facade,
    lamp_post,
    person,
    pole,
    sign,
    traffic_light,
    tree,
    wall_surface,
    wires,
)
from vgeo.city.plan import SPACING


class District:
    """`blocks` x `blocks` blocks and the streets around them, from a seed and a style; metres from the first crossing.

    walls, lamps: as `render` takes them. fixed, signs, slots: what `_furnish`, `_row` and `_slots` put there.
    """

    def __init__(self, seed, style, blocks, texels):
        """texels: texture pixels per metre; about a tenth of the photos' width in pixels is enough."""
        self.style, self.blocks, self.texels = style, blocks, texels
        self.rng = rng = np.random.default_rng(seed)
        self.paints = Paints(rng)
        self.half_x, self.half_y = (rng.uniform(*style.street, blocks + 1) for _ in range(2))
        self.textures = Textures()
        self.walls, self.wall_texture = [], []
        self.fixed, self.signs, self.lamps = [], [], []
        self._stock()
        self._build()
        self._furnish()
        self.walls, self.wall_texture = np.array(self.walls), np.array(self.wall_texture)
        self.lamps, self.cars, self.people = (
            np.array(self.lamps),
            np.array(self.cars),
            np.array(self.people),
        )
        self.slots = self._slots()
        self.data, self.table = self.textures.packed()
        del self.textures

    def _stock(self):
        """The pool of sprites that the streets are furnished from."""
        p, rng, s, add = self.paints, self.rng, self.texels, self.textures.add
        self.trees = []
        for _ in range(8):
            w, h = rng.uniform(3, 6), rng.uniform(4.5, 9)
            self.trees.append((add(tree(p, rng, w, h, s)), w, h))
        if self.style.palms:
            for _ in range(3):
                h = rng.uniform(6, 11)
                self.trees.append((add(tree(p, rng, 4, h, s, palm=True)), 4.0, h))
        self.cars = []
        for k in range(14):
            boxy = k % 5 == 4
            if boxy:
                length, width, height = rng.uniform(5.5, 8.5), 2.2, rng.uniform(2.4, 3.2)
            else:
                length, width, height = rng.uniform(3.8, 4.9), 1.8, rng.uniform(1.4, 1.8)
            side, colour = car_side(p, rng, length, height, 2 * s, boxy)
            end = car_end(p, rng, width, height, 2 * s, colour)
            self.cars.append((add(side), add(end), length, width, height))
        self.people = [add(person(p, rng, 2.5 * s)) for _ in range(18)]
        self.lamp_texture, self.wire_texture = add(lamp_post(1.5 * s)), add(wires(1.5 * s))
        self.poles = [add(pole(rng, 1.5 * s)) for _ in range(3)]
        self.traffic = [add(traffic_light(rng, 2 * s)) for _ in range(3)]
        self.clutter = []
        for _ in range(14):
            image = clutter(p, rng, 2 * s)
            self.clutter.append((add(image), image.shape[1] / (2 * s), image.shape[0] / (2 * s)))
        self.blades = []
        for _ in range(40):
            if rng.random() < 0.6:  # a banner, else a board
                w, h = rng.uniform(0.5, 1.0), rng.uniform(1.5, 4.5)
            else:
                w, h = rng.uniform(0.9, 1.8), rng.uniform(0.5, 1.0)
            self.blades.append((add(sign(rng, w, h, 2 * s, self.style.kanji)), w, h))

    def _build(self):
        """Houses along every street: a front, and two bare side walls where it stands out."""
        n = self.blocks
        for i in range(-1, n + 1):
            for j in range(-1, n + 1):
                west = i * SPACING + (self.half_x[i] if 0 <= i <= n else 9)
                east = (i + 1) * SPACING - (self.half_x[i + 1] if i + 1 <= n else 9)
                south = j * SPACING + (self.half_y[j] if 0 <= j <= n else 9)
                north = (j + 1) * SPACING - (self.half_y[j + 1] if j + 1 <= n else 9)
                # each side runs from left to right as seen from its street: start, direction, length, street is real
                sides = (
                    ((west, north), (0, -1), north - south, i >= 0),
                    ((east, south), (0, 1), north - south, i < n),
                    ((west, south), (1, 0), east - west, j >= 0),
                    ((east, north), (-1, 0), east - west, j < n),
                )
                for start, along, length, real in sides:
                    if real:
                        self._row(np.array(start), np.array(along, float), length)

    def _row(self, start, along, length):
        """Houses wall to wall along one side of a block; their blade signs, (x, y, half width x, y, z, house) each."""
        rng, style, s = self.rng, self.style, self.texels
        inward = np.array([-along[1], along[0]])
        at = 0.0
        while at < length - 0.01:
            width = min(rng.uniform(*style.lot), length - at)
            if length - at - width < style.lot[0] * 0.7:
                width = length - at
            floors = int(rng.integers(style.floors[0], style.floors[1] + 1))
            ground, storey = rng.uniform(3.3, 4.4), rng.uniform(2.7, 3.4)
            bay = width / max(1, round(width / rng.uniform(1.7, 3.2)))
            height, house = ground + floors * storey, int(rng.integers(1 << 20))
            back = rng.uniform(0, style.setback) if rng.random() < 0.6 else 0.0
            p0, p1 = (
                start + along * at + inward * back,
                start + along * (at + width) + inward * back,
            )
            tall = rng.uniform(0, 1)
            h, w = int(height * s / 2), int(10 * s / 2)
            bare = wall_surface(self.paints, rng, style, h, w, s / 2)
            side = self.textures.add(np.dstack([bare, np.zeros((h, w), np.uint8)]))
            front = self.textures.add(
                facade(self.paints, rng, style, width, floors, ground, storey, bay, s)
            )
            for a, b, number in (
                (p0, p1, front),
                (p0 + inward * 11, p0, side),
                (p1, p1 + inward * 11, side),
            ):
                self.walls.append([*a, *b, height, bay, storey, ground, house, tall])
                self.wall_texture.append(number)
            if rng.random() < style.blades:
                for _ in range(int(rng.integers(1, 4 if style.kanji else 2))):
                    spot = p0 + along * rng.uniform(0.5, max(width - 0.5, 0.6))
                    z = rng.uniform(2.6, max(3.0, min(height - 3, 8)))
                    self.signs.append((*(spot - inward * 0.7), *(inward * 0.5), z, house))
            at += width

    def _furnish(self):
        """Trees, lamps, poles, wires, traffic lights and clutter along the kerbs: sprites that stay over the years.

        A row each: x, y, half width x, y, lowest and highest z, texture, glow, 0 where it turns to the camera.
        """
        rng, style, n = self.rng, self.style, self.blocks
        for street in range(2 * (n + 1)):
            vertical, k = street < n + 1, street % (n + 1)
            half = (self.half_x if vertical else self.half_y)[k]
            planted, wired = rng.random() < style.trees * 1.6, rng.random() < style.wires
            for side in (-1, 1):
                kerb = k * SPACING + side * (half - 2.7)
                axis, across = np.array([0.0, 1.0]), np.array([1.0, 0.0])
                if not vertical:
                    axis, across = across, axis
                put = lambda q, axis=axis, across=across, kerb=kerb: axis * q + across * kerb  # noqa: E731
                clear = [c * SPACING for c in range(n + 1)]
                free = lambda q, clear=clear: all(abs(q - c) > 8.0 for c in clear)  # noqa: E731
                for q in np.arange(-55, n * SPACING + 55, 24) + rng.uniform(0, 12):
                    if free(q):
                        xy = put(q)
                        self.fixed.append(
                            (*xy, *(across * 1.0 * -side), 0.0, 6.0, self.lamp_texture, 0.0, 1)
                        )
                        colour = [(1.0, 0.78, 0.45), (1.0, 0.92, 0.78), (0.85, 0.95, 1.0)][
                            rng.integers(3)
                        ]
                        self.lamps.append(
                            [*(xy - across * side * 0.9), 5.8, rng.uniform(0.6, 1.4), *colour]
                        )
                if planted:
                    for q in np.arange(-50, n * SPACING + 50, rng.uniform(7, 14)):
                        if free(q) and rng.random() < 0.75:
                            texture, w, h = self.trees[rng.integers(len(self.trees))]
                            self.fixed.append(
                                (*put(q + rng.uniform(-1, 1)), w / 2, 0.0, 0.0, h, texture, 0.0, 0)
                            )
                if wired and side == 1:
                    for q in np.arange(-60, n * SPACING + 60, 30.0):
                        pole = self.poles[rng.integers(len(self.poles))]
                        self.fixed.append((*put(q), *(across * 1.2), 0.0, 9.0, pole, 0.0, 1))
                        self.fixed.append(
                            (*put(q + 15), *(axis * 15), 6.9, 9.1, self.wire_texture, 0.0, 1)
                        )
                for q in np.arange(-50, n * SPACING + 50, 5.0):
                    if free(q) and rng.random() < 0.22:
                        texture, w, h = self.clutter[rng.integers(len(self.clutter))]
                        xy = put(q + rng.uniform(-2, 2)) + across * side * rng.choice([0.0, 2.2])
                        self.fixed.append((*xy, *(axis * w / 2), 0.0, h, texture, 0.0, 1))
                for c in clear:
                    if rng.random() < 0.6:
                        light = self.traffic[rng.integers(3)]
                        self.fixed.append(
                            (
                                *put(c + side * (half - 1)),
                                *(across * 0.45),
                                0.0,
                                4.2,
                                light,
                                0.15,
                                1,
                            )
                        )

    def _slots(self):
        """Where cars can stand or drive, every 6.2 m: (x, y, axis x, axis y, street, moving) a row."""
        out = []
        for street, vertical, k, half in self._streets():
            for side in (-1, 1):
                for q in np.arange(-40, self.blocks * SPACING + 40, 6.2):
                    if min(abs(q - c * SPACING) for c in range(self.blocks + 1)) < 14:
                        continue
                    for moving, offset in ((0, half - 4.3), (1, max(half - 7.2, 1.2))):
                        across = k * SPACING + side * offset
                        out.append(
                            (across, q, 0, 1, street, moving)
                            if vertical
                            else (q, across, 1, 0, street, moving)
                        )
        return np.array(out)

    def _streets(self):
        """(number, runs north, its line, half width) of every street."""
        n = self.blocks + 1
        return [(k, True, k, self.half_x[k]) for k in range(n)] + [
            (n + k, False, k, self.half_y[k]) for k in range(n)
        ]

    def _traffic(self, rng, camera, crowd):
        """Parked and moving cars and people of one moment, as rows of sprites.

        A row is one of `render`'s sprites, then its texture and 0 where it turns to the camera.
        """
        here = np.array([camera.x, camera.y])
        streets = self._streets()
        share = np.stack(
            [rng.uniform(0.15, 0.75, len(streets)), rng.uniform(0, 0.1, len(streets)) * crowd], 1
        )
        slots = self.slots
        away = np.hypot(*(slots[:, :2] - here).T)
        taken = rng.random(len(slots)) < share[slots[:, 4].astype(int), slots[:, 5].astype(int)]
        slots = slots[taken & (away > 3.4) & (away < 60)]
        axis = slots[:, 2:4]
        xy = slots[:, :2] + axis * rng.uniform(-0.6, 0.6, (len(slots), 1))
        cars = self.cars[rng.integers(len(self.cars), size=len(slots))]
        side, end, length, width, height = (cars[:, k : k + 1] for k in range(5))
        across, one = axis[:, ::-1], np.ones_like(side)
        shade = rng.random((len(slots), 1))
        body = [0.05 * one, height, 0 * one, shade]
        rows = [
            np.hstack([xy + sign * across * width / 2, axis * length / 2, *body, side, one])
            for sign in (-1, 1)
        ]
        rows += [
            np.hstack([xy + sign * axis * length * 0.47, across * width / 2, *body, end, one])
            for sign in (-1, 1)
        ]
        for _, vertical, k, half in streets:
            if abs(here[0 if vertical else 1] - k * SPACING) < 45:
                n = rng.poisson(5 * crowd)
                line = k * SPACING + rng.choice([-1, 1], n) * (half - rng.uniform(0.5, 3.0, n))
                along = here[1 if vertical else 0] + rng.uniform(-40, 40, n)
                spot = np.stack([line, along] if vertical else [along, line], 1)
                people = self.people[rng.integers(len(self.people), size=n)]
                zero = np.zeros(n)
                walkers = np.column_stack(
                    [
                        spot,
                        zero + 0.35,
                        zero,
                        zero,
                        rng.uniform(1.5, 1.9, n),
                        zero,
                        rng.random(n),
                        people,
                        zero,
                    ]
                )
                rows.append(walkers[np.hypot(*(spot - here).T) > 1.6])
        return np.vstack(rows)

    @lru_cache(maxsize=8)
    def _standing(self, era, glow):
        """Furniture and blade signs as rows of sprites; a quarter of the houses change their signs every third year."""
        rows = [(*f[:6], f[7], 0.6, f[6], f[8]) for f in self.fixed]
        for x, y, ux, uy, z, house in self.signs:
            texture, w, h = self.blades[
                (house * 7919 + (era if house % 4 == 0 else 0) * 104729) % len(self.blades)
            ]
            out = np.array([ux, uy]) / np.hypot(ux, uy)
            x, y = x - out[0] * (w / 2 - 0.5), y - out[1] * (w / 2 - 0.5)
            rows.append(
                (x, y, *(out * w / 2), z, z + h, glow if house % 3 else 0.0, 0.6, texture, 1)
            )
        return np.array(rows)

    def photo(self, camera, light, month, rng, crowd=1.0):
        """A photo, uint8 (size, size, 3) RGB.

        The month, yyyymm, decides which signs and paint are there; crowd scales the number of moving cars and people.
        It is rendered a third larger and shrunk.
        """
        epoch = month // 100
        sprites = np.vstack(
            [self._standing(epoch // 3, round(light.glow, 1)), self._traffic(rng, camera, crowd)]
        )
        offset = sprites[:, :2] - [camera.x, camera.y]
        away = np.hypot(*offset.T)
        facing = np.array([np.sin(np.radians(camera.heading)), np.cos(np.radians(camera.heading))])
        sprites = sprites[(away < 85) & (away > 0.9) & (offset @ facing > -4)]
        offset = sprites[:, :2] - [camera.x, camera.y]
        away = np.hypot(*offset.T)
        board = sprites[:, 9] == 0  # trees and people turn to the camera
        width = np.hypot(sprites[:, 2], sprites[:, 3])
        turned = np.stack([width * offset[:, 1] / away, -width * offset[:, 0] / away], 1)
        sprites[board, 2:4] = turned[board]
        sprites = sprites[np.argsort(-away, kind="stable")]
        near = np.hypot(self.lamps[:, 0] - camera.x, self.lamps[:, 1] - camera.y)
        lamps = self.lamps[np.argsort(near, kind="stable")[:14]]
        size = camera.size * 4 // 3
        image = np.empty((size, size, 3), np.float32)
        render(
            size,
            camera.axes(),
            np.array([camera.x, camera.y, camera.z]),
            np.radians(camera.heading),
            np.radians(camera.fov) / 2,
            self.walls,
            self.wall_texture,
            self.data,
            self.table,
            self.paints.rough,
            self.half_x,
            self.half_y,
            SPACING,
            light.vector(),
            lamps,
            int(rng.integers(1 << 30)),
            epoch,
            np.ascontiguousarray(sprites[:, :8]),
            sprites[:, 8].astype(np.int64),
            image,
        )
        return develop(
            cv2.resize(image, (camera.size, camera.size), interpolation=cv2.INTER_AREA), light, rng
        )


def develop(image, light, rng):
    """Linear light to an 8-bit photo: lens glow, automatic exposure, colour cast, vignette, sensor noise, gamma."""
    size = image.shape[0]
    if light.glow > 0.3:
        image = image + 0.25 * cv2.GaussianBlur(np.maximum(image - 0.6, 0), (0, 0), size / 24)
    target = 0.22 if light.lamp < 2 else 0.11  # a night photo stays dark
    gain = light.exposure * target / max(float(np.percentile(image[::3, ::3], 60)), target / 4)
    cast = 1 + rng.normal(0, 0.035, 3)
    ramp = np.linspace(-1, 1, size) ** 2
    vignette = 1 - rng.uniform(0, 0.16) * (ramp[:, None] + ramp[None])
    image = image * np.dstack([gain * channel * vignette for channel in cast]).astype(np.float32)
    image = (
        1 - np.exp(-image * 1.25) if rng.random() < 0.5 else np.clip(image, 0, 1)
    )  # two makers' tone curves
    image = np.sqrt(image)
    if rng.random() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 0.7) * size / 128)
    noise = rng.standard_normal(image.shape, np.float32)
    noise *= np.float32(light.noise * rng.uniform(0.5, 1.5))
    image += noise
    return (np.clip(image, 0, 1, out=image) * 255 + 0.5).astype(np.uint8)
