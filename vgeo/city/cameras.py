"""The cameras of the rendered city: a car's panoramas and a phone on the street."""

from dataclasses import dataclass, replace

import numpy as np

from vgeo.city.kernel import View
from vgeo.city.plan import SPACING, Street


@dataclass(frozen=True)
class Camera:
    """A pinhole camera.

    Attributes
    ----------
    x, y, z : metres east and north of the district's first crossing, and above the street.
    heading : degrees clockwise from north.
    pitch : degrees, looking up.
    roll : degrees by which the camera is turned counter-clockwise, the scene clockwise.
    fov : degrees, the horizontal field of view.
    size : pixels, width and height.
    """

    x: float
    y: float
    z: float
    heading: float
    pitch: float
    roll: float
    fov: float
    size: int

    def axes(self) -> np.ndarray:
        """Right, up and forward unit vectors, float64 (3, 3)."""
        h, p, r = np.radians([self.heading, self.pitch, self.roll])
        forward = np.array([np.sin(h) * np.cos(p), np.cos(h) * np.cos(p), np.sin(p)])
        right = np.array([np.cos(h), -np.sin(h), 0.0])
        # their cross product; numpy's function takes as long as 500 pixels of a photo
        up = np.array(
            [
                right[1] * forward[2],
                -right[0] * forward[2],
                right[0] * forward[1] - right[1] * forward[0],
            ]
        )
        turned = right * np.cos(r) + up * np.sin(r), up * np.cos(r) - right * np.sin(r)
        return np.stack([*turned, forward])

    def project(self, points) -> np.ndarray:
        """Pixel coordinates (..., 2), column and row, of points (..., 3) in front of the camera.

        The centre of the first pixel is (0.5, 0.5).
        """
        local = (np.asarray(points, float) - [self.x, self.y, self.z]) @ self.axes().T
        plane = local[..., :2] / local[..., 2:] / np.tan(np.radians(self.fov) / 2)
        return (plane * [1, -1] + 1) * self.size / 2

    def view(self, size: int) -> View:
        """What `kernel.render` takes, for a photo of another size."""
        right, up, forward = (tuple(axis) for axis in self.axes().tolist())
        position = float(self.x), float(self.y), float(self.z)
        heading, half_fov = np.radians(self.heading), np.radians(self.fov) / 2
        return View(size, (right, up, forward), position, float(heading), float(half_fov))


def car_camera(x: float, y: float, heading: float, size: int, rng) -> Camera:
    """A crop of the car's panorama."""
    z, pitch, roll = rng.uniform(2.3, 2.7), rng.normal(2.0, 0.5), rng.normal(0, 0.4)
    return Camera(x, y, z, heading % 360, pitch, roll, 62.0, size)


def phone_camera(streets: list[Street], rng, size: int) -> Camera:
    """A phone between the middle of a street and its kerb.

    It is pointed at the other side of the street or along it, never at the nearest wall.

    Parameters
    ----------
    streets : a district's, first those that run north and then as many that run east.
    rng : numpy random generator.
    size : pixels.
    """
    count = len(streets) // 2
    while True:
        first = 0 if rng.random() < 0.5 else count
        street, side = streets[first + int(rng.integers(count))], rng.choice([-1, 1])
        offset = side * street.half * rng.uniform(0.05, 0.45)
        x, y = street.point(rng.uniform(0, (count - 1) * SPACING), offset)
        outward = (0.0 if side > 0 else 180.0) + (90.0 if street.north else 0.0)
        # people photograph what stands across the street more often than the street itself
        if rng.random() < 0.9:
            heading = (outward + 180 + rng.uniform(-40, 40)) % 360
        else:
            heading = rng.uniform(0, 360)
        if abs((heading - outward + 180) % 360 - 180) > 70:
            z, pitch, roll = rng.uniform(1.35, 1.75), rng.normal(4, 3), rng.normal(0, 2.5)
            return Camera(x, y, z, heading, pitch, roll, rng.uniform(52, 64), size)


def again(camera: Camera, rng) -> Camera:
    """The camera of somebody who photographs the same thing from nearly the same place."""
    return replace(
        camera,
        x=camera.x + rng.normal(0, 0.5),
        y=camera.y + rng.normal(0, 0.5),
        heading=(camera.heading + rng.normal(0, 3)) % 360,
        pitch=camera.pitch + rng.normal(0, 1),
        roll=rng.normal(0, 2.5),
    )


def panoramas(blocks: int) -> list[tuple[float, float, bool]]:
    """Where a car takes panoramas: every 10 m of all streets, each crossing once.

    Returns
    -------
    (x, y, whether the street runs north), metres from the first crossing of a district of
    `blocks` x `blocks` blocks.
    """
    reach = np.arange(0, blocks * SPACING + 1, 10.0)
    lines = [k * SPACING for k in range(blocks + 1)]
    north = [(line, q, True) for line in lines for q in reach]
    return north + [(q, line, False) for line in lines for q in reach if q % SPACING]
