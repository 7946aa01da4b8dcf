"""Two processes, connected by gloo as two machines would be, give what one gives."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from vgeo import parallel
from vgeo.files import key
from vgeo.errors import VgeoError
from vgeo.models.network import build
from vgeo.models.weights import save_weights
from vgeo.device import Share

TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folders that one process and two have left."""
    top, random = tmp_path_factory.mktemp("parallel"), np.random.default_rng(0)
    (top / "photos").mkdir()
    for i in range(24):
        size = [(40, 32), (48, 40), (32, 32)][i % 3]
        picture = Image.fromarray(random.integers(0, 256, (6, 6, 3), np.uint8)).resize(
            size, Image.Resampling.BICUBIC
        )
        picture.save(top / "photos" / f"{i:02}.png")
    torch.manual_seed(5)
    for name, how in (("one", ()), ("two", TWO)):
        (top / name).mkdir()
        save_weights(
            build("resnet18") if name == "one" else load_file(top / "one/start.safetensors"),
            top / name / "start.safetensors",
            {},
        )
        case = [
            sys.executable,
            *how,
            str(Path(__file__).with_name("parallel_case.py")),
            str(top / "photos"),
            str(top / name),
        ]
        done = subprocess.run(case, env=ENVIRONMENT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        assert not list((top / name).rglob("*.partial"))
    return top / "one", top / "two"


def left(folder, step):
    return folder / step / key({})


def test_descriptors_and_pair_scores_are_the_same_numbers(runs):
    one, two = (np.load(left(folder, "found") / "found.npz") for folder in runs)
    assert (
        len(one["pairs"]) == 6 * 24
    )  # one chunk: the second process has none; describing has many
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])


@pytest.mark.parametrize("method", ["CosPlace", "GRL", "GeoWarp", "alone"])
def test_training_is_the_same_within_rounding(runs, method):
    one, two = (
        pd.read_csv(left(folder, method) / "log.csv").drop(
            columns=["images_per_second", "val_R@1", "seconds"], errors="ignore"
        )
        for folder in runs
    )
    assert len(one) == 3
    pd.testing.assert_frame_equal(one, two, rtol=2e-3, atol=2e-4, check_dtype=False)
    for name in ("model.safetensors", "extra.safetensors"):
        if (left(runs[0], method) / name).exists():
            one, two = (load_file(left(folder, method) / name) for folder in runs)
            # Adam's first steps are the rate times the gradient's sign: where that is all but 0, as before a BatchNorm, rounding decides
            apart = torch.cat(
                [(one[key].float() - two[key].float()).abs().flatten() for key in one]
            )
            assert (apart > 1e-5).float().mean() < 0.03 and apart.max() < 0.05


def test_shares_make_up_the_whole():
    rows, generator = np.arange(12), torch.Generator()
    parts = [Share(i, 3) for i in range(3)]
    assert sorted(np.concatenate([part.of(rows) for part in parts]).tolist()) == rows.tolist()
    whole = torch.rand(2, 12, 4, generator=generator.manual_seed(1))
    for part in parts:
        torch.testing.assert_close(
            part.rand(2, 4, 4, generator=generator.manual_seed(1)),
            torch.stack([whole[:, i] for i in part.of(range(12))], 1),
        )
    with pytest.raises(VgeoError, match="32: 3 processes"):
        parts[0].check(32, "batches of")


def test_a_shared_batchnorm_alone_is_torchs():
    torch.manual_seed(0)
    ours, theirs = parallel.SharedBatchNorm2d(5), nn.BatchNorm2d(5)
    images = torch.randn(4, 5, 3, 2) * 3 + 7
    for _ in range(2):
        inputs = [images.clone().requires_grad_() for _ in range(2)]
        results = [norm(x) for norm, x in zip((ours, theirs), inputs)]
        torch.testing.assert_close(*results)
        for result in results:
            (result**3).sum().backward()
        torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    torch.testing.assert_close(ours.eval()(images), theirs.eval()(images))
