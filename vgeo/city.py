"""The embedded data set: streets of cities that do not exist, photographed by a car and by phones, stored as sf-xs is.

A district is a few blocks of a grid city with its own houses; data sets are made of districts that share nothing but
their style. The database is seen by a car (panoramas every 10 m cut into 12 crops, daylight, several years); queries by
a phone on the sidewalk in later years. Everything follows from the seed: each image has its own random generator, so
the number of processes changes no file.
"""

import multiprocessing
import os
import signal
import threading
import zlib
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from tqdm.auto import tqdm

from . import paint
from .datasets import format_name
from .errors import VgeoError, result
from .render import Camera, Textures, render

SPACING = 100.0  # metres between parallel streets: two CosPlace group cells (N = 5 cells of 10 m)
VERSION = 3  # raise when the same plan gives other pixels

# UTM east, north, zone and band of the first crossing: the middle of a CosPlace cell, so that streets run through cells
SAN_FRANCISCO_ORIGIN = (546005.0, 4176005.0, 10, "S")
TOKYO_ORIGIN = (382005.0, 3946005.0, 54, "S")
PRETRAIN_ORIGIN = (500005.0, 5400005.0, 31, "U")


@dataclass(frozen=True)
class Light:
    """What lights a photo. Colours are linear RGB."""

    ambient: tuple
    sun_colour: tuple
    sun: tuple  # unit vector to the sun
    zenith: tuple  # colours of the sky
    horizon: tuple
    haze: float  # 1 / metres
    cloud: float = 0.5
    lit: float = 0.0  # share of lit windows
    lamp: float = 0.0  # power of the street lamps
    glow: float = 0.0  # of lit windows and signs
    exposure: float = 1.0  # against automatic exposure
    noise: float = 0.012  # deviation of the sensor noise, of 1

    def vector(self):
        """The kernel's order of these numbers, and last how bright clouds are."""
        clouds = max(self.ambient) * 1.6 + 0.3 * max(self.sun_colour)
        return np.array([*self.ambient, *self.sun_colour, *self.sun, *self.zenith, *self.horizon, self.haze, self.cloud,
                         self.lit, self.lamp, self.glow, clouds])


FINE = ("clear", "clear", "overcast")  # what cars and phones are taken out in


def daylight(rng, kinds=FINE):
    """Light of some hour of the day."""
    kind = rng.choice(kinds)
    azimuth, height = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(22, 65))
    sun = (np.sin(azimuth) * np.cos(height), np.cos(azimuth) * np.cos(height), np.sin(height))
    warm = 1 + 0.12 * rng.normal()
    if kind == "clear":
        power = rng.uniform(0.9, 1.5)
        return Light((0.36, 0.41, 0.50), (1.05 * power * warm, 0.97 * power, 0.82 * power / warm), sun,
                     (0.13, 0.27, 0.62), (0.55, 0.66, 0.80), rng.uniform(0.0005, 0.003), rng.uniform(0.2, 0.75),
                     exposure=float(np.exp(rng.normal(0, 0.18))))
    grey = rng.uniform(0.55, 0.8)
    thick = rng.uniform(0.008, 0.02) if kind == "haze" else rng.uniform(0.001, 0.004)
    return Light((grey * warm, grey, grey / warm), (0.08, 0.08, 0.08), sun, (0.6, 0.63, 0.68), (0.74, 0.76, 0.79),
                 thick, rng.uniform(0.5, 1.2), lit=rng.uniform(0, 0.15), glow=0.35,
                 exposure=float(np.exp(rng.normal(0, 0.18))))


def sunset(rng):
    azimuth, height = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(2, 12))
    sun = (np.sin(azimuth) * np.cos(height), np.cos(azimuth) * np.cos(height), np.sin(height))
    power = rng.uniform(0.5, 1.1)
    return Light((0.27, 0.25, 0.30), (1.0 * power, 0.60 * power, 0.32 * power), sun, (0.16, 0.20, 0.40),
                 (0.80, 0.45, 0.26), rng.uniform(0.001, 0.004), rng.uniform(0.3, 0.9), lit=rng.uniform(0.15, 0.4),
                 lamp=rng.uniform(0, 1.2), glow=0.45, exposure=float(np.exp(rng.normal(-0.1, 0.2))), noise=0.018)


def night(rng):
    sky = rng.uniform(0.08, 0.12)  # a city's sky is never dark
    return Light((0.05 + sky, 0.052 + sky, 0.07 + sky), (0.0, 0.0, 0.0), (0.0, 0.0, 1.0), (sky * 0.5, sky * 0.55, sky),
                 (sky * 2.2, sky * 1.7, sky * 1.3), rng.uniform(0.001, 0.004), rng.uniform(0.2, 0.6),
                 lit=rng.uniform(0.3, 0.65), lamp=rng.uniform(20.0, 32.0), glow=rng.uniform(0.5, 0.9),
                 exposure=float(np.exp(rng.normal(0, 0.2))), noise=rng.uniform(0.01, 0.025))


LIGHTS = {"day": daylight, "sunset": sunset, "night": night}


class District:
    """`blocks` x `blocks` blocks and the streets around them, from a seed and a style; metres from the first crossing.

    walls, lamps: as `render` takes them. fixed, signs, slots: what `_furnish`, `_row` and `_slots` put there.
    """

    def __init__(self, seed, style, blocks, texels):
        """texels: texture pixels per metre; about a tenth of the photos' width in pixels is enough."""
        self.style, self.blocks, self.texels = style, blocks, texels
        self.rng = rng = np.random.default_rng(seed)
        self.paints = paint.Paints(rng)
        self.half_x, self.half_y = (rng.uniform(*style.street, blocks + 1) for _ in range(2))
        self.textures = Textures()
        self.walls, self.wall_texture = [], []
        self.fixed, self.signs, self.lamps = [], [], []
        self._stock()
        self._build()
        self._furnish()
        self.walls, self.wall_texture = np.array(self.walls), np.array(self.wall_texture)
        self.lamps, self.cars, self.people = np.array(self.lamps), np.array(self.cars), np.array(self.people)
        self.slots = self._slots()
        self.data, self.table = self.textures.packed()
        del self.textures

    def _stock(self):
        """The pool of sprites that the streets are furnished from."""
        p, rng, s, add = self.paints, self.rng, self.texels, self.textures.add
        self.trees = []
        for _ in range(8):
            w, h = rng.uniform(3, 6), rng.uniform(4.5, 9)
            self.trees.append((add(paint.tree(p, rng, w, h, s)), w, h))
        if self.style.palms:
            for _ in range(3):
                h = rng.uniform(6, 11)
                self.trees.append((add(paint.tree(p, rng, 4, h, s, palm=True)), 4.0, h))
        self.cars = []
        for k in range(14):
            boxy = k % 5 == 4
            if boxy:
                length, width, height = rng.uniform(5.5, 8.5), 2.2, rng.uniform(2.4, 3.2)
            else:
                length, width, height = rng.uniform(3.8, 4.9), 1.8, rng.uniform(1.4, 1.8)
            side, colour = paint.car_side(p, rng, length, height, 2 * s, boxy)
            end = paint.car_end(p, rng, width, height, 2 * s, colour)
            self.cars.append((add(side), add(end), length, width, height))
        self.people = [add(paint.person(p, rng, 2.5 * s)) for _ in range(18)]
        self.lamp_texture, self.wire_texture = add(paint.lamp_post(1.5 * s)), add(paint.wires(1.5 * s))
        self.poles = [add(paint.pole(rng, 1.5 * s)) for _ in range(3)]
        self.traffic = [add(paint.traffic_light(rng, 2 * s)) for _ in range(3)]
        self.clutter = []
        for _ in range(14):
            image = paint.clutter(p, rng, 2 * s)
            self.clutter.append((add(image), image.shape[1] / (2 * s), image.shape[0] / (2 * s)))
        self.blades = []
        for _ in range(40):
            if rng.random() < 0.6:  # a banner, else a board
                w, h = rng.uniform(0.5, 1.0), rng.uniform(1.5, 4.5)
            else:
                w, h = rng.uniform(0.9, 1.8), rng.uniform(0.5, 1.0)
            self.blades.append((add(paint.sign(rng, w, h, 2 * s, self.style.kanji)), w, h))

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
                sides = (((west, north), (0, -1), north - south, i >= 0), ((east, south), (0, 1), north - south, i < n),
                         ((west, south), (1, 0), east - west, j >= 0), ((east, north), (-1, 0), east - west, j < n))
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
            p0, p1 = start + along * at + inward * back, start + along * (at + width) + inward * back
            tall = rng.uniform(0, 1)
            h, w = int(height * s / 2), int(10 * s / 2)
            bare = paint.wall_surface(self.paints, rng, style, h, w, s / 2)
            side = self.textures.add(np.dstack([bare, np.zeros((h, w), np.uint8)]))
            front = self.textures.add(paint.facade(self.paints, rng, style, width, floors, ground, storey, bay, s))
            for a, b, number in ((p0, p1, front), (p0 + inward * 11, p0, side), (p1, p1 + inward * 11, side)):
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
                        self.fixed.append((*xy, *(across * 1.0 * -side), 0.0, 6.0, self.lamp_texture, 0.0, 1))
                        colour = [(1.0, 0.78, 0.45), (1.0, 0.92, 0.78), (0.85, 0.95, 1.0)][rng.integers(3)]
                        self.lamps.append([*(xy - across * side * 0.9), 5.8, rng.uniform(0.6, 1.4), *colour])
                if planted:
                    for q in np.arange(-50, n * SPACING + 50, rng.uniform(7, 14)):
                        if free(q) and rng.random() < 0.75:
                            texture, w, h = self.trees[rng.integers(len(self.trees))]
                            self.fixed.append((*put(q + rng.uniform(-1, 1)), w / 2, 0.0, 0.0, h, texture, 0.0, 0))
                if wired and side == 1:
                    for q in np.arange(-60, n * SPACING + 60, 30.0):
                        pole = self.poles[rng.integers(len(self.poles))]
                        self.fixed.append((*put(q), *(across * 1.2), 0.0, 9.0, pole, 0.0, 1))
                        self.fixed.append((*put(q + 15), *(axis * 15), 6.9, 9.1, self.wire_texture, 0.0, 1))
                for q in np.arange(-50, n * SPACING + 50, 5.0):
                    if free(q) and rng.random() < 0.22:
                        texture, w, h = self.clutter[rng.integers(len(self.clutter))]
                        xy = put(q + rng.uniform(-2, 2)) + across * side * rng.choice([0.0, 2.2])
                        self.fixed.append((*xy, *(axis * w / 2), 0.0, h, texture, 0.0, 1))
                for c in clear:
                    if rng.random() < 0.6:
                        light = self.traffic[rng.integers(3)]
                        self.fixed.append((*put(c + side * (half - 1)), *(across * 0.45), 0.0, 4.2, light, 0.15, 1))

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
                        out.append((across, q, 0, 1, street, moving) if vertical else (q, across, 1, 0, street, moving))
        return np.array(out)

    def _streets(self):
        """(number, runs north, its line, half width) of every street."""
        n = self.blocks + 1
        return [(k, True, k, self.half_x[k]) for k in range(n)] + [(n + k, False, k, self.half_y[k]) for k in range(n)]

    def _traffic(self, rng, camera, crowd):
        """Parked and moving cars and people of one moment, as rows of sprites.

        A row is one of `render`'s sprites, then its texture and 0 where it turns to the camera.
        """
        here = np.array([camera.x, camera.y])
        streets = self._streets()
        share = np.stack([rng.uniform(0.15, 0.75, len(streets)), rng.uniform(0, 0.1, len(streets)) * crowd], 1)
        slots = self.slots
        away = np.hypot(*(slots[:, :2] - here).T)
        taken = rng.random(len(slots)) < share[slots[:, 4].astype(int), slots[:, 5].astype(int)]
        slots = slots[taken & (away > 3.4) & (away < 60)]
        axis = slots[:, 2:4]
        xy = slots[:, :2] + axis * rng.uniform(-0.6, 0.6, (len(slots), 1))
        cars = self.cars[rng.integers(len(self.cars), size=len(slots))]
        side, end, length, width, height = (cars[:, k:k + 1] for k in range(5))
        across, one = axis[:, ::-1], np.ones_like(side)
        shade = rng.random((len(slots), 1))
        body = [0.05 * one, height, 0 * one, shade]
        rows = [np.hstack([xy + sign * across * width / 2, axis * length / 2, *body, side, one]) for sign in (-1, 1)]
        rows += [np.hstack([xy + sign * axis * length * 0.47, across * width / 2, *body, end, one]) for sign in (-1, 1)]
        for _, vertical, k, half in streets:
            if abs(here[0 if vertical else 1] - k * SPACING) < 45:
                n = rng.poisson(5 * crowd)
                line = k * SPACING + rng.choice([-1, 1], n) * (half - rng.uniform(0.5, 3.0, n))
                along = here[1 if vertical else 0] + rng.uniform(-40, 40, n)
                spot = np.stack([line, along] if vertical else [along, line], 1)
                people = self.people[rng.integers(len(self.people), size=n)]
                zero = np.zeros(n)
                walkers = np.column_stack([spot, zero + 0.35, zero, zero, rng.uniform(1.5, 1.9, n), zero, rng.random(n),
                                           people, zero])
                rows.append(walkers[np.hypot(*(spot - here).T) > 1.6])
        return np.vstack(rows)

    @lru_cache(maxsize=8)
    def _standing(self, era, glow):
        """Furniture and blade signs as rows of sprites; a quarter of the houses change their signs every third year."""
        rows = [(*f[:6], f[7], 0.6, f[6], f[8]) for f in self.fixed]
        for x, y, ux, uy, z, house in self.signs:
            texture, w, h = self.blades[(house * 7919 + (era if house % 4 == 0 else 0) * 104729) % len(self.blades)]
            out = np.array([ux, uy]) / np.hypot(ux, uy)
            x, y = x - out[0] * (w / 2 - 0.5), y - out[1] * (w / 2 - 0.5)
            rows.append((x, y, *(out * w / 2), z, z + h, glow if house % 3 else 0.0, 0.6, texture, 1))
        return np.array(rows)

    def photo(self, camera, light, month, rng, crowd=1.0):
        """A photo, uint8 (size, size, 3) RGB.

        The month, yyyymm, decides which signs and paint are there; crowd scales the number of moving cars and people.
        It is rendered a third larger and shrunk.
        """
        epoch = month // 100
        sprites = np.vstack([self._standing(epoch // 3, round(light.glow, 1)), self._traffic(rng, camera, crowd)])
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
        render(size, camera.axes(), np.array([camera.x, camera.y, camera.z]), np.radians(camera.heading),
               np.radians(camera.fov) / 2, self.walls, self.wall_texture, self.data, self.table, self.paints.rough,
               self.half_x, self.half_y, SPACING, light.vector(), lamps, int(rng.integers(1 << 30)), epoch,
               np.ascontiguousarray(sprites[:, :8]), sprites[:, 8].astype(np.int64), image)
        return develop(cv2.resize(image, (camera.size, camera.size), interpolation=cv2.INTER_AREA), light, rng)


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
    image = 1 - np.exp(-image * 1.25) if rng.random() < 0.5 else np.clip(image, 0, 1)  # two makers' tone curves
    image = np.sqrt(image)
    if rng.random() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 0.7) * size / 128)
    noise = rng.standard_normal(image.shape, np.float32)
    noise *= np.float32(light.noise * rng.uniform(0.5, 1.5))
    image += noise
    return (np.clip(image, 0, 1, out=image) * 255 + 0.5).astype(np.uint8)


# ---- cameras ----

def car_camera(x, y, heading, size, rng):
    """A crop of the car's panorama."""
    return Camera(x, y, rng.uniform(2.3, 2.7), heading % 360, rng.normal(2.0, 0.5), rng.normal(0, 0.4), 62.0, size)


def phone_camera(district, rng, size):
    """A phone between the middle of the street and the kerb, pointed at the other side of the street or along it, not at the nearest wall."""
    n = district.blocks
    while True:
        vertical, k, side = rng.random() < 0.5, int(rng.integers(n + 1)), rng.choice([-1, 1])
        half = (district.half_x if vertical else district.half_y)[k]
        across, along = k * SPACING + side * half * rng.uniform(0.05, 0.45), rng.uniform(0, n * SPACING)
        outward = (90.0 if side > 0 else 270.0) if vertical else (0.0 if side > 0 else 180.0)
        # people photograph what stands across the street more often than the street itself
        heading = (outward + 180 + rng.uniform(-40, 40)) % 360 if rng.random() < 0.9 else rng.uniform(0, 360)
        if abs((heading - outward + 180) % 360 - 180) > 70:
            x, y = (across, along) if vertical else (along, across)
            z, pitch, roll, fov = rng.uniform(1.35, 1.75), rng.normal(4, 3), rng.normal(0, 2.5), rng.uniform(52, 64)
            return Camera(x, y, z, heading, pitch, roll, fov, size)


def panoramas(district):
    """Positions every 10 m along the middle of all streets, each crossing once: (x, y, street is north-south)."""
    reach = np.arange(0, district.blocks * SPACING + 1, 10.0)
    lines = [(k * SPACING, q, True) for k in range(district.blocks + 1) for q in reach]
    return lines + [(q, k * SPACING, False) for k in range(district.blocks + 1) for q in reach if q % SPACING]


# ---- data sets ----

@dataclass(frozen=True)
class Plan:
    """How large the city is.

    Districts are of one block: 400 m of streets, 40 panoramas (480 crops), 48 CosPlace classes in one group. A part
    (train, val, test, tokyo) has room for 200 of them.
    """

    size: int = 96  # pixels, width and height
    seed: int = 1
    train_districts: int = 16
    images_per_class: int = 10
    val_districts: int = 1
    val_queries: int = 200
    test_districts: int = 1
    test_queries: int = 300
    tokyo_districts: int = 1
    tokyo_places: int = 105
    night_target: int = 8
    heading_step: int = 30  # degrees between the crops of a panorama


def _month(rng, first, last):
    return int(rng.integers(first, last + 1)) * 100 + int(rng.integers(1, 13))


def _task(seed, *key):
    """A generator for one image, from the plan's seed and what the image is; names hash the same everywhere."""
    return np.random.default_rng([seed, *(zlib.crc32(k.encode()) if isinstance(k, str) else k for k in key)])


def _write(folder, origin, camera, image, month, pano, tile="", note=""):
    east, north, zone, letter = origin
    name = format_name(east + camera.x, north + camera.y, zone, letter, pano, camera.heading, month, tile=tile,
                       pitch=f"{camera.pitch:.1f}", roll=f"{camera.roll:.1f}", height=f"{camera.z:.2f}", note=note)
    ok, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    if not ok:
        raise RuntimeError(f"{name}: JPEG encoding failed")
    (folder / name).write_bytes(data.tobytes())


def _district(plan, part, number):
    """The district and where it lies: districts stand 600 m apart in rows of 40, the parts of one city 3 km."""
    east, north, zone, letter = {"tokyo": TOKYO_ORIGIN, "target": TOKYO_ORIGIN, "pretrain": PRETRAIN_ORIGIN}.get(part, SAN_FRANCISCO_ORIGIN)
    shift = {"train": 0, "val": 3000, "test": 6000, "tokyo": 0, "target": 9000, "pretrain": 0}[part]
    rng = _task(plan.seed, part, number)
    style = {"tokyo": paint.TOKYO, "target": paint.TOKYO, "pretrain": None}.get(part, paint.SAN_FRANCISCO)
    district = District(int(rng.integers(1 << 40)), style or paint.random_style(rng), 1, plan.size / 9)
    return district, (east + 600.0 * (number % 40), north + shift + 600.0 * (number // 40), zone, letter)


def _train_part(plan, part, number, folder):
    """All classes of one CosPlace group: cells of 10 m every 50 m, headings in every second bin of 30 degrees."""
    district, origin = _district(plan, part, number)
    count = 0
    for x, y, _ in panoramas(district):
        if x % 50 or y % 50:
            continue
        for bin_start in range(0, 360, 60):
            for k in range(plan.images_per_class):
                rng = _task(plan.seed, part, number, int(x), int(y), bin_start, k)
                camera = car_camera(x + rng.uniform(-4.9, 4.9), y + rng.uniform(-4.9, 4.9),
                                    bin_start + rng.uniform(0.5, 29.5), plan.size, rng)
                month = _month(rng, 2008, 2021)
                light = daylight(rng, (*FINE, "haze"))  # all weathers, to learn from
                image = district.photo(camera, light, month, rng)
                _write(folder, origin, camera, image, month, f"{part}{number}x{int(x)}y{int(y)}b{bin_start}v{k}")
                count += 1
    return count


def _database_part(plan, part, number, folder):
    """The car's panoramas of one district, each of one lane, day and light, cut into crops."""
    district, origin = _district(plan, part, number)
    count = 0
    for index, (x, y, vertical) in enumerate(panoramas(district)):
        rng = _task(plan.seed, part, number, "database", index)
        lane, month = rng.choice([-1, 1]) * rng.uniform(1.0, 2.2), _month(rng, 2009, 2016)
        light, yaw = daylight(rng), rng.uniform(0, 30)
        at = (x + lane, y + rng.uniform(-1, 1)) if vertical else (x + rng.uniform(-1, 1), y + lane)
        for tile in range(360 // plan.heading_step):
            crop = _task(plan.seed, part, number, "crop", index, tile)
            camera = car_camera(*at, yaw + tile * plan.heading_step, plan.size, crop)
            image = district.photo(camera, light, month, crop, 0.8)
            _write(folder, origin, camera, image, month, f"{part}{number}p{index:03d}", tile)
            count += 1
    return count


def _query_part(plan, part, number, folders, total, districts):
    """Phones' photos in one district: queries number, number + districts, ... below total, each in every kind of light.

    folders: where each kind of light (a key of LIGHTS) goes.
    """
    district, origin = _district(plan, part, number)
    count = 0
    for q in range(number, total, districts):
        camera = phone_camera(district, _task(plan.seed, part, number, "query", q), plan.size)
        for kind, folder in folders.items():
            rng = _task(plan.seed, part, number, "query", q, kind)
            month = _month(rng, 2017, 2021)
            if len(folders) > 1:  # the same place, photographed anew
                camera = Camera(camera.x + rng.normal(0, 0.5), camera.y + rng.normal(0, 0.5), camera.z,
                                (camera.heading + rng.normal(0, 3)) % 360, camera.pitch + rng.normal(0, 1),
                                rng.normal(0, 2.5), camera.fov, camera.size)
            crowd = rng.choice([0.5, 1.0, 2.0])
            image = district.photo(camera, LIGHTS[kind](rng), month, rng, crowd)
            _write(folder, origin, camera, image, month, f"{part}{number}q{q:04d}", note=kind)
            count += 1
    return count


def write_city(plan, root, progress=True):
    """Renders the study's data sets under `root` (a new or empty folder), laid out as the originals are.

    `sf-xs/{train,val/{database,queries},test/{database,queries_v1}}`, `tokyo-xs/test/{database,queries_v1}`,
    `tokyo-night/test/queries_v1` (the night queries, found in tokyo-xs's database) and `night_target`.
    """
    root = Path(root)
    sf, tokyo = root / "sf-xs", root / "tokyo-xs" / "test"
    night_folder = root / "tokyo-night" / "test" / "queries_v1"
    folders = {"train": sf / "train", "val": sf / "val" / "database", "val_q": sf / "val" / "queries",
               "test": sf / "test" / "database", "test_q": sf / "test" / "queries_v1",
               "tokyo": tokyo / "database", "tokyo_q": tokyo / "queries_v1", "target": root / "night_target"}
    jobs = [(_train_part, plan, "train", k, folders["train"]) for k in range(plan.train_districts)]
    for part, districts, queries in (("val", plan.val_districts, plan.val_queries),
                                     ("test", plan.test_districts, plan.test_queries),
                                     ("tokyo", plan.tokyo_districts, plan.tokyo_places)):
        kinds = tuple(LIGHTS) if part == "tokyo" else ("day",)
        jobs += [(_database_part, plan, part, k, folders[part]) for k in range(districts)]
        jobs += [(_query_part, plan, part, k, dict.fromkeys(kinds, folders[part + "_q"]), queries, districts)
                 for k in range(districts)]
    jobs += [(_query_part, plan, "target", k, {"night": folders["target"]}, plan.night_target, 2) for k in range(2)]
    for folder in (*folders.values(), night_folder):
        folder.mkdir(parents=True, exist_ok=True)
    _run(jobs, "rendering the city", progress)
    for photo in sorted(folders["tokyo_q"].glob("*@night@.jpg")):
        (night_folder / photo.name).write_bytes(photo.read_bytes())


def write_pretraining(plan, root, districts, progress=True):
    """Renders daylight training streets of `districts` quarters of no particular city under `root`, in no subfolder."""
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    _run([(_train_part, plan, "pretrain", k, root) for k in range(districts)], "rendering for pre-training", progress)


def _run(jobs, what, progress):
    """Runs the jobs in one process per core. Spawned, not forked: the parent may hold torch's threads."""
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent) as pool:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which a worker inherits: while it still imports, Ctrl-C would show a trace
        pending = [pool.submit(*job) for job in jobs]
        signal.signal(signal.SIGINT, before)
        try:
            with tqdm(desc=what, unit=" images", disable=not progress) as bar:
                for task in pending:
                    bar.update(result(task, what))
        except BrokenProcessPool:
            raise VgeoError(f"{what}: a process died, as when memory runs out: close other programs and call again") from None
        finally:  # an error or Ctrl-C must not wait for the jobs that have not begun
            pool.shutdown(cancel_futures=True)


def _end_with_parent():
    """Called in a worker: it ends at once, and says nothing, when Ctrl-C reaches it or its parent is no more."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=lambda: (multiprocessing.parent_process().join(), os._exit(1)), daemon=True).start()
