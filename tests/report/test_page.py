"""The report's page: what it holds of a results folder, read back with Python's own HTML parser."""

import json
import re
import shutil
from fnmatch import fnmatchcase
from html.parser import HTMLParser

import nbformat
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

from vgeo import page, report
from vgeo.errors import VgeoError
from vgeo.report.page import write_page
from vgeo.study.profiles import ROOT

CITY = ROOT / "results" / "city"
VOID = {"meta", "link", "img", "br", "hr", "input", "col", "wbr"}


class Page(HTMLParser):
    """Every element as (tag, attributes), the text, and whether the tags nest."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.texts, self.open, self.nests = [], [], [], True
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        self.nests &= not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        self.nests &= bool(self.open) and self.open.pop() == tag

    def handle_data(self, text):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.texts.append(text)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def all(self, *tags):
        return [attributes for tag, attributes in self.elements if tag in tags]


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    """The page of the committed results, made anew from a copy of them."""
    folder = tmp_path_factory.mktemp("results") / "city"
    shutil.copytree(CITY, folder, ignore=shutil.ignore_patterns("*.tex", "*.md", "report.html"))
    return Page(write_page(folder))


@pytest.fixture
def small(tmp_path):
    """A results folder of one table, one figure and one notebook."""
    (tmp_path / "tables").mkdir()
    shutil.copy(CITY / "tables" / "table_01.csv", tmp_path / "tables")
    figure, axis = plt.subplots(figsize=(2, 1))
    axis.plot([1, 2])
    report.write_figure(tmp_path, "loss_margins", figure)
    cells = [
        nbformat.v4.new_markdown_cell("# 01 A title\n\n**Question.** Which?\nAnd why?\n\nMore."),
        nbformat.v4.new_markdown_cell("## What it says"),
        nbformat.v4.new_code_cell(
            "",
            execution_count=1,
            outputs=[
                nbformat.v4.new_output(
                    "display_data", {"text/markdown": "- The answer (p < 0.05)."}
                )
            ],
        ),
    ]
    (tmp_path / "notebooks").mkdir()
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells), tmp_path / "notebooks" / "01_losses.ipynb"
    )
    return tmp_path


def change(folder, old, new):
    path = folder / "tables" / "table_01.csv"
    path.write_text(path.read_text().replace(old, new))


# What is on it


def test_every_table_and_figure_of_the_folder_is_on_the_page(city):
    for path in [*CITY.glob("tables/*.csv"), *CITY.glob("figures/*.png")]:
        assert f"{path.parent.name}/{path.name}" in city.text.split(), path.name
    assert len(city.all("img")) == len(list(CITY.glob("figures/*.png")))
    assert len(city.all("figcaption")) == len(city.all("img"))


def test_every_row_of_the_ledger_and_the_audit_is_on_the_page(city):
    for name, column in (("claims", "reason"), ("audit", "finding")):
        for words in pd.read_csv(CITY / "tables" / f"{name}.csv")[column].dropna():
            assert " ".join(words.split()) in city.text


def test_the_headline_is_computed_from_the_tables(small):
    change(small, "58.0,52.33,63.67", "12.34,1.26,23.45")
    text = Page(write_page(small)).text
    # once in the headline, once in Table 1
    assert text.count("12.3 (1.3–23.4) / 52.3") + text.count("12.3 (1.3–23.5) / 52.3") == 2


def test_the_verdicts_are_counted_from_the_ledger(city):
    counts = pd.read_csv(CITY / "tables" / "claims.csv")["verdict"].value_counts()
    assert (
        f"{counts['reproduced']} are reproduced" in city.text
        and f"{counts['contradicted']} contradicted" in city.text
    )


def test_a_notebook_s_question_and_last_words_are_on_the_page(small):
    text = Page(write_page(small)).text
    assert (
        "A title" in text
        and "Question. Which? And why?" in text
        and "The answer (p < 0.05)." in text
    )
    assert "01 A title" not in text and "More." not in text


def test_every_committed_figure_has_words_of_its_own():
    patterns = [pattern for pictures in page.FIGURES.values() for pattern in pictures]
    for path in CITY.glob("figures/*.png"):
        assert sum(fnmatchcase(path.stem, pattern) for pattern in patterns) == 1, (
            f"{path.name}: describe it in page.FIGURES"
        )


def test_every_committed_table_has_a_caption():
    captioned = [name for tables in page.TABLES.values() for name in tables]
    assert len(captioned) == len(set(captioned))
    assert {path.stem for path in CITY.glob("tables/*.csv")} <= set(captioned)


# How it is made


def test_the_tags_nest(city):
    assert city.nests


def test_every_image_has_an_alternative_text_of_a_sentence(city):
    alts = [image["alt"] for image in city.all("img")]
    assert all(len(alt.split()) > 8 for alt in alts) and len(set(alts)) == len(alts)


def test_headings_skip_no_level(city):
    levels = [int(tag[1]) for tag, _ in city.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:]))


def test_ids_are_unique_and_every_link_inside_resolves(city):
    ids = [attributes["id"] for _, attributes in city.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [link["href"] for link in city.all("a")]
    assert len(links) > 50 and all(link.startswith("#") and link[1:] in ids for link in links)
    assert all(
        attributes["aria-labelledby"] in ids
        for _, attributes in city.elements
        if "aria-labelledby" in attributes
    )


def test_every_header_cell_has_a_scope_and_the_page_a_language(city):
    assert all(cell["scope"] in ("col", "row", "rowgroup") for cell in city.all("th"))
    assert city.all("html")[0]["lang"] == "en"
    assert len(city.all("caption")) == len(city.all("table"))


def test_nothing_is_loaded_from_elsewhere_and_nothing_is_run(city):
    assert not city.all("script", "iframe", "object", "embed", "base")
    assert not any(name.startswith("on") for _, attributes in city.elements for name in attributes)
    for tag, attributes in city.elements:
        if tag != "a":
            for name in ("src", "href", "srcset", "data", "poster"):
                assert attributes.get(name, "data:").startswith("data:"), (tag, name)
    style = re.search(r"<style>(.*?)</style>", city.source, re.S)[1]
    assert "url(" not in style and "@import" not in style


def test_the_page_stays_small_enough_to_send(city):
    assert len(city.source) < 4e6


def test_a_figure_s_picture_is_the_smaller_of_its_files(small):
    source = Page(write_page(small)).all("img")[0]["src"]
    png, svg = (
        (small / "figures" / f"loss_margins.{kind}").stat().st_size for kind in ("png", "svg")
    )
    assert source.startswith("data:image/png" if png < svg else "data:image/svg+xml")


# What may go wrong

HOSTILE = '<script>alert(1)</script>"><img src=http://evil.example/x onerror=alert(1)>'


def test_hostile_text_of_a_table_is_shown_as_text(small):
    table = pd.read_csv(small / "tables" / "table_01.csv").replace("SphereFace", HOSTILE)
    table.to_csv(small / "tables" / "table_01.csv", index=False)
    table.rename(columns={"published": HOSTILE}).to_csv(
        small / "tables" / "unknown.csv", index=False
    )
    found = Page(write_page(small))
    assert (
        found.text.count("<script>alert(1)</script>") == 8
    )  # a row of Table 1, of the headline's none; a column and six rows of the other
    assert not found.all("script") and len(found.all("img")) == 1 and found.nests


@pytest.mark.parametrize(
    "words",
    [HOSTILE, "# A heading", "![alt](http://evil.example/x.png)", "[link](javascript:alert(1))"],
)
def test_hostile_text_of_a_notebook_makes_no_element(small, words):
    path = small / "notebooks" / "01_losses.ipynb"
    notebook = nbformat.read(path, as_version=4)
    before = [tag for tag, _ in Page(write_page(small)).elements if tag != "a"]
    notebook.cells[2].outputs[0]["data"]["text/markdown"] = f"- The answer (p < 0.05).\n\n{words}"
    nbformat.write(notebook, path)
    found = Page(write_page(small))
    assert [tag for tag, _ in found.elements if tag not in ("a", "p")] == [
        tag for tag in before if tag != "p"
    ]
    assert not any("javascript" in link["href"] for link in found.all("a"))


def test_hostile_text_of_the_run_is_shown_as_text(small):
    (small / "run.json").write_text(
        json.dumps(
            {"profile": HOSTILE, "data": {HOSTILE: HOSTILE}, "steps": {HOSTILE: {"seconds": 1.0}}}
        )
    )
    found = Page(write_page(small))
    assert found.text.count("<script>alert(1)</script>") >= 4 and not found.all("script")


def test_what_is_absent_is_said_by_its_name(small):
    text = Page(write_page(small)).text
    for name in (
        "tables/table_02.csv",
        "tables/claims.csv",
        "figures/figure_01.png",
        "figures/gallery_*.png",
        "notebooks/08_conclusions.ipynb",
    ):
        assert name in text.split("Not in this folder:")[1].split(" Contents ")[0].rstrip(
            "."
        ).split(", ")
    assert "tables/table_01.csv" not in text.split("Not in this folder:")[1].split(" Contents ")[0]
    assert "no run.json" in text


def test_a_data_set_that_is_absent_says_why(small):
    table = pd.read_csv(small / "tables" / "table_01.csv")
    table.loc[table["dataset"] == "tokyo-night", ["value", "ci_low", "ci_high", "queries"]] = None
    table.to_csv(small / "tables" / "table_01.csv", index=False)
    (small / "run.json").write_text(
        json.dumps({"data": {"tokyo-night": "no tokyo-night/test queries in photos"}})
    )
    assert Page(write_page(small)).text.count("no tokyo-night/test queries in photos") >= 6


def test_a_table_or_figure_without_words_is_shown_all_the_same(small):
    shutil.copy(small / "tables" / "table_01.csv", small / "tables" / "new_one.csv")
    shutil.copy(small / "figures" / "loss_margins.png", small / "figures" / "new_two.png")
    text = Page(write_page(small)).text
    assert (
        "tables/new_one.csv" in text
        and "figures/new_two.png" in text
        and "What else is in the folder" in text
    )


def test_a_folder_without_tables_is_refused(tmp_path):
    with pytest.raises(VgeoError, match="run the study first"):
        write_page(tmp_path)


# Files that other tools read


@pytest.mark.parametrize("path", sorted(CITY.glob("tables/*.csv")), ids=lambda path: path.stem)
def test_a_committed_table_has_one_named_column_a_field(path):
    lines = path.read_bytes().decode("utf-8")
    table = pd.read_csv(path, header=None, dtype=str, keep_default_na=False)
    names = list(table.iloc[0])
    assert (
        all(name.strip() for name in names)
        and len(names) == len(set(names))
        and "\ufeff" not in lines
    )
    for name, column in zip(names, table.iloc[1:].T.to_numpy()):
        filled = pd.Series([value for value in column if value])
        numbers = pd.to_numeric(filled, errors="coerce").notna()
        assert numbers.all() or not numbers.any() or name == "section", (
            f"{path.name}, {name}: {filled[~numbers].iloc[0]!r} among numbers"
        )


# The map's scale


@pytest.mark.parametrize("width", [30, 105, 999, 4_300, 26_000])
def test_a_map_s_scale_bar_is_as_long_as_it_says(tmp_path, width):
    figure, axis = plt.subplots()
    axis.plot([0, width], [0, width / 2])
    axis.set_aspect("equal")
    report.scale_and_north(axis)
    bar = next(artist for artist in axis.artists if isinstance(artist, AnchoredSizeBar))
    number, unit = bar.txt_label.get_text().split()
    metres = float(number) * {"m": 1, "km": 1000}[unit]
    assert bar.size_bar.get_children()[0].get_width() == pytest.approx(metres)
    assert 0.05 * width < metres < width
    assert "N" in [text.get_text() for text in axis.texts]
    figure.canvas.draw()
    assert (
        figure.get_tightbbox().x1 >= bar.get_window_extent().x1 / figure.dpi
    )  # a saved figure does not cut it off
    plt.close(figure)
