"""A district of the rendered city: its houses, street furniture and traffic, and photos of it.

Places are (x, y) in metres east and north of the district's first crossing.
"""

import cv2
import numpy as np

from vgeo.city import paint
from vgeo.city.cameras import Camera
from vgeo.city.kernel import LAMP, SPRITE, WALL, Moment, Scene, Textures, render
from vgeo.city.light import DARK, Light, develop
from vgeo.city.plan import SPACING, Street

OUTER = 9.0  # metres: half the width of the streets around the houses at the border
CROSSING = 8.0  # metres on both sides of a crossing that stay free of furniture
SLOT = 6.2  # metres of street for one car
SIGHT = 85.0  # metres: sprites that are farther away are left out
# metres off the cameras' streets from which a phone sees no more than every fourth texel of a side
FAR = 40.0
NEAR_LAMPS = 14  # lamps that give light to a photo
BULB, HEADLIGHT, TAIL_LIGHT = 12.0, 10.0, 3.0  # glow by night
LAMP_COLOURS = (1.0, 0.78, 0.45), (1.0, 0.92, 0.78), (0.85, 0.95, 1.0)

# out: half a metre from the wall into the house; house: the number of the house
SIGN = np.dtype([("place", float, 2), ("out", float, 2), ("z", float), ("house", np.int64)])
RAW_SPRITE = np.dtype((np.void, SPRITE.itemsize))
# A place where a car can stand (moving 0) or drive (moving 1).
PARKING = np.dtype(
    [("place", float, 2), ("axis", float, 2), ("street", np.int64), ("moving", np.int64)]
)


class Stock:
    """The sprites that a district is furnished from: numbers of textures, and metres.

    trees, clutter, blades : (texture, width, height) each. cars : float64 (14, 5): the textures
    of side and end, length, width, height. people, poles, traffic_lights : textures.
    """

    def __init__(self, paints, scale, add):
        rng, style = paints.rng, paints.style
        self.trees = []
        for _ in range(8):
            w, h = rng.uniform(3, 6), rng.uniform(4.5, 9)
            self.trees.append((add(paint.tree(paints, w, h, scale)), w, h))
        for _ in range(3 if style.palms else 0):
            h = rng.uniform(6, 11)
            self.trees.append((add(paint.tree(paints, 4, h, scale, palm=True)), 4.0, h))
        cars = []
        for k in range(14):
            boxy = k % 5 == 4
            if boxy:
                length, width, height = rng.uniform(5.5, 8.5), 2.2, rng.uniform(2.4, 3.2)
            else:
                length, width, height = rng.uniform(3.8, 4.9), 1.8, rng.uniform(1.4, 1.8)
            side, colour = paint.car_side(paints, length, height, 2 * scale, boxy)
            end = paint.car_end(paints, width, height, 2 * scale, colour)
            cars.append((add(side), add(end), length, width, height))
        self.cars = np.array(cars)
        self.people = np.array([add(paint.person(paints, 2.5 * scale)) for _ in range(18)])
        self.lamp_post, self.wires = (
            add(paint.lamp_post(1.5 * scale)),
            add(paint.wires(1.5 * scale)),
        )
        self.headlight = add(paint.lamp((255, 250, 240)))
        self.tail_light = add(paint.lamp((255, 30, 20)))
        self.poles = [add(paint.pole(paints, 1.5 * scale)) for _ in range(3)]
        self.traffic_lights = [add(paint.traffic_light(paints, 2 * scale)) for _ in range(3)]
        self.clutter = []
        for _ in range(14):
            image = paint.clutter(paints, 2 * scale)
            h, w = np.array(image.shape[:2]) / (2 * scale)
            self.clutter.append((add(image), w, h))
        self.blades = np.empty((40, 3))
        for k in range(len(self.blades)):
            if rng.random() < 0.6:  # a banner
                w, h = rng.uniform(0.5, 1.0), rng.uniform(1.5, 4.5)
            else:  # a board
                w, h = rng.uniform(0.9, 1.8), rng.uniform(0.5, 1.0)
            self.blades[k] = add(paint.sign(paints, w, h, 2 * scale)), w, h


def _sprites(place, half, low, high, texture, glow=0.0, sun=0.6, board=False):
    """SPRITE rows, one for each place (n, 2) or for one place (2,)."""
    place = np.atleast_2d(place)
    rows = np.zeros(len(place), SPRITE)
    columns = place, half, low, high, glow, sun, texture, board
    for name, column in zip(SPRITE.names, columns, strict=True):
        rows[name] = column
    return rows


class District:
    """`blocks` x `blocks` blocks of houses and the streets around them.

    Attributes
    ----------
    streets : first those that run north, then those that run east.
    scene : the houses, as `kernel.render` takes them. The walls of a house are three rows: its
        front and the parts of its sides that stand out.
    furniture : SPRITE rows of what stays over the years: trees, lamp posts, poles, wires, traffic
        lights, clutter.
    signs : SIGN rows of the signs that stand out from the houses.
    lamps : LAMP rows.
    bulbs : SPRITE rows of what shines in the lamps by night.
    slots : PARKING rows.
    """

    def __init__(self, seed: int, style: paint.Style, blocks: int, texels: float):
        """Builds the district; everything follows from the seed.

        Parameters
        ----------
        seed : of the random generator.
        style : what the houses are like.
        blocks : how many in a row.
        texels : texture pixels per metre; a tenth of the photos' width in pixels is enough.
        """
        rng = np.random.default_rng(seed)
        self.blocks, self.paints = blocks, paint.Paints(rng, style)
        half_x, half_y = (rng.uniform(*style.street, blocks + 1) for _ in range(2))
        self.streets = [
            Street(north, k * SPACING, half)
            for north, halves in ((True, half_x), (False, half_y))
            for k, half in enumerate(halves)
        ]
        textures = Textures()
        self.stock = Stock(self.paints, texels, textures.add)
        walls, signs = self._houses(half_x, half_y, texels, textures.add)
        self.signs = np.array(signs, SIGN)
        self._hung: dict[tuple[int, float], np.ndarray] = {}  # SPRITE rows of an era and a glow
        self.furniture, self.lamps = self._furnish(rng, style)
        self.bulbs = _sprites(
            *(self.lamps["place"][:, :2], (0.28, 0.0), 5.5, 6.1, self.stock.headlight, BULB),
            board=True,
        )
        self.slots = self._slots()
        packed = textures.packed()
        noise = self.paints.rough
        self.scene = Scene(np.array(walls, WALL), *packed, noise, half_x, half_y, SPACING)

    def _houses(self, half_x, half_y, texels, add):
        """Houses along every street: WALL rows and SIGN rows."""
        n, walls, signs = self.blocks, [], []

        def bounds(k, halves):
            """Where the houses of the k-th row of blocks begin and end."""
            first = halves[k] if 0 <= k <= n else OUTER
            last = halves[k + 1] if k + 1 <= n else OUTER
            return k * SPACING + first, (k + 1) * SPACING - last

        for i in range(-1, n + 1):
            for j in range(-1, n + 1):
                (west, east), (south, north) = bounds(i, half_x), bounds(j, half_y)
                # a side of a block runs from left to right as seen from its street: the start,
                # the direction, the length, whether there is such a street
                for start, along, length, real in (
                    ((west, north), (0.0, -1.0), north - south, i >= 0),
                    ((east, south), (0.0, 1.0), north - south, i < n),
                    ((west, south), (1.0, 0.0), east - west, j >= 0),
                    ((east, north), (-1.0, 0.0), east - west, j < n),
                ):
                    if real:
                        side = np.array(start), np.array(along), length
                        for house in _row(self.paints, *side, n * SPACING, texels, add):
                            walls += house[0]
                            signs += house[1]
        return walls, signs

    def _furnish(self, rng, style):
        """The furniture along the kerbs: SPRITE rows, LAMP rows."""
        stock, end = self.stock, self.blocks * SPACING
        crossings = [k * SPACING for k in range(self.blocks + 1)]
        fixed, lamps = [], []

        def free(first, last, step, shift=0.0):
            """Places along a street every `step` metres that are not at a crossing."""
            places = np.arange(first, last, step) + shift
            return [q for q in places if all(abs(q - c) > CROSSING for c in crossings)]

        def put(place, half, low, high, texture, **more):
            fixed.append(_sprites(place, half, low, high, texture, **more))

        for street in self.streets:
            axis, normal = street.axis, street.normal
            planted, wired = rng.random() < style.trees * 1.6, rng.random() < style.wires
            for side in (-1, 1):
                kerb = side * (street.half - 2.7)
                for q in free(-55, end + 55, 24, rng.uniform(0, 12)):
                    place = street.point(q, kerb)
                    put(place, normal * -side, 0.0, 6.0, stock.lamp_post)
                    colour = LAMP_COLOURS[rng.integers(3)]
                    lamp = (*(place - normal * side * 0.9), 5.8)
                    lamps.append((lamp, rng.uniform(0.6, 1.4), colour))
                for q in free(-50, end + 50, rng.uniform(7, 14)) if planted else ():
                    if rng.random() < 0.75:
                        texture, w, h = stock.trees[rng.integers(len(stock.trees))]
                        place = street.point(q + rng.uniform(-1, 1), kerb)
                        put(place, (w / 2, 0.0), 0.0, h, texture, board=True)
                for q in np.arange(-60, end + 60, 30.0) if wired and side == 1 else ():
                    pole = stock.poles[rng.integers(len(stock.poles))]
                    put(street.point(q, kerb), normal * 1.2, 0.0, 9.0, pole)
                    put(street.point(q + 15, kerb), axis * 15, 6.9, 9.1, stock.wires)
                for q in free(-50, end + 50, 5.0):
                    if rng.random() < 0.22:
                        texture, w, h = stock.clutter[rng.integers(len(stock.clutter))]
                        place = street.point(q + rng.uniform(-2, 2), kerb)
                        place = place + normal * side * rng.choice([0.0, 2.2])
                        put(place, axis * w / 2, 0.0, h, texture)
                for c in crossings:
                    if rng.random() < 0.6:
                        light = stock.traffic_lights[rng.integers(3)]
                        place = street.point(c + side * (street.half - 1), kerb)
                        put(place, normal * 0.45, 0.0, 4.2, light, glow=0.15)
        return np.concatenate(fixed), np.array(lamps, LAMP)

    def _slots(self):
        crossings = np.arange(self.blocks + 1) * SPACING
        rows = []
        for number, street in enumerate(self.streets):
            for side in (-1, 1):
                for q in np.arange(-40, self.blocks * SPACING + 40, SLOT):
                    if abs(q - crossings).min() < 14:
                        continue
                    lanes = street.half - 4.3, max(street.half - 7.2, 1.2)
                    for moving, offset in enumerate(lanes):
                        rows.append((street.point(q, side * offset), street.axis, number, moving))
        return np.array(rows, PARKING)

    def _signs(self, era, glow):
        """SPRITE rows of the signs; a quarter of the houses change theirs with the era."""
        house, unit = self.signs["house"], self.signs["out"]
        unit = unit / np.hypot(*unit.T)[:, None]
        number = house * 7919 + np.where(house % 4 == 0, era, 0) * 104729
        texture, w, h = self.stock.blades[number % len(self.stock.blades)].T
        place = self.signs["place"] - unit * (w / 2 - 0.5)[:, None]
        low, shining = self.signs["z"], np.where(house % 3, glow, 0.0)
        return _sprites(place, unit * w[:, None] / 2, low, low + h, texture, shining)

    def _cars(self, rng, here, crowd, light):
        """SPRITE rows of parked and moving cars: both sides of each, then both ends, and by night
        the lights of those that move.
        """
        count, slots = len(self.streets), self.slots
        share = np.stack([rng.uniform(0.1, 0.6, count), rng.uniform(0, 0.1, count) * crowd], 1)
        away = np.hypot(*(slots["place"] - here).T)
        taken = rng.random(len(slots)) < share[slots["street"], slots["moving"]]
        slots = slots[taken & (away > 3.4) & (away < 60)]
        axis, across = slots["axis"], slots["axis"][:, ::-1]
        place = slots["place"] + axis * rng.uniform(-0.6, 0.6, (len(slots), 1))
        cars = self.stock.cars[rng.integers(len(self.stock.cars), size=len(slots))]
        side, end, length, width, height = cars.T
        length, width, sun = length[:, None], width[:, None], rng.random(len(slots))
        rows = []
        for middle, half, texture in (
            (across * width / 2, axis * length / 2, side),
            (axis * length * 0.47, across * width / 2, end),
        ):
            walls = np.concatenate([place - middle, place + middle])
            twice = (np.concatenate([each, each]) for each in (half, height, texture, sun))
            half, high, texture, lit = twice
            rows.append(_sprites(walls, half, 0.05, high, texture, sun=lit))
        if light.lamp >= DARK:
            moves = slots["moving"] == 1
            place, axis, across = place[moves], axis[moves], across[moves]
            length, width = length[moves] * 0.5, width[moves] * 0.36
            for end, texture, glow in (
                (1, self.stock.headlight, HEADLIGHT),
                (-1, self.stock.tail_light, TAIL_LIGHT),
            ):
                for side in (-1, 1):
                    spots = place + end * axis * length + side * across * width
                    rows.append(_sprites(spots, (0.16, 0), 0.55, 0.87, texture, glow, board=True))
        return rows

    def _people(self, rng, here, crowd):
        """SPRITE rows of people on the pavements of the streets near (x, y)."""
        rows = []
        for street in self.streets:
            x, y = here
            off, along = (x, y) if street.north else (y, x)
            if abs(off - street.middle) < 45:
                n = rng.poisson(5 * crowd)
                offset = rng.choice([-1, 1], n) * (street.half - rng.uniform(0.5, 3.0, n))
                place = street.point(along + rng.uniform(-40, 40, n), offset)
                texture = self.stock.people[rng.integers(len(self.stock.people), size=n)]
                high, sun = rng.uniform(1.5, 1.9, n), rng.random(n)
                people = _sprites(place, (0.35, 0.0), 0.0, high, texture, sun=sun, board=True)
                rows.append(people[np.hypot(*(place - here).T) > 1.6])
        return rows

    def photo(self, camera: Camera, light: Light, month: int, rng, crowd=1.0) -> np.ndarray:
        """Takes a photo; it is rendered a third larger and shrunk.

        Parameters
        ----------
        camera : where from.
        light : what lights it.
        month : yyyymm; decides which signs and paint are there.
        rng : numpy random generator, of the traffic, the clouds and the camera's faults.
        crowd : factor on the numbers of moving cars and of people.

        Returns
        -------
        uint8 (size, size, 3) RGB.
        """
        year, here = month // 100, np.array([camera.x, camera.y])
        key = year // 3, round(light.glow, 1)
        if key not in self._hung:  # the signs of an era are the same in all photos
            self._hung[key] = self._signs(*key)
        traffic = self._cars(rng, here, crowd, light) + self._people(rng, here, crowd)
        groups = [self.furniture, self._hung[key], *traffic]
        if light.lamp >= DARK:
            groups.append(self.bulbs)
        sprites = _visible(groups, here, camera.heading)
        away = np.hypot(*(self.lamps["place"][:, :2] - here).T)
        lamps = self.lamps[np.argsort(away, kind="stable")[:NEAR_LAMPS]]
        moment = Moment(int(rng.integers(1 << 30)), year, lamps, sprites)
        image = render(camera.view(camera.size * 4 // 3), self.scene, light.rays(), moment)
        image = cv2.resize(image, (camera.size, camera.size), interpolation=cv2.INTER_AREA)
        return develop(image, light, rng)


def _visible(groups, here, heading):
    """The SPRITE rows of all groups that a camera can see, the farthest first.

    Those that are boards are turned to the camera.
    """
    # as bytes: numpy copies rows of fields ten times more slowly
    rows = np.concatenate([group.view(RAW_SPRITE) for group in groups])
    offset = rows.view(SPRITE)["place"] - here
    away = np.hypot(*offset.T)
    facing = np.array([np.sin(np.radians(heading)), np.cos(np.radians(heading))])
    seen = np.flatnonzero((away < SIGHT) & (away > 0.9) & (offset @ facing > -4))
    seen = seen[np.argsort(-away[seen], kind="stable")]
    sprites, offset, away = rows[seen].view(SPRITE), offset[seen], away[seen]
    board, half = sprites["board"], sprites["half"]
    width, across = np.hypot(*half[board].T), offset[board, ::-1] * [1, -1]
    half[board] = width[:, None] * across / away[board, None]
    return sprites


def _row(paints, start, along, length, end, texels, add):
    """Houses wall to wall along one side of a block: the WALL rows and the SIGN rows of each.

    The side runs from `start` (2,) in the direction `along` (2,), from left to right as seen from
    the street. Cameras stand between 0 and `end` metres. Houses that are far from all cameras have
    half as many texels per metre, from which the same levels are made as a photo sees.
    """
    rng, style = paints.rng, paints.style
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
        left = start + along * at + inward * back
        right = start + along * (at + width) + inward * back
        opposite = rng.uniform(0, 1)
        middle = start + along * (at + width / 2)
        far = max(*-middle, *(middle - end)) > FAR
        scale = texels / 2 if far else texels
        h, w = int(height * scale / 2), int(10 * scale / 2)
        bare = paint.wall_surface(paints, h, w, scale / 2)
        side = add(np.dstack([bare, np.zeros((h, w), np.uint8)]))
        front = add(paint.facade(paints, width, floors, ground, storey, bay, scale))
        walls = [
            (a, b, height, bay, storey, ground, opposite, house, texture)
            for a, b, texture in (
                (left, right, front),
                (left + inward * 11, left, side),
                (right, right + inward * 11, side),
            )
        ]
        signs = []
        if rng.random() < style.blades:
            for _ in range(int(rng.integers(1, 4 if style.kanji else 2))):
                spot = left + along * rng.uniform(0.5, max(width - 0.5, 0.6))
                z = rng.uniform(2.6, max(3.0, min(height - 3, 8)))
                signs.append((spot - inward * 0.7, inward * 0.5, z, house))
        yield walls, signs
        at += width
