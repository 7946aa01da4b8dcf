"""Notebooks to run, and the tiny study of tests/study."""

# ruff: noqa: F811  (a fixture that is a parameter of another)

import shutil
from dataclasses import replace

import nbformat
import pytest
from study.conftest import photos, study, tiny, weights  # noqa: F401

from vgeo.study.study import Study

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


@pytest.fixture(scope="session")
def write_notebook():
    """Writes a notebook of cells, whose first one holds the parameters."""

    def write(path, parameters, *cells, kernel=KERNEL):
        first = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
        cells = [
            first,
            *map(nbformat.v4.new_code_cell, cells),
            nbformat.v4.new_markdown_cell("end"),
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
        return path

    return write


@pytest.fixture
def whole_study(tiny, photos, weights, tmp_path):
    """A tiny Study with starting weights of both backbones (the same file) and room on its disk."""
    folder = shutil.copytree(weights, tmp_path / "weights")
    shutil.copy(folder / "resnet18.safetensors", folder / "efficientnet_v2_s.safetensors")
    places = {"results": tmp_path / "results", "cache": tmp_path / "cache", "weights": folder}
    return Study(replace(tiny, disk_gb=0.001), photos, **places)
