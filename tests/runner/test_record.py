"""run.json: whole, of every step, and of what is there."""

from dataclasses import replace

import pytest
import torch
import torchvision
from safetensors.torch import load_file

from vgeo.models import network
from vgeo.models.weights import weights_hash
from vgeo.runner.record import BEFORE, Record, backbones, read, start_of
from vgeo.study.cache import read_journal
from vgeo.study.study import Study


def line(key, event="made", kind="pairs", label="compare 15 pairs sf-xs", own=1.0, folder="none"):
    words = {"event": event, "key": key, "kind": kind, "label": label, "folder": str(folder)}
    return words | {"seconds": 3.0, "own": own}


def test_steps_that_share_a_label_are_all_recorded(tmp_path):
    record = Record(tmp_path / "run.json")
    keys = ["a1", "b2", "c3"]
    record.add("04_geowarp", 9.0, [line(key) for key in keys])
    content = read(tmp_path / "run.json")
    assert [*content["steps"]] == keys
    step = {"kind": "pairs", "label": "compare 15 pairs sf-xs", "seconds": 3.0}
    assert content["steps"]["b2"] == step | {"notebooks": ["04_geowarp"]}
    assert content["notebooks"] == {"04_geowarp": {"seconds": 9.0, "pairs": 3.0}}


def test_seconds_are_those_of_the_notebook_that_made_a_step(tmp_path):
    record = Record(tmp_path / "run.json")
    lines = [line("a", "begin"), line("b", "begin", "mined"), line("b", own=1.5, kind="mined")]
    record.add("04_geowarp", 9.0, [*lines, line("a", own=2.25)])
    record.add("05_backbones", 4.0, [line("a", "found", own=0.0)])
    record.add(BEFORE, 5.0, [line("d", kind="data")])
    content = read(tmp_path / "run.json")
    assert content["notebooks"] == {
        BEFORE: {"seconds": 5.0, "data": 1.0},
        "04_geowarp": {"seconds": 9.0, "mined": 1.5, "pairs": 2.25},
        "05_backbones": {"seconds": 4.0},
    }
    assert [*content["notebooks"]][0] == BEFORE
    assert content["steps"]["a"]["notebooks"] == ["04_geowarp", "05_backbones"]


def test_a_notebook_that_is_executed_again_replaces_what_it_used(tmp_path):
    record = Record(tmp_path / "run.json")
    record.add("01_losses", 1.0, [line("shared"), line("own")])
    record.add("02_grl", 1.0, [line("shared", "found"), line("old")])
    record = Record(tmp_path / "run.json", ["01_losses"])
    assert read(tmp_path / "run.json")["steps"].keys() == {"shared", "own", "old"}  # not yet
    record.add("02_grl", 2.0, [line("new")])
    content = read(tmp_path / "run.json")
    assert {key: step["notebooks"] for key, step in content["steps"].items()} == {
        "shared": ["01_losses"],
        "own": ["01_losses"],
        "new": ["02_grl"],
    }
    assert content["notebooks"]["02_grl"] == {"seconds": 2.0, "pairs": 1.0}


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"steps": {"a": {"key": "b"}}}', "\0"])
def test_a_damaged_record_is_written_anew(tmp_path, refused, text):
    path = tmp_path / "run.json"
    path.write_text(text)
    refused(lambda: read(path), path, "is no record of a run", "run the study again")
    Record(path, ["01_losses"]).add("00_data", 1.0, [])
    assert read(path) == {"notebooks": {"00_data": {"seconds": 1.0}}, "steps": {}}


def test_the_record_says_what_the_run_was_made_of(whole_study, tmp_path):
    record, model = Record(tmp_path / "run.json"), whole_study.train("CosFace")
    record.describe(whole_study)
    record.add("01_losses", 2.0, read_journal(whole_study.cache.journal)[0])
    content = read(tmp_path / "run.json")
    assert content["profile"] == "tiny" and content["seeds"] == [0] and content["image_size"] == 32
    assert content["commit"] is None or len(content["commit"]) == 40
    assert content["dirty"] in ((True, False) if content["commit"] else (None,))
    assert content["start"] == (
        "ImageNet weights (efficientnet_lite0); the weights of vgeo/models/pretrained "
        "(efficientnet_v2_s, resnet18)"
    )
    assert content["data"]["train"] == "12 images, 3 classes, group (0, 0, 0)"
    assert content["data"]["sf-xs"].startswith("sf-xs: 5 queries, 7 database images")
    assert content["versions"].keys() >= {
        "vgeo",
        "python",
        "torch",
        "numpy",
        "opencv-python-headless",
    }
    assert content["machine"].keys() >= {"processor", "cores", "device", "precision"}
    models = [step for step in content["steps"].values() if step["kind"] == "models"]
    (trained,) = (step for step in models if step["label"] == "train CosFace")
    assert {step["label"] for step in models} - {trained["label"]} == {"start efficientnet_lite0"}
    assert trained["notebooks"] == ["01_losses"]
    assert trained["weights"] == {"model": weights_hash(model.weights)}
    starts = {name: weights_hash(whole_study.start(name).weights) for name in backbones()}
    assert content["starting_weights"] == starts


def test_the_record_says_that_imagenet_was_asked_for(whole_study, monkeypatch):
    study = Study(
        replace(whole_study.profile, whitens_head=True),
        whole_study.data.folder,
        start="imagenet",
        results=whole_study.results,
        cache=whole_study.cache.root,
    )
    words = "ImageNet weights (efficientnet_lite0, efficientnet_v2_s, resnet18)"
    assert start_of(study) == f"{words}; head whitened on training photos"
    torch.manual_seed(6)
    state = torchvision.models.resnet18().state_dict()
    monkeypatch.setattr(network, "imagenet_state", lambda url: state)
    given = load_file(study.trainings.given("resnet18"))
    assert torch.equal(given["backbone.0.weight"], state["conv1.weight"])
