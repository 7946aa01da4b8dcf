"""The cameras of the rendered city: a car's panoramas and a phone on the street."""

from dataclasses import dataclass, replace

import numpy as np

from vgeo.city.kernel import View
from vgeo.city.plan import SPACING

# Deviations of a query from the crop that it resembles most: metres east and north, and degrees.
# From farther aside descriptors of 96 pixels find fewer queries (docs/city.md).
ASIDE, TURN = 0.8, 4.0


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


def phone_camera(x: float, y: float, heading: float, size: int, rng) -> Camera:
    """A phone that shows what a crop of a car's panorama at (x, y) shows, from a step aside."""
    x, y = x + rng.normal(0, ASIDE), y + rng.normal(0, ASIDE)
    z, heading = rng.uniform(1.6, 2.0), (heading + rng.normal(0, TURN)) % 360
    pitch, roll = rng.normal(3, 2), rng.normal(0, 1.5)
    return Camera(x, y, z, heading, pitch, roll, rng.uniform(58, 66), size)


def again(camera: Camera, rng) -> Camera:
    """The camera of somebody who photographs the same thing from nearly the same place."""
    return replace(
        camera,
        x=camera.x + rng.normal(0, 0.3),
        y=camera.y + rng.normal(0, 0.3),
        heading=(camera.heading + rng.normal(0, 2)) % 360,
        pitch=camera.pitch + rng.normal(0, 1),
        roll=rng.normal(0, 1.5),
    )


def panoramas(blocks: int, step: float) -> list[tuple[float, float, bool]]:
    """Where a car takes panoramas: every `step` metres of all streets, each crossing once.

    Returns
    -------
    (x, y, whether the street runs north), metres from the first crossing of a district of
    `blocks` x `blocks` blocks.
    """
    reach = np.arange(0, blocks * SPACING + 1, step)
    lines = [k * SPACING for k in range(blocks + 1)]
    north = [(line, q, True) for line in lines for q in reach]
    return north + [(q, line, False) for line in lines for q in reach if q % SPACING]
