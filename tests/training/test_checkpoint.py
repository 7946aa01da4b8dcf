"""Checkpoints come back whole; damaged ones are tested with the faults of a run."""

import torch

from vgeo.training.checkpoint import Checkpoint


def parts():
    layer = torch.nn.Linear(3, 2)
    return layer, torch.optim.Adam(layer.parameters(), lr=0.1)


def test_a_checkpoint_comes_back(tmp_path):
    layer, optimizer = parts()
    assert Checkpoint(tmp_path / "c.pt", layer=layer).load() == {}
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    values = {"iteration": 7, "log": [[1, 0.5, None]], "weights": {"a": torch.ones(2)}}
    Checkpoint(tmp_path / "c.pt", layer=layer, optimizer=optimizer).save(**values)
    again, adam = parts()
    saved = Checkpoint(tmp_path / "c.pt", layer=again, optimizer=adam).load()
    assert torch.equal(saved.pop("weights")["a"], torch.ones(2))
    assert saved == {"iteration": 7, "log": [[1, 0.5, None]]}
    assert torch.equal(again.weight, layer.weight)
    before, after = optimizer.state[layer.weight], adam.state[again.weight]
    assert torch.equal(after["exp_avg"], before["exp_avg"])
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]


def test_removing_a_checkpoint_removes_what_a_killed_process_left(tmp_path):
    checkpoint = Checkpoint(tmp_path / "c.pt", layer=parts()[0])
    checkpoint.save(iteration=1)
    (tmp_path / ".c.pt.123.tmp").write_bytes(b"half")
    (tmp_path / "other.pt").write_bytes(b"mine")
    checkpoint.remove()
    checkpoint.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["other.pt"]
