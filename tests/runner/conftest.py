"""Notebooks to run, and the tiny study of tests/study."""

import nbformat
import pytest
from study.conftest import photos, study, tiny, weights  # noqa: F401

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
