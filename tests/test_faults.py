"""Damage on disk is detected, redone and never used; stopped work goes on. `tests/faults.py` does the same to a whole study, on demand."""

import json
import shutil

import numpy as np
import pytest
import torch

from vgeo import artefacts
from vgeo.artefacts import Checkpoint, artefact

RECIPE = {"what": [1, 2], "version": 1}


@pytest.fixture
def made(tmp_path, monkeypatch):
    """(the folder of an artefact as a later process finds it, a function that asks for it again and says how often it was made by then)."""
    count = []

    def make(folder):
        count.append(1)
        (folder / "sub").mkdir()
        np.save(folder / "sub" / "a.npy", np.arange(1000))
        (folder / "empty").touch()

    def again():
        monkeypatch.setattr(artefacts, "_whole", set())  # as in another process
        folder = artefact(tmp_path, "step", RECIPE, make)
        assert np.load(folder / "sub" / "a.npy").tolist() == list(range(1000)) and (folder / "empty").read_bytes() == b""
        return len(count)

    again()
    return tmp_path / "step" / artefacts.key(RECIPE), again


def flip(path, place, bit=1):
    content = bytearray(path.read_bytes())
    content[place] ^= bit
    path.write_bytes(content)


DAMAGE = {
    "a byte flipped at the end": (lambda f: flip(f / "sub/a.npy", -1, 128), "sub/a.npy is damaged"),
    "a byte flipped in the header": (lambda f: flip(f / "sub/a.npy", 5), "sub/a.npy is damaged"),
    "cut short": (lambda f: (f / "sub/a.npy").write_bytes((f / "sub/a.npy").read_bytes()[:-1]), "sub/a.npy is damaged"),
    "emptied": (lambda f: (f / "sub/a.npy").write_bytes(b""), "sub/a.npy is damaged"),
    "grown": (lambda f: (f / "empty").write_bytes(b"0"), "empty is damaged"),
    "a file removed": (lambda f: (f / "empty").unlink(), "empty is gone"),
    "seconds changed": (lambda f: (f / "seconds").write_text("9.99\n"), "seconds is damaged"),
    "the recipe of another": (lambda f: (f / "recipe.json").write_text('{"what": [2, 1], "version": 1}'), "its recipe.json is another's"),
    "the recipe cut short": (lambda f: (f / "recipe.json").write_text("{"), "its recipe.json or sums.json is damaged"),
    "the recipe in other words": (lambda f: (f / "recipe.json").write_text(json.dumps(RECIPE)), "recipe.json is damaged"),
    "the recipe removed": (lambda f: (f / "recipe.json").unlink(), "recipe.json is gone"),
    "the sums cut short": (lambda f: (f / "sums.json").write_bytes((f / "sums.json").read_bytes()[:-9]), "its recipe.json or sums.json is damaged"),
    "the sums of another shape": (lambda f: (f / "sums.json").write_text('{"empty": 3}'), "its recipe.json or sums.json is damaged"),
    "the sums not text": (lambda f: (f / "sums.json").write_bytes(b"\xff\xfe"), "its recipe.json or sums.json is damaged"),
    "everything removed": (lambda f: [shutil.rmtree(f), f.mkdir()], "recipe.json is gone"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_artefact_is_said_and_made_again(made, capsys, what):
    folder, again = made
    assert again() == 1 and capsys.readouterr().out == ""
    damage, message = DAMAGE[what]
    damage(folder)
    assert again() == 2
    assert capsys.readouterr().out == f"vgeo: {folder}: {message}: makes it again\n"
    assert again() == 2 and capsys.readouterr().out == ""
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_one_without_sums_is_sealed_as_it_is_found(made, capsys):
    folder, again = made
    (folder / "sums.json").unlink()
    assert again() == 1 and (folder / "sums.json").exists()
    flip(folder / "sub/a.npy", 200)
    assert again() == 2 and "a.npy is damaged" in capsys.readouterr().out
    (folder / "sums.json").unlink()
    (folder / "recipe.json").unlink()  # written last: without it, nothing says that the folder was whole
    assert again() == 3


def test_a_removal_that_was_killed_leaves_nothing_to_be_taken_for_whole(made, monkeypatch):
    folder, again = made
    flip(folder / "sub/a.npy", 200)
    real = shutil.rmtree

    def killed(path, **options):
        if (path / "sums.json").exists():
            (path / "sums.json").unlink()
            raise KeyboardInterrupt
        real(path, **options)

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        again()
    monkeypatch.setattr(shutil, "rmtree", real)
    assert not folder.exists() and again() == 2


# Checkpoints

def parts(seed=0):
    torch.manual_seed(seed)
    layer = torch.nn.Linear(30, 20)
    return {"layer": layer, "optimizer": torch.optim.Adam(layer.parameters(), lr=0.1)}


def other_layer():
    return {"layer": torch.nn.Linear(3, 2), "optimizer": parts()["optimizer"]}



CHECKPOINTS = {
    **{f"a byte flipped at {share:.0%}": lambda path, share=share: flip(path, int(share * path.stat().st_size)) for share in (0.1, 0.3, 0.5, 0.7)},
    "cut to half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "without its last byte": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not a checkpoint"),
    "another model's": lambda path: Checkpoint(path, **other_layer()).save(iteration=3),
    "of fewer parts": lambda path: Checkpoint(path, layer=parts(7)["layer"]).save(iteration=3),
    "of a model that fits and an optimizer that doesn't": lambda path: Checkpoint(path, **{**parts(7), "optimizer": torch.optim.Adam(
        [torch.nn.Parameter(torch.ones(1)) for _ in range(3)], lr=0.3)}).save(iteration=3),
    "a tensor": lambda path: torch.save(torch.ones(3), path),
}


@pytest.mark.parametrize("what", CHECKPOINTS)
def test_a_checkpoint_that_cannot_be_used_starts_the_training_again(tmp_path, capsys, what):
    path, trained = tmp_path / "checkpoint.pt", parts(5)
    trained["layer"](torch.ones(1, 30)).sum().backward()
    trained["optimizer"].step()
    Checkpoint(path, **trained).save(iteration=2, weights={"a": torch.ones(500)})
    CHECKPOINTS[what](path)
    fresh, same = parts(), parts()
    assert Checkpoint(path, **fresh).load() == {}
    said = capsys.readouterr().out
    assert said.startswith(f"vgeo: {path}: can't be used (") and said.endswith("): starts this training again\n") and said.count("\n") == 1
    assert torch.equal(fresh["layer"].weight, same["layer"].weight) and fresh["optimizer"].state_dict() == same["optimizer"].state_dict()
    assert not path.exists() and Checkpoint(path, **fresh).load() == {} and capsys.readouterr().out == ""
