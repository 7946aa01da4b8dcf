"""The page: what it holds of a results folder, read back with Python's own HTML parser."""

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser

import nbformat
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from report.report_case import CITY

from vgeo.errors import VgeoError
from vgeo.report import original
from vgeo.report.claims import TOLERANCES, VERDICTS
from vgeo.report.findings import summary, tolerances
from vgeo.report.page import HEADLINES, write_page
from vgeo.report.provenance import Provenance
from vgeo.report.section import read_sections
from vgeo.study.rows import FAMILIES, TABLES

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
def folder(made_results):
    """A results folder that no test changes."""
    return made_results


@pytest.fixture(scope="module")
def page(folder):
    return Page(write_page(folder))


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    """The page of the released results, made anew from a copy of them."""
    copy = tmp_path_factory.mktemp("released") / "city"
    unused = shutil.ignore_patterns("*.tex", "*.md", "report.html")
    shutil.copytree(CITY.parent, copy, ignore=unused)
    return Page(write_page(copy))


def edit(folder, change, name="table_01"):
    """Writes a table as `change` returns it."""
    path = folder / "tables" / f"{name}.csv"
    change(pd.read_csv(path).astype({"queries": "Int64"})).to_csv(path, index=False)


# What is on it


def test_every_table_and_figure_of_the_released_run_is_on_its_page(city):
    files = [*CITY.glob("*.csv"), *CITY.parent.glob("figures/*.png")]
    words = city.text.split()
    assert files and all(f"{file.parent.name}/{file.name}" in words for file in files)
    assert len(city.all("img")) == len(list(CITY.parent.glob("figures/*.png")))
    assert len(city.all("figcaption")) == len(city.all("img"))


def test_a_caption_and_an_alternative_text_are_those_of_the_section(page):
    alts = {image["alt"] for image in page.all("img")}
    assert "A photo. One straight line that goes up from one to two, of the figure photo." in alts
    for caption in ("Table 1. Results obtained with different", "All recalls", "A curve"):
        assert caption in page.text


def test_every_row_of_the_ledger_and_the_audit_is_on_the_page(page, folder):
    for name, column in (("claims", "reason"), ("audit", "finding")):
        for words in pd.read_csv(folder / "tables" / f"{name}.csv")[column].dropna():
            assert " ".join(words.split()) in page.text


def test_the_headline_is_computed_from_the_tables(results):
    def change(table):
        table.loc[0, ["value", "ci_low", "ci_high"]] = [12.34, 1.26, 23.44]
        return table

    edit(results, change)
    # once in the headline, once in Table 1
    assert Page(write_page(results)).text.count("12.3 (1.3–23.4) / 52.3") == 2


def test_the_best_of_each_column_is_bold(page, folder):
    assert "<strong>" not in page.text and "**" not in page.text
    columns = 0
    for path in folder.glob("tables/table_??.csv"):
        table = pd.read_csv(path).dropna(subset="value")
        columns += len(table[["dataset", "metric"]].drop_duplicates())
    assert columns and [tag for tag, _ in page.elements].count("strong") > columns


def test_the_headlines_are_rows_of_the_study():
    for _, table, condition in HEADLINES:
        assert condition in TABLES[table]


def test_the_first_lines_say_how_far_the_data_carry(page, folder):
    start = page.text.split("In short")[1].split("The seven changes")[0]
    queries = pd.read_csv(folder / "tables/table_01.csv").set_index("dataset")["queries"]
    ledger = pd.read_csv(folder / "tables" / "claims.csv")
    assert start.strip().startswith(summary(ledger))
    assert f" Queries: {queries['sf-xs'].iloc[0]} on sf-xs" in start
    assert (
        "Trainings start: ResNet18" in start and "Training by CosFace moves R@1 on sf-xs" in start
    )


def test_each_table_and_figure_says_where_it_comes_from(page, folder):
    for stem, record in read_sections(folder).items():
        for entry in [*record["tables"], *record["figures"]]:
            known = Provenance(**entry["provenance"])
            assert known.notebook == f"notebooks/{stem}.ipynb"
            after = page.text.split(f"/{entry['name']}.")[-1]
            assert f" From {known}. " in after
    sources = sum(len(r["tables"]) + len(r["figures"]) for r in read_sections(folder).values())
    assert page.text.count(" From notebooks/") == sources


def test_an_older_folder_without_provenance_has_a_page(results):
    for path in results.glob("sections/*.json"):
        record = json.loads(path.read_text())
        for entry in [*record["tables"], *record["figures"]]:
            del entry["provenance"]
        path.write_text(json.dumps(record))
    assert " From notebooks/" not in Page(write_page(results)).text


def test_other_tolerances_are_said_where_the_ledger_has_them(results):
    path = results / "tables" / "claims.csv"
    ledger = pd.read_csv(path)
    ledger.assign(**dict.fromkeys(TOLERANCES, "reproduced")).to_csv(path, index=False)
    text = Page(write_page(results)).text
    assert f" {tolerances(pd.read_csv(path))} " in text and "Alpha 0.01" in text


def test_the_verdicts_are_counted_from_the_ledger(page, folder):
    ledger = pd.read_csv(folder / "tables" / "claims.csv")
    counts = pd.crosstab(ledger["family"], ledger["verdict"])
    for family in FAMILIES:
        for verdict in ("reproduced", "contradicted"):
            assert f"{counts.loc[family, verdict]} {verdict}" in page.text
    table = page.text.split("The claims, counted ")[1].split("The claims: all")[0]
    of_families = table.split(f" {FAMILIES[0]} ")[1].split(f" {FAMILIES[1]} ")
    for text, family in zip(of_families, FAMILIES, strict=True):
        *_, totals = text.split(" all ")
        cells = [int(cell) for cell in totals.split()]
        kinds = counts.loc[family].reindex(VERDICTS, fill_value=0)
        assert cells == [*kinds, kinds.sum()]


def test_the_ledger_says_whose_rows_each_claim_compares(page, folder):
    families = pd.read_csv(folder / "tables" / "claims.csv")["family"].value_counts()
    rows = page.text.split("The claims: all")[1].split("audit, counted")[0]
    for family in FAMILIES:
        assert rows.count(f" {family} ") >= families[family]


def test_the_original_is_cited(page):
    assert original.AUTHORS in page.text and original.TITLE in page.text
    assert original.URL in [link["href"] for link in page.all("a")]


def test_a_notebook_s_question_and_conclusions_are_on_the_page(page):
    assert "A title" in page.text and "01 A title" not in page.text
    assert "Question. Which? And why?" in page.text and "More." not in page.text
    assert "The answer (p < 0.05)." in page.text and "A second point." in page.text


def test_steps_with_one_label_are_counted_each(page):
    assert "2 steps were made or found, 3 minutes of work in all" in page.text
    rows = page.text.split("The ten longest steps")[1]
    assert rows.count("train CosFace") == 2


# How it is made


def test_the_tags_nest(page, city):
    assert page.nests and city.nests


def test_every_image_has_an_alternative_text_of_its_own(page, city):
    for each in (page, city):
        alts = [image["alt"] for image in each.all("img")]
        assert all(len(alt.split()) > 8 for alt in alts) and len(set(alts)) == len(alts)


def test_headings_skip_no_level(city):
    levels = [int(tag[1]) for tag, _ in city.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))


def test_ids_are_unique_and_every_link_inside_resolves(city):
    ids = [attributes["id"] for _, attributes in city.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [link["href"] for link in city.all("a") if link["href"] != original.URL]
    assert len(links) > 50 and all(link.startswith("#") and link[1:] in ids for link in links)
    labels = [a["aria-labelledby"] for _, a in city.elements if "aria-labelledby" in a]
    assert labels and set(labels) <= set(ids)


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


def test_a_figure_s_picture_is_its_smallest_form_and_loses_nothing(page, folder):
    sources = {image["alt"].split(".")[0]: image["src"] for image in page.all("img")}
    for caption, name in (("A curve", "curve"), ("A photo", "photo")):
        files = [folder / "figures" / f"{name}.{kind}" for kind in ("png", "svg")]
        kind, encoded = sources[caption].removeprefix("data:image/").split(";base64,")
        data = base64.b64decode(encoded)
        assert all(len(data) <= file.stat().st_size for file in files if file.exists())
        assert kind == "webp", "these are smallest as WebP"
        with Image.open(io.BytesIO(data)) as shown, Image.open(files[0]) as stored:
            assert np.array_equal(np.asarray(shown), np.asarray(stored.convert("RGB")))


# What may go wrong

HOSTILE = '<script>alert(1)</script>"><img src=http://evil.example/x onerror=alert(1)>'


def test_hostile_text_of_a_table_is_shown_as_text(results):
    edit(results, lambda table: table.replace("SphereFace", HOSTILE))
    table = pd.read_csv(results / "tables" / "table_01.csv")
    named = table.rename(columns={"published": HOSTILE})
    named.to_csv(results / "tables" / "unknown.csv", index=False)
    page = Page(write_page(results))
    # a row of Table 1, none of the headline; of the other table the header and each row
    expected = 1 + 1 + (table["condition"] == HOSTILE).sum()
    assert page.text.count("<script>alert(1)</script>") == expected
    assert not page.all("script") and len(page.all("img")) == 2 and page.nests


@pytest.mark.parametrize(
    "words",
    [HOSTILE, "# A heading", "![alt](http://evil.example/x.png)", "[link](javascript:alert(1))"],
)
@pytest.mark.parametrize("place", ["says", "question"])
def test_hostile_text_of_a_notebook_makes_no_element(page, results, words, place):
    before = [tag for tag, _ in page.elements if tag not in ("a", "p", "strong")]
    if place == "says":
        path = results / "sections" / "01_losses.json"
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"says": f"{record['says']}\n\n{words}"}))
    else:
        path = results / "notebooks" / "01_losses.ipynb"
        notebook = nbformat.read(path, as_version=4)
        notebook.cells[0].source = f"# {words}\n\n{words}"
        nbformat.write(notebook, path)
    after = Page(write_page(results))
    assert [tag for tag, _ in after.elements if tag not in ("a", "p", "strong")] == before
    assert after.nests and not any("javascript" in link["href"] for link in after.all("a"))


def test_hostile_text_of_the_run_is_shown_as_text(results):
    step = {"label": HOSTILE, "seconds": 1.0}
    run = {"profile": HOSTILE, "data": {HOSTILE: HOSTILE}, "steps": {HOSTILE: step}}
    (results / "run.json").write_text(json.dumps(run))
    page = Page(write_page(results))
    assert page.text.count("<script>alert(1)</script>") >= 4 and not page.all("script")


def test_what_is_absent_is_said_by_its_name(results):
    gone = ["tables/recalls_losses.csv", "figures/photo.png", "notebooks/08_conclusions.ipynb"]
    for name in [*gone, "run.json"]:
        (results / name).unlink()
    text = Page(write_page(results)).text
    said = text.split("Not in this folder:")[1].split(". Contents ")[0]
    assert sorted(said.strip().split(", ")) == sorted(gone)
    assert "no run.json" in text


def test_a_data_set_that_is_absent_says_why(results):
    def change(table):
        gone = table["dataset"] == "tokyo-night"
        table.loc[gone, ["value", "ci_low", "ci_high", "queries"]] = pd.NA
        return table

    edit(results, change)
    path = results / "sections" / "01_losses.json"
    record = json.loads(path.read_text())
    record["tables"][0]["reasons"] = {"tokyo-night": "no tokyo-night/test queries in photos"}
    path.write_text(json.dumps(record))
    # Table 1's rows with two metrics, and the rows of the headline that are of Table 1
    expected = 2 * len(TABLES[1]) + [number for _, number, _ in HEADLINES].count(1)
    text = Page(write_page(results)).text
    assert text.count("no tokyo-night/test queries in photos") == expected


def test_a_table_or_figure_that_no_section_names_is_shown_all_the_same(results):
    shutil.copy(results / "tables" / "table_01.csv", results / "tables" / "new_one.csv")
    shutil.copy(results / "figures" / "curve.png", results / "figures" / "new_two.png")
    text = Page(write_page(results)).text.split("What else is in the folder")[-1]
    assert "tables/new_one.csv" in text and "figures/new_two.png" in text


def test_a_folder_without_tables_is_refused(tmp_path):
    with pytest.raises(VgeoError, match="run the study first"):
        write_page(tmp_path)


# Files that other tools read


@pytest.mark.parametrize("path", sorted(CITY.glob("*.csv")), ids=lambda path: path.stem)
def test_a_released_table_has_one_named_column_a_field(path):
    table = pd.read_csv(path, header=None, dtype=str, keep_default_na=False)
    names = list(table.iloc[0])
    assert all(name.strip() for name in names) and len(names) == len(set(names))
    assert "\ufeff" not in path.read_bytes().decode("utf-8")
    for name, column in zip(names, table.iloc[1:].T.to_numpy(), strict=True):
        filled = pd.Series([value for value in column if value])
        numbers = pd.to_numeric(filled, errors="coerce").notna()
        assert numbers.all() or not numbers.any() or name == "section", (
            f"{path.name}, {name}: {filled[~numbers].iloc[0]!r} among numbers"
        )
