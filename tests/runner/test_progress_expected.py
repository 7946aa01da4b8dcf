"""The time left of a run: its arithmetic, and how near it comes on the released run's figures."""

import json
import random
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from vgeo.errors import VgeoError
from vgeo.report.section import SEEDS_IN
from vgeo.runner.expected import OTHER, Remaining, expected, name_of, parts_of, write
from vgeo.runner.record import BEFORE, read
from vgeo.study.profiles import PROFILES

CITY = Path(__file__).parents[2] / "results/city"
PARTS = {
    "00_data": {OTHER: [1, 10.0]},
    "01_losses": {OTHER: [1, 20.0], "train CosFace": [1, 100.0], "pairs": [2, 60.0]},
    "02_grl": {OTHER: [1, 30.0], "train GRL": [1, 180.0], "pairs": [4, 100.0]},
}
KEYS = map(str, count())


def step(label, kind="models", event="made", own=0.0, key=None):
    return {"event": event, "key": key or next(KEYS), "kind": kind, "label": label, "own": own}


def test_the_time_left_is_what_is_expected_times_the_speed():
    remaining = Remaining(PARTS)
    assert remaining.total == 500 and remaining.steps("01_losses") == 3
    remaining.end("00_data", 30.0)
    assert remaining.left("01_losses", [], 0.0) is None  # of the steps nothing is known yet
    train = step("train CosFace", own=200.0)
    assert remaining.left("01_losses", [train], 50.0) is None
    assert remaining.add("01_losses", train)
    speed = (30 + 200) / (10 + 100)
    rest = 500 - 110
    assert remaining.left("01_losses", [], 5.0) == pytest.approx(speed * rest - 5)
    # what runs now takes 20 s outside steps and 30 s in the step at most
    pair = step("compare 15 pairs sf-xs", "pairs")
    assert remaining.left("01_losses", [pair], 900.0) == pytest.approx(speed * (rest - 50))
    remaining.add("01_losses", pair | {"own": 45.0})
    remaining.end("01_losses", 25.0)
    speed = (30 + 200 + 45 + 25) / (10 + 100 + 30 + 20)
    assert remaining.left("02_grl", [], 0.0) == pytest.approx(speed * 310)
    assert remaining.steps("01_losses") == 0 and remaining.steps("02_grl") == 5
    assert not remaining.at_most


def test_a_step_is_counted_where_it_is_made():
    """As on several GPUs, which make everything before the notebooks."""
    remaining = Remaining(PARTS)
    for name in ("train CosFace", "train GRL"):
        remaining.add(BEFORE, step(name, own=140.0))
    assert remaining.left("00_data", [], 0.0) == pytest.approx(220)
    remaining.add(BEFORE, step("train what nobody expected", own=9e9))
    assert remaining.left("00_data", [], 0.0) == pytest.approx(220)


def test_what_is_found_or_resumed_says_nothing_of_the_speed():
    remaining = Remaining(PARTS, seen={"skipped"}, begun={"stopped"})
    assert not remaining.add("01_losses", step("train CosFace", key="skipped", event="found"))
    remaining.add("01_losses", step("train CosFace", key="stopped", own=0.1))
    assert remaining.left("01_losses", [], 0.0) is None
    assert remaining.at_most and remaining.found == 100
    made = step("compare", "pairs", own=90.0)
    remaining.add("01_losses", made)
    assert remaining.left("01_losses", [], 0.0) == pytest.approx(3 * (500 - 100 - 30))
    assert not remaining.add("02_grl", made | {"event": "found"})  # another notebook uses it too
    assert remaining.left("01_losses", [], 0.0) == pytest.approx(3 * (500 - 100 - 30))


def test_a_run_of_which_nothing_is_expected_has_no_time_left():
    remaining = Remaining({})
    remaining.add("00_data", step("train CosFace", own=9.0))
    remaining.end("00_data", 5.0)
    assert remaining.left("01_losses", [], 0.0) is None and not remaining.at_most


def test_the_parts_of_a_run_add_up_to_its_seconds():
    def of(kind, label, seconds, *notebooks):
        return {"kind": kind, "label": label, "seconds": seconds, "notebooks": list(notebooks)}

    content = {
        "notebooks": {
            BEFORE: {"seconds": 5.0},
            "01_losses": {"seconds": 100.0, "models": 60.0, "views": 20.0},
        },
        "steps": {
            "a": of("data", "render the city", 50.0, "01_losses", BEFORE),  # found in the cache
            "b": of("models", "train A", 60.0, "01_losses", "02_grl"),  # with its views
            "c": of("views", "views 1", 20.0, "01_losses"),
            "d": of("models", "train B, seed 1", 20.0, "01_losses"),
        },
    }
    assert parts_of(content) == {
        BEFORE: {OTHER: [1, 5.0], "data": [1, 50.0]},
        "01_losses": {
            OTHER: [1, 20.0],
            "train A": [1, 45.0],
            "train B": [1, 15.0],
            "views": [1, 20.0],
        },
    }


def test_the_parts_of_the_released_run_add_up_to_its_seconds():
    content = read(CITY / "run.json")
    parts = parts_of(content)
    for part, times in content["notebooks"].items():
        if part != BEFORE:
            whole = sum(seconds for _, seconds in parts[part].values())
            assert whole == pytest.approx(times["seconds"], abs=1)
    assert sum(n for names in parts.values() for n, _ in names.values()) == (
        len(content["steps"]) + len(parts)
    )


def test_after_two_notebooks_the_time_left_is_right_within_a_third():
    """A machine three times as slow, each notebook of which is up to 20 % slower or faster."""
    parts = parts_of(read(CITY / "run.json"))
    errors = []
    for seed in range(300):
        noise, remaining, truth = random.Random(seed), Remaining(parts), 0.0
        for part, names in parts.items():
            speed = 3 * noise.uniform(0.8, 1.2)
            if part > "01_losses" and part != BEFORE:
                truth += speed * sum(seconds for _, seconds in names.values())
                continue
            for name, (number, seconds) in names.items():
                kind = "models" if " " in name else name
                for _ in range(number if name != OTHER else 0):
                    remaining.add(part, step(name, kind, own=speed * seconds / number))
            remaining.end(part, speed * names[OTHER][1])
        errors.append(abs(remaining.left("02_grl", [], 0.0) / truth - 1))
    assert sum(error > 1 / 3 for error in errors) <= 3


def test_what_a_run_took_is_written_and_read(tmp_path):
    path, run = tmp_path / "expected.json", tmp_path / "runs/city"
    released = tmp_path / "city/run.json"
    run.mkdir(parents=True)
    steps = {
        key: {"kind": kind, "label": label, "seconds": 4.0, "notebooks": ["01_losses"]}
        for key, kind, label in (
            ("a", "models", "train CosFace"),
            ("b", "trunks", "trunk of resnet18"),
            ("c", "pairs", "compare 15 pairs"),
            ("d", "views", "views sf-xs/train resnet18"),
        )
    }
    times = {"seconds": 24.0, "models": 4.0, "trunks": 4.0, "pairs": 4.0, "views": 4.0}
    content = {"image_size": 96, "seeds": [0], "notebooks": {"01_losses": times}, "steps": steps}
    (run / "run.json").write_text(json.dumps(content))
    path.write_text('{"smoke": {"image_size": 64, "seeds": 1, "parts": {}}}')
    write(run, tmp_path)
    assert json.loads(path.read_text()).keys() == {"smoke", "city"}

    def read(size=96, seeds=1, name="city"):
        profile = SimpleNamespace(image_size=size, seeds=tuple(range(seeds)))
        return expected(SimpleNamespace(profile=profile, results=Path("runs", name)), tmp_path)

    once = {OTHER: [1, 8.0], "trunks": [1, 4.0]}
    once |= {name: [1, 4.0] for name in ("train CosFace", "pairs", "views")}
    assert read() == {"01_losses": once}
    twice = {name: [2, 8.0] for name in ("train CosFace", "pairs", "views")}
    assert read(seeds=3) == {"01_losses": once, SEEDS_IN: twice}
    assert read(size=128) == read(name="city-mine") == {}
    for text in ("{", None):
        path.write_text(text) if text else path.unlink()
        assert read() == {}
    released.parent.mkdir()  # a released run needs no entry
    released.write_text(json.dumps(content))
    assert read() == {"01_losses": once}
    assert name_of(step("train CosFace, seed 12")) == "train CosFace"


@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
def test_a_run_of_several_seeds_tells_what_one_of_another_number_takes(tmp_path, seeds):
    made = {"first": ("01_losses", "train CosFace", 30.0)}
    made |= {f"again {k}": (SEEDS_IN, f"train CosFace, seed {k}", 20.0) for k in (1, 2)}
    steps = {
        key: {"kind": "models", "label": label, "seconds": seconds, "notebooks": [notebook]}
        for key, (notebook, label, seconds) in made.items()
    }
    notebooks = {"01_losses": {"seconds": 33.0, "models": 30.0}}
    notebooks[SEEDS_IN] = {"seconds": 47.0, "models": 40.0}
    (tmp_path / "city").mkdir()
    content = {"image_size": 96, "seeds": [0, 1, 2], "notebooks": notebooks, "steps": steps}
    (tmp_path / "city/run.json").write_text(json.dumps(content))
    profile = SimpleNamespace(image_size=96, seeds=tuple(range(seeds)))
    found = expected(SimpleNamespace(profile=profile, results=Path("runs/city")), tmp_path)
    assert found["01_losses"] == {OTHER: [1, 3.0], "train CosFace": [1, 30.0]}
    further = {"train CosFace": [seeds - 1, 20.0 * (seeds - 1)]} if seeds > 1 else {}
    assert found[SEEDS_IN] == {OTHER: [1, 7.0]} | further


def test_the_clone_knows_what_its_profiles_take():
    run = read(CITY / "run.json")

    def study(name, seeds=(0,)):
        profile = SimpleNamespace(image_size=PROFILES[name].image_size, seeds=seeds)
        return SimpleNamespace(profile=profile, results=Path("runs", name))

    assert expected(study("city", run["seeds"])) == parts_of(run)
    assert expected(study("smoke")).keys() == parts_of(read(CITY / "run.json")).keys()


def test_a_run_that_found_steps_in_the_cache_is_not_written(tmp_path):
    steps = {"a": {"kind": "pairs", "label": "compare", "seconds": 4.0, "notebooks": ["01_losses"]}}
    content = {"notebooks": {"01_losses": {"seconds": 9.0}}, "steps": steps}
    (tmp_path / "run.json").write_text(json.dumps(content))
    with pytest.raises(VgeoError, match="found 'compare' in the cache: give a run that began with"):
        write(tmp_path, tmp_path)
    assert not (tmp_path / "expected.json").exists()
