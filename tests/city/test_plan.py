"""Origins, streets and places of cameras."""

from itertools import combinations

import numpy as np
import pytest

from vgeo.city.cameras import ASIDE, TURN, Camera, again, panoramas, phone_camera
from vgeo.city.plan import ORIGINS, SPACING, Street


def test_origins_are_in_the_middle_of_a_cell():
    for origin in ORIGINS.values():
        assert origin.east % 10 == 5 and origin.north % 10 == 5


def test_parts_of_200_districts_do_not_meet():
    """Districts stand 600 m apart in rows of 40; one of a block reaches 60 m beyond its streets."""
    reach = np.array([39, 4]) * 600.0 + SPACING + 60
    for one, other in combinations(ORIGINS.values(), 2):
        if one.zone == other.zone:
            apart = np.abs([one.east - other.east, one.north - other.north])
            assert (apart > reach).any()


@pytest.mark.parametrize("north", [True, False])
def test_street_turns_along_and_across_into_x_and_y(north):
    street = Street(north, 100.0, 9.0)
    along, offset = np.array([0.0, 3.0, 50.0]), np.array([-2.0, 0.0, 5.0])
    expected = [street.middle * street.normal + a * street.axis for a in along]
    expected = np.array(expected) + offset[:, None] * street.normal
    assert np.array_equal(street.point(along, offset), expected)
    assert np.array_equal(street.point(3.0, -2.0), street.point(along, offset - offset - 2.0)[1])
    assert street.axis @ street.normal == 0 and street.axis[int(north)] == 1


@pytest.mark.parametrize(("blocks", "step"), [(1, 10), (3, 12.5), (2, 50)])
def test_panoramas_are_everywhere_once(blocks, step):
    places = panoramas(blocks, step)
    side = int(blocks * SPACING)
    streets = range(0, side + 1, 100)
    expected = {(x, k * step) for x in streets for k in range(int(side / step) + 1)}
    expected |= {(y, x) for x, y in expected}
    assert len(places) == len(expected) and {place[:2] for place in places} == expected
    assert all((x if north else y) % SPACING == 0 for x, y, north in places)


def test_phones_show_a_crop_from_a_step_aside():
    rng = np.random.default_rng(0)
    phones = [phone_camera(30.0, 40.0, 359.0, 64, rng) for _ in range(400)]
    off = np.array([(each.x - 30, each.y - 40) for each in phones])
    turn = np.array([(each.heading - 359 + 180) % 360 - 180 for each in phones])
    assert np.allclose(off.std(0), ASIDE, rtol=0.15) and np.allclose(off.mean(0), 0, atol=0.15)
    assert np.isclose(turn.std(), TURN, rtol=0.15) and abs(turn.mean()) < 0.6
    assert all(0 <= each.heading < 360 and each.size == 64 for each in phones)


def test_photographing_again_moves_little():
    camera, rng = Camera(5.0, 6.0, 1.5, 359.0, 4.0, 1.0, 60.0, 64), np.random.default_rng(0)
    moved = [again(camera, rng) for _ in range(300)]
    assert {(each.z, each.fov, each.size) for each in moved} == {(1.5, 60.0, 64)}
    shift = np.array([(each.x - 5, each.y - 6) for each in moved])
    assert np.allclose(shift.mean(0), 0, atol=0.15) and np.allclose(shift.std(0), 0.3, atol=0.06)
    turn = np.array([(each.heading - 359 + 180) % 360 - 180 for each in moved])
    assert abs(turn.mean()) < 1 and 1.5 < turn.std() < 2.5
    assert all(0 <= each.heading < 360 for each in moved)
