"""A results folder as the notebooks leave it, small, made through `Section`."""

import json
from pathlib import Path

import nbformat
import pandas as pd
from matplotlib import pyplot as plt

from vgeo.report.section import Drawing, Section

CITY = Path(__file__).parents[2] / "results" / "city" / "tables"  # the released run


def drawing(name="curve", caption="A curve", photos=False):
    """A small figure of a line."""
    figure, axis = plt.subplots(figsize=(2, 1))
    axis.plot([1, 2])
    alt = f"One straight line that goes up from one to two, of the figure {name}."
    return Drawing(name, figure, caption, alt, photos)


def notebook(path, source):
    """A notebook whose first cell is this Markdown."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [nbformat.v4.new_markdown_cell(source), nbformat.v4.new_code_cell("1")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


def make_results(folder):
    """Writes a results folder of two notebooks and returns it.

    01_losses has Table 1, a plain table with a caption, what training adds to each start, and two
    figures. 08_conclusions has the ledger and the audit.
    """
    losses = Section(folder, "01_losses")
    losses.table(1, pd.read_csv(CITY / "table_01.csv").astype({"queries": "Int64"}))
    losses.table("recalls_losses", pd.read_csv(CITY / "recalls_losses.csv"), "All recalls")
    losses.table("starts", pd.read_csv(CITY / "starts.csv"), "The starts and what training adds")
    losses.figure(drawing())
    losses.figure(drawing("photo", "A photo", photos=True))
    losses.says("The answer (p < 0.05).", "- A second point.")
    conclusions = Section(folder, "08_conclusions")
    for name in ("claims", "audit", "best_results"):
        table = pd.read_csv(CITY / f"{name}.csv")
        conclusions.table(name, table.head(40) if name == "audit" else table, f"The {name}")
    question = "# 01 A title\n\n**Question.** Which?\nAnd why?\n\nMore."
    notebook(folder / "notebooks" / "01_losses.ipynb", question)
    notebook(folder / "notebooks" / "08_conclusions.ipynb", "# 08 Conclusions\n\nWhat holds?")
    steps = {
        "0a": {"kind": "train", "label": "train CosFace", "seconds": 60.0},
        "0b": {"kind": "train", "label": "train CosFace", "seconds": 120.0},
    }
    run = {"profile": "city", "seeds": [0, 1], "steps": steps, "machine": {"cores": 2}}
    run |= {"notebooks": {"01_losses": {"seconds": 9.0, "train": 3.0}}}
    (folder / "run.json").write_text(json.dumps(run))
    return folder
