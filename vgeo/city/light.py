"""TODO: city.light."""

from dataclasses import dataclass

import numpy as np


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
        return np.array(
            [
                *self.ambient,
                *self.sun_colour,
                *self.sun,
                *self.zenith,
                *self.horizon,
                self.haze,
                self.cloud,
                self.lit,
                self.lamp,
                self.glow,
                clouds,
            ]
        )


FINE = ("clear", "clear", "overcast")  # what cars and phones are taken out in


def daylight(rng, kinds=FINE):
    """Light of some hour of the day."""
    kind = rng.choice(kinds)
    azimuth, height = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(22, 65))
    sun = (np.sin(azimuth) * np.cos(height), np.cos(azimuth) * np.cos(height), np.sin(height))
    warm = 1 + 0.12 * rng.normal()
    if kind == "clear":
        power = rng.uniform(0.9, 1.5)
        return Light(
            (0.36, 0.41, 0.50),
            (1.05 * power * warm, 0.97 * power, 0.82 * power / warm),
            sun,
            (0.13, 0.27, 0.62),
            (0.55, 0.66, 0.80),
            rng.uniform(0.0005, 0.003),
            rng.uniform(0.2, 0.75),
            exposure=float(np.exp(rng.normal(0, 0.18))),
        )
    grey = rng.uniform(0.55, 0.8)
    thick = rng.uniform(0.008, 0.02) if kind == "haze" else rng.uniform(0.001, 0.004)
    return Light(
        (grey * warm, grey, grey / warm),
        (0.08, 0.08, 0.08),
        sun,
        (0.6, 0.63, 0.68),
        (0.74, 0.76, 0.79),
        thick,
        rng.uniform(0.5, 1.2),
        lit=rng.uniform(0, 0.15),
        glow=0.35,
        exposure=float(np.exp(rng.normal(0, 0.18))),
    )


def sunset(rng):
    azimuth, height = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(2, 12))
    sun = (np.sin(azimuth) * np.cos(height), np.cos(azimuth) * np.cos(height), np.sin(height))
    power = rng.uniform(0.5, 1.1)
    return Light(
        (0.27, 0.25, 0.30),
        (1.0 * power, 0.60 * power, 0.32 * power),
        sun,
        (0.16, 0.20, 0.40),
        (0.80, 0.45, 0.26),
        rng.uniform(0.001, 0.004),
        rng.uniform(0.3, 0.9),
        lit=rng.uniform(0.15, 0.4),
        lamp=rng.uniform(0, 1.2),
        glow=0.45,
        exposure=float(np.exp(rng.normal(-0.1, 0.2))),
        noise=0.018,
    )


def night(rng):
    sky = rng.uniform(0.08, 0.12)  # a city's sky is never dark
    return Light(
        (0.05 + sky, 0.052 + sky, 0.07 + sky),
        (0.0, 0.0, 0.0),
        (0.0, 0.0, 1.0),
        (sky * 0.5, sky * 0.55, sky),
        (sky * 2.2, sky * 1.7, sky * 1.3),
        rng.uniform(0.001, 0.004),
        rng.uniform(0.2, 0.6),
        lit=rng.uniform(0.3, 0.65),
        lamp=rng.uniform(20.0, 32.0),
        glow=rng.uniform(0.5, 0.9),
        exposure=float(np.exp(rng.normal(0, 0.2))),
        noise=rng.uniform(0.01, 0.025),
    )


LIGHTS = {"day": daylight, "sunset": sunset, "night": night}
