"""The notebooks' form: short stories without functions, which end with what they say."""

import re
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("0*.ipynb"))


def test_there_are_ten_notebooks():
    assert [path.stem[:2] for path in NOTEBOOKS] == [f"0{k}" for k in range(10)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_a_short_story(path):
    notebook = nbformat.read(path, as_version=4)
    cells = notebook.cells
    sources = [cell.source for cell in cells if cell.cell_type == "code"]
    lines = [line for source in sources for line in source.splitlines() if line.strip()]
    code = [line for line in lines if not line.lstrip().startswith("#")]
    assert 25 <= len(code) <= 60
    assert max(map(len, lines)) <= 100
    text = "\n".join(code)
    for word in (r"\bdef\b", r"\.to_csv\(", r"\bpyplot\b", r"\bwrite_run\b"):
        assert not re.search(word, text), f"{word} in {path.name}"
    assert re.match(rf"# {path.stem[:2]} .+\n\n\*\*Questions?\.\*\* ", cells[0].source)
    assert ["parameters" in cell.metadata.get("tags", []) for cell in cells].count(True) == 1
    assert f'Section(study.results, "{path.stem}")' in text
    assert len({cell.id for cell in cells}) == len(cells)
    assert "widgets" not in notebook.metadata, "states of progress bars that nothing shows"
    assert "section.says(" in cells[-1].source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_study_that_is_reproduced_is_called_the_original(path):
    for cell in nbformat.read(path, as_version=4).cells:
        assert not re.search(r"(the|The) report\b", cell.source), cell.source
