"""The kinds of light and the developing of a photo."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from vgeo.city.kernel import Lighting
from vgeo.city.light import ALL_WEATHERS, DARK, LIGHTS, _noise, daylight, develop


def streams(count):
    return [np.random.default_rng(k) for k in range(count)]


@pytest.mark.parametrize("kind", LIGHTS)
def test_lights_are_what_they_say(kind):
    lights = [LIGHTS[kind](rng) for rng in streams(200)]
    for light in lights:
        assert np.isclose(np.linalg.norm(light.sun), 1)
        assert 0 <= light.lit <= 1 and light.haze > 0 and light.exposure > 0 and light.noise > 0
    heights = np.degrees(np.arcsin([light.sun[2] for light in lights]))
    lowest, highest = {"day": (22, 65), "sunset": (2, 12), "night": (90, 90)}[kind]
    assert lowest <= heights.min() + 1e-9 and heights.max() <= highest + 1e-9
    assert ({light.lamp >= DARK for light in lights}) == {kind == "night"}
    assert (max(max(light.sun_colour) for light in lights) == 0) == (kind == "night")


def test_weathers():
    haze = [daylight(rng, ("haze",)).haze for rng in streams(100)]
    clear = [daylight(rng, ("clear",)) for rng in streams(100)]
    grey = [daylight(rng, ("overcast",)) for rng in streams(100)]
    assert min(haze) > max(light.haze for light in grey)
    assert min(max(light.sun_colour) for light in clear) > 5 * max(grey[0].sun_colour)
    mixed = [daylight(rng, ALL_WEATHERS).haze for rng in streams(400)]
    assert 0.15 < np.mean(np.array(mixed) > 0.005) < 0.35  # one in four


def test_kernel_gets_every_number_under_its_name():
    light = LIGHTS["sunset"](np.random.default_rng(0))
    rays, fields = light.rays(), asdict(light)
    assert isinstance(rays, Lighting)
    for name in set(Lighting._fields) - {"cloud_white"}:
        assert getattr(rays, name) == fields[name], name


def grey(level, size=64):
    return np.full((size, size, 3), level, np.float32)


def test_exposure_is_automatic(even):
    """A grey wall is as bright in every light; its middle is one of two tone curves of 0.22."""
    found = set()
    for seed, level in enumerate(np.geomspace(0.1, 10, 40)):
        image = develop(grey(level), even, np.random.default_rng(seed))
        assert image.dtype == np.uint8 and image.shape == (64, 64, 3)
        middle = image[31:33, 31:33].mean(axis=(0, 1)) / 255
        linear = np.clip(middle**2, 0, 1)
        curves = linear / 0.22, -np.log(1 - linear) / 1.25 / 0.22
        casts = [np.abs(np.log(curve)).max() for curve in curves]  # of 3.5 % a channel
        assert min(casts) < 0.16
        found.add(int(np.argmin(casts)))
    assert found == {0, 1}


def test_night_and_exposure_change_the_brightness(even):
    image = grey(1.0)
    mean = {}
    for name, light in (
        ("day", even),
        ("night", replace(even, lamp=DARK)),
        ("under", replace(even, exposure=0.5)),
        ("over", replace(even, exposure=2.0)),
    ):
        mean[name] = np.mean([develop(image, light, rng).mean() for rng in streams(20)])
    assert np.isclose(mean["night"] / mean["day"], (0.035 / 0.22) ** 0.5, rtol=0.05)
    assert 1.35 < mean["day"] / mean["under"] < 1.45 and mean["over"] > 1.3 * mean["day"]


def test_noise_is_of_the_sensor(even):
    flat, noisy = (
        np.array(
            [
                develop(grey(1.0), replace(even, noise=noise), rng).astype(float)
                for rng in streams(20)
            ]
        )
        for noise in (0.0, 0.02)
    )
    deviation = (noisy - flat).std() / 255
    assert 0.015 < deviation < 0.025
    vignette = flat.mean(axis=(0, 3))
    assert vignette[0, 0] < vignette[32, 32] and np.allclose(vignette, vignette.T, atol=1)


def test_lamps_glow_in_the_lens(even):
    image = grey(0.05)
    image[32, 32] = 20.0
    plain, glowing = (
        develop(image, replace(even, glow=glow), np.random.default_rng(3)) for glow in (0.0, 0.5)
    )
    ring = glowing[32, 36].astype(int) - plain[32, 36]
    assert ring.min() > 10 and abs(glowing[2, 2].astype(int) - plain[2, 2]).max() <= 2


def test_the_generator_decides_the_photo(even):
    image = np.random.default_rng(0).random((48, 48, 3), np.float32)
    first, second, other = (
        develop(image.copy(), even, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, second) and not np.array_equal(first, other)


@pytest.mark.parametrize("size", [96, 256])
def test_each_photo_has_noise_of_its_own(size):
    one, two = (_noise(size, rng).ravel() for rng in streams(2))
    assert len(one) == 3 * size * size and abs(np.corrcoef(one, two)[0, 1]) < 0.05
    assert one.mean() == pytest.approx(0, abs=0.03) and one.std() == pytest.approx(1, abs=0.03)
