"""What lights the rendered city, and how a camera makes an 8-bit photo of it.

Colours are linear RGB, tuples of three floats. A white surface in the shade has about the colour
of `Light.ambient`.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from vgeo.city.kernel import Lighting

Colour = tuple[float, float, float]
FINE = ("clear", "clear", "overcast")  # the weather that cars and phones photograph in
ALL_WEATHERS = (*FINE, "haze")
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


def _exposure(rng, mean=0.0, deviation=0.18):
    return float(np.exp(rng.normal(mean, deviation)))


def daylight(rng, weathers: tuple[str, ...] = FINE) -> Light:
    """The light of some hour of the day, in one of the weathers."""
    weather, sun, warm = rng.choice(weathers), _sun(rng, 22, 65), 1 + 0.12 * rng.normal()
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
        ambient=(0.27, 0.25, 0.30),
        sun_colour=(1.0 * power, 0.60 * power, 0.32 * power),
        sun=sun,
        zenith=(0.16, 0.20, 0.40),
        horizon=(0.80, 0.45, 0.26),
        haze=rng.uniform(0.001, 0.004),
        cloud=rng.uniform(0.3, 0.9),
        lit=rng.uniform(0.15, 0.4),
        lamp=rng.uniform(0, 1.2),
        glow=0.45,
        exposure=_exposure(rng, -0.1, 0.2),
        noise=0.018,
    )


def night(rng) -> Light:
    """The light of street lamps, windows and signs under the grey sky of a city."""
    sky = rng.uniform(0.08, 0.12)
    return Light(
        ambient=(0.05 + sky, 0.052 + sky, 0.07 + sky),
        sun_colour=(0.0, 0.0, 0.0),
        sun=(0.0, 0.0, 1.0),
        zenith=(sky * 0.5, sky * 0.55, sky),
        horizon=(sky * 2.2, sky * 1.7, sky * 1.3),
        haze=rng.uniform(0.001, 0.004),
        cloud=rng.uniform(0.2, 0.6),
        lit=rng.uniform(0.3, 0.65),
        lamp=rng.uniform(20.0, 32.0),
        glow=rng.uniform(0.5, 0.9),
        exposure=_exposure(rng, 0, 0.2),
        noise=rng.uniform(0.01, 0.025),
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
        image = image + 0.25 * cv2.GaussianBlur(np.maximum(image - 0.6, 0), (0, 0), size / 24)
    target = 0.22 if light.lamp < DARK else 0.11  # a night photo stays dark
    bright = max(float(np.percentile(image[::3, ::3], 60)), target / 4)
    gain = light.exposure * target / bright
    cast = 1 + rng.normal(0, 0.035, 3)
    ramp = np.linspace(-1, 1, size) ** 2
    vignette = 1 - rng.uniform(0, 0.16) * (ramp[:, None] + ramp[None])
    # channel by channel: numpy is slow where the last axis is as short as three
    factor = cv2.merge([(gain * channel * vignette).astype(np.float32) for channel in cast])
    image = image * factor
    image = 1 - np.exp(-image * 1.25) if rng.random() < 0.5 else np.clip(image, 0, 1)
    image = np.sqrt(image)
    if rng.random() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 0.7) * size / 128)
    noise = rng.standard_normal(image.shape, np.float32)
    noise *= np.float32(light.noise * rng.uniform(0.5, 1.5))
    image += noise
    return (np.clip(image, 0, 1, out=image) * 255 + 0.5).astype(np.uint8)
