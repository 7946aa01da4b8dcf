"""TODO: city.cameras."""

import numpy as np

from vgeo.city.kernel import Camera
from vgeo.city.plan import SPACING


def car_camera(x, y, heading, size, rng):
    """A crop of the car's panorama."""
    return Camera(
        x,
        y,
        rng.uniform(2.3, 2.7),
        heading % 360,
        rng.normal(2.0, 0.5),
        rng.normal(0, 0.4),
        62.0,
        size,
    )


def phone_camera(district, rng, size):
    """A phone between the middle of the street and the kerb, pointed at the other side of the street or along it, not at the nearest wall."""
    n = district.blocks
    while True:
        vertical, k, side = rng.random() < 0.5, int(rng.integers(n + 1)), rng.choice([-1, 1])
        half = (district.half_x if vertical else district.half_y)[k]
        across, along = (
            k * SPACING + side * half * rng.uniform(0.05, 0.45),
            rng.uniform(0, n * SPACING),
        )
        outward = (90.0 if side > 0 else 270.0) if vertical else (0.0 if side > 0 else 180.0)
        # people photograph what stands across the street more often than the street itself
        heading = (
            (outward + 180 + rng.uniform(-40, 40)) % 360
            if rng.random() < 0.9
            else rng.uniform(0, 360)
        )
        if abs((heading - outward + 180) % 360 - 180) > 70:
            x, y = (across, along) if vertical else (along, across)
            z, pitch, roll, fov = (
                rng.uniform(1.35, 1.75),
                rng.normal(4, 3),
                rng.normal(0, 2.5),
                rng.uniform(52, 64),
            )
            return Camera(x, y, z, heading, pitch, roll, fov, size)


def panoramas(district):
    """Positions every 10 m along the middle of all streets, each crossing once: (x, y, street is north-south)."""
    reach = np.arange(0, district.blocks * SPACING + 1, 10.0)
    lines = [(k * SPACING, q, True) for k in range(district.blocks + 1) for q in reach]
    return lines + [
        (q, k * SPACING, False) for k in range(district.blocks + 1) for q in reach if q % SPACING
    ]
