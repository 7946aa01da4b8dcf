"""What lights the rendered city, and how a camera makes an 8-bit photo of it.

Colours are linear RGB, tuples of three floats. A white surface in the shade has about the colour
of `Light.ambient`.
"""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from vgeo.city.kernel import Lighting

Colour = tuple[float, float, float]
FINE = ("clear", "clear", "overcast")  # the weather that cars and phones photograph in
ALL_WEATHERS = (*FINE, "haze")
# What the automatic exposure makes of 60 % of the pixels at most, linear, by day and by night.
BY_DAY, BY_NIGHT = 0.22, 0.035
DARK = 2.0  # the power of the street lamps from which it is night


@dataclass(frozen=True)
class Light:
    """What lights a photo."""

    ambient: Colour
    sun_colour: Colour
    sun: Colour  # unit vector (x, y, z) to the sun
    zenith: Colour  # colours of the sky
    horizon: Colour
    haze: float  # 1 / metres
    cloud: float = 0.5  # how much of the sky is covered: 0 none
    lit: float = 0.0  # share of lit windows
    lamp: float = 0.0  # power of the street lamps
    glow: float = 0.0  # of lit windows and signs
    exposure: float = 1.0  # factor on what the automatic exposure chooses
    cast: Colour = (1.0, 1.0, 1.0)  # what the white balance leaves of the light's colour
    noise: float = 0.012  # deviation of the sensor noise, of 1

    def rays(self) -> Lighting:
        """What `kernel.render` takes."""
        white = max(self.ambient) * 1.6 + 0.3 * max(self.sun_colour)
        colours = self.ambient, self.sun_colour, self.sun, self.zenith, self.horizon
        return Lighting(*colours, self.haze, self.cloud, self.lit, self.lamp, self.glow, white)


def _sun(rng, lowest, highest):
    """A direction to the sun at a height between these degrees."""
    azimuth, height = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(lowest, highest))
    return np.sin(azimuth) * np.cos(height), np.cos(azimuth) * np.cos(height), np.sin(height)


def _exposure(rng, mean=0.0, deviation=0.14):
    return float(np.exp(rng.normal(mean, deviation)))


def daylight(rng, weathers: tuple[str, ...] = FINE) -> Light:
    """The light of some hour of the day, in one of the weathers."""
    weather, sun, warm = rng.choice(weathers), _sun(rng, 22, 65), 1 + 0.08 * rng.normal()
    if weather == "clear":
        power = rng.uniform(0.9, 1.5)
        return Light(
            ambient=(0.36, 0.41, 0.50),
            sun_colour=(1.05 * power * warm, 0.97 * power, 0.82 * power / warm),
            sun=sun,
            zenith=(0.13, 0.27, 0.62),
            horizon=(0.55, 0.66, 0.80),
            haze=rng.uniform(0.0005, 0.003),
            cloud=rng.uniform(0.2, 0.75),
            exposure=_exposure(rng),
        )
    grey = rng.uniform(0.55, 0.8)
    return Light(
        ambient=(grey * warm, grey, grey / warm),
        sun_colour=(0.08, 0.08, 0.08),
        sun=sun,
        zenith=(0.6, 0.63, 0.68),
        horizon=(0.74, 0.76, 0.79),
        haze=rng.uniform(0.008, 0.02) if weather == "haze" else rng.uniform(0.001, 0.004),
        cloud=rng.uniform(0.5, 1.2),
        lit=rng.uniform(0, 0.15),
        glow=0.35,
        exposure=_exposure(rng),
    )


def sunset(rng) -> Light:
    """The light of a low sun; some windows and street lamps are lit."""
    sun, power = _sun(rng, 2, 12), rng.uniform(0.5, 1.1)
    return Light(
        ambient=(0.29, 0.27, 0.30),
        sun_colour=(1.0 * power, 0.68 * power, 0.42 * power),
        sun=sun,
        zenith=(0.16, 0.20, 0.40),
        horizon=(0.80, 0.45, 0.26),
        haze=rng.uniform(0.001, 0.004),
        cloud=rng.uniform(0.3, 0.9),
        lit=rng.uniform(0.1, 0.25),
        lamp=rng.uniform(0, 1.2),
        glow=0.45,
        exposure=_exposure(rng, -0.5, 0.2),
        noise=0.015,
    )


def night(rng) -> Light:
    """The light of street lamps, windows, signs and headlights under a black or deep blue sky."""
    sky, warm = rng.uniform(0.001, 0.008), rng.uniform(-0.02, 0.16)
    return Light(
        # more than such a sky gives: the light that a city scatters shows the fronts of its houses
        ambient=(0.08 + sky, 0.08 + sky, 0.085 + sky),
        sun_colour=(0.0, 0.0, 0.0),
        sun=(0.0, 0.0, 1.0),
        zenith=(sky * 0.6, sky * 0.8, sky * 1.6),
        horizon=(sky * 2.0, sky * 1.7, sky * 1.8),
        haze=rng.uniform(0.001, 0.004),
        cloud=rng.uniform(0.0, 0.4),
        lit=rng.uniform(0.05, 0.2),
        lamp=rng.uniform(8.0, 20.0),
        glow=rng.uniform(1.0, 2.5),
        exposure=_exposure(rng, 0, 0.2),
        cast=(1 + warm, 1.0, 1 - warm),
        noise=rng.uniform(0.008, 0.02),
    )


LIGHTS = {"day": daylight, "sunset": sunset, "night": night}


def develop(image: np.ndarray, light: Light, rng) -> np.ndarray:
    """What a camera makes of the light that reaches it.

    Lens glow, automatic exposure, a colour cast, vignetting, the tone curve of one of two makers,
    gamma, in some photos blur, sensor noise.

    Parameters
    ----------
    image : float32 (size, size, 3), linear RGB.
    light : decides glow, exposure and noise.
    rng : numpy random generator.

    Returns
    -------
    uint8 (size, size, 3) RGB.
    """
    size = image.shape[0]
    if light.glow > 0.3:
        image = image + 0.25 * _lens_glow(image)
    target = BY_DAY if light.lamp < DARK else BY_NIGHT
    some = image[::3, ::3].ravel()
    middle = int(0.6 * some.size)  # 60 % of the pixels are darker
    bright = max(float(np.partition(some, middle)[middle]), target / 4)
    gain = light.exposure * target / bright
    cast, edge = light.cast * (1 + rng.normal(0, 0.025, 3)), rng.uniform(0, 0.16)
    film = rng.random() < 0.5
    # of all channels of a row: numpy is slow where the last axis is as short as three
    ramp = np.square(np.linspace(-1, 1, size, dtype=np.float32))
    factor = 1 - np.float32(edge) * (ramp[:, None] + ramp.repeat(3))
    factor *= np.tile(np.float32(gain * cast * (-1.25 if film else 1)), size)
    factor *= image.reshape(size, -1)
    image = 1 - cv2.exp(factor) if film else np.minimum(factor, 1, out=factor)
    image = cv2.sqrt(image)
    if rng.random() < 0.3:
        width = rng.uniform(0.3, 0.7) * size / 128
        image = cv2.GaussianBlur(image.reshape(size, size, 3), (0, 0), width).reshape(size, -1)
    noise = 255 * light.noise * rng.uniform(0.5, 1.5)
    # rounds, and clips to a byte
    image = cv2.addWeighted(image, 255, _noise(size, rng), noise, 0, dtype=cv2.CV_8U)
    return image.reshape(size, size, 3)


def _lens_glow(image):
    """What is brighter than 0.6, blurred with a Gaussian whose deviation is 1/24 of the image.

    Its lattice of 24 x 24 adds a quarter of the variance: 1/12 by averaging, 1/6 by interpolation.
    """
    bright = cv2.resize(np.maximum(image - 0.6, 0), (24, 24), interpolation=cv2.INTER_AREA)
    blurred = cv2.GaussianBlur(bright, (0, 0), 0.75**0.5)
    return cv2.resize(blurred, image.shape[:2], interpolation=cv2.INTER_LINEAR)


@cache
def _normal():
    """Standard normal numbers; drawing them for every photo took longer than its exposure."""
    return np.random.default_rng(0).standard_normal(1 << 18, np.float32)


def _noise(size, rng):
    """Standard normal numbers, float32 (size, 3 size): a random one of many overlapping pieces."""
    count = 3 * size * size
    stored = _normal()
    if count > len(stored) // 2:
        return rng.standard_normal((size, 3 * size), np.float32)
    start = rng.integers(len(stored) - count)
    return stored[start : start + count].reshape(size, -1)
