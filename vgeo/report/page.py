"""`report.html`: everything in a results folder on one page that needs nothing beside it."""

import base64
import io
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import mistune
import nbformat
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from vgeo.errors import VgeoError
from vgeo.files import write
from vgeo.report import claims, findings, original, tables
from vgeo.report.machines import comparison
from vgeo.report.provenance import Provenance
from vgeo.report.section import read_sections

# The rows that answer "did it help?": our words, table, condition. The first is the original's
# baseline; the last three repeat the baseline and two changes with EfficientNet-Lite0.
HEADLINES = (
    ("CosPlace (ResNet18, CosFace): the baseline", 1, "CosFace"),
    ("ArcFace", 1, "ArcFace"),
    ("SphereFace", 1, "SphereFace"),
    ("gradient reversal (GRL)", 2, "GRL"),
    ("darker database (factor 0.15)", 3, "baseline brightness=0.15"),
    ("GeoWarp's re-ranking", 4, "baseline + GeoWarp"),
    ("EfficientNetV2-S", 5, "EffV2s"),
    ("greedy soup of the three losses", 6, "Model Soup"),
    ("EfficientNetV2-S, GeoWarp and GRL merged (SIF)", 7, "GeoWarp + GRL (SIF)"),
    ("GRL at five scales, averaged", 8, "avg"),
    ("the baseline with EfficientNet-Lite0", 1, "EffLite0: CosFace"),
    ("GRL with EfficientNet-Lite0", 2, "EffLite0: GRL"),
    ("GeoWarp's re-ranking with EfficientNet-Lite0", 4, "EffLite0: baseline + GeoWarp"),
)
FOLDED = 30  # a table with more rows is shown when its title is clicked


def write_page(results: str | os.PathLike) -> Path:
    """Writes `report.html`, a page without a script or anything loaded from elsewhere.

    Parameters
    ----------
    results : a results folder: `sections/*.json` (see `section.Section`) with the tables and
        figures they name, the executed `notebooks/*.ipynb`, `run.json`, and `machines/*.csv` where
        another machine was compared. What a section names and is not there, is said on the page.
        A table or figure that no section names is shown at the end.

    Returns
    -------
    The path of the page.

    Raises
    ------
    VgeoError
        Where there is no table.
    """
    folder = Path(results)
    files = {f"tables/{path.name}" for path in folder.glob("tables/*.csv")}
    files |= {f"figures/{path.name}" for path in folder.glob("figures/*.png")}
    if not any(file.startswith("tables/") for file in files):
        raise VgeoError(f"{folder}: has no tables/*.csv: run the study first")
    records, named, absent = read_sections(folder), set(), []
    notebooks = {path.stem: path for path in folder.glob("notebooks/*.ipynb")}
    sections = []
    for stem in sorted({*records, *notebooks}):
        record = records.get(stem, {"tables": [], "figures": [], "says": ""})
        wanted = {f"tables/{entry['name']}.csv" for entry in record["tables"]}
        wanted |= {f"figures/{entry['name']}.png" for entry in record["figures"]}
        named |= wanted
        absent += sorted(wanted - files)
        if stem not in notebooks:
            absent.append(f"notebooks/{stem}.ipynb")
        section = _section(folder, stem, record, files)
        section |= _introduction(notebooks.get(stem), stem)
        sections.append(section)
    if others := sorted(files - named):
        sections.append(_others(folder, others))
    run_file = folder / "run.json"
    run = json.loads(run_file.read_text(encoding="utf-8")) if run_file.exists() else {}
    page = _template().render(
        run=run,
        original=original,
        limits=findings.limits(folder),
        found=_found(folder),
        findings_note=findings.NOTE,
        headline=_headline(folder, records),
        best=_best(folder),
        note=tables.NOTE,
        sections=sections,
        absent=absent,
        **_machines(folder),
        **_run_tables(run),
    )
    write(folder / "report.html", page)
    return folder / "report.html"


def _template():
    """The page's template, which escapes all that is put into it and refuses unknown names."""
    loader = PackageLoader("vgeo.report")
    look = {"trim_blocks": True, "lstrip_blocks": True, "undefined": StrictUndefined}
    return Environment(loader=loader, autoescape=True, **look).get_template("report.html")


class _Words(mistune.HTMLRenderer):
    """Markdown of a notebook as HTML without headings, pictures or HTML of its own."""

    def heading(self, text, level, **attributes):
        return self.paragraph(text)

    def image(self, text, url, title=None):
        return text


_markdown = mistune.create_markdown(renderer=_Words(escape=True))


def _section(folder: Path, stem: str, record: dict, files: set[str]) -> dict:
    """What the template shows of one notebook's record, as far as its files are there."""
    shown_tables = [
        _table(folder, **{key: entry.get(key) for key in ("name", "caption", "reasons")})
        | _source(entry)
        for entry in record["tables"]
        if f"tables/{entry['name']}.csv" in files
    ]
    figures = [
        _figure(folder, entry["name"], entry["caption"], entry["alt"]) | _source(entry)
        for entry in record["figures"]
        if f"figures/{entry['name']}.png" in files
    ]
    says = Markup(_markdown(record["says"]))
    return {"id": stem, "says": says, "tables": shown_tables, "figures": figures}


def _source(entry: dict) -> dict[str, str]:
    """The provenance of a record's entry in words, "" where it has none."""
    known = entry.get("provenance")
    return {"source": str(Provenance(**known)) if known else ""}


def _others(folder: Path, files: list[str]) -> dict:
    """A section of the tables and figures that no notebook's record names."""
    record: dict = {"tables": [], "figures": [], "says": ""}
    for path in map(Path, files):
        entry = {"name": path.stem, "caption": path.stem.replace("_", " ")}
        entry["alt"] = f"The figure {path.stem}, for which there is no description."
        record[path.parent.name].append(entry)
    section = _section(folder, "other", record, set(files))
    return section | {"title": "What else is in the folder", "question": ""}


def _introduction(path: Path | None, stem: str) -> dict:
    """Title and question of a notebook: its first cell's heading and first paragraph."""
    if path is None:
        return {"title": stem.replace("_", " "), "question": ""}
    first = nbformat.read(path, as_version=4).cells[0].source
    title, _, text = first.strip().partition("\n")
    question = Markup(_markdown(text.strip().split("\n\n")[0]))
    return {"title": re.sub(r"^#\s*(\d+ )?", "", title), "question": question}


def _as_written(folder: Path, name: str) -> pd.DataFrame:
    """A table as it is written, every cell a str."""
    return pd.read_csv(folder / "tables" / f"{name}.csv", dtype=str, keep_default_na=False)


def _grid(table: pd.DataFrame) -> dict:
    """A table for the template: {head, groups: [{title, rows}]}."""
    return {"head": list(table), "groups": [{"title": "", "rows": table.to_numpy().tolist()}]}


def _wide(table: pd.DataFrame, reasons: Mapping[str, str] | None) -> dict:
    """A long table (`tables.COLUMNS`) as it is read, its **best** in bold, all else escaped."""
    view = tables.wide(table, reasons).fillna("").reset_index(names="")
    grid, bold = _grid(view), re.compile(r"\*\*(.+?)\*\*")
    for group in grid["groups"]:
        group["rows"] = [
            [Markup(bold.sub(r"<strong>\1</strong>", str(escape(cell)))) for cell in row]
            for row in group["rows"]
        ]
    return grid


def _table(folder: Path, name: str, caption: str, reasons: Mapping[str, str] | None = None) -> dict:
    """One table for the template; the ledger and the audit are counted and grouped."""
    raw, counted = _as_written(folder, name), None
    numbered = re.fullmatch(r"table_\d\d", name) is not None
    if numbered:
        grid = _wide(pd.read_csv(folder / "tables" / f"{name}.csv"), reasons)
    elif name == "claims":
        grid = _ledger(pd.read_csv(folder / "tables" / f"{name}.csv"))
        counted = _counted(raw, "section", "verdict", list(claims.VERDICTS), "family")
    elif name == "audit":
        grid = _grid(raw.drop(columns="evidence"))
        counted = _counted(raw, "rule", "table", sorted(raw["table"].unique(), key=int))
    else:
        grid = _grid(raw)
    count = sum(len(group["rows"]) for group in grid["groups"])
    return {
        **{"id": f"table-{_slug(name)}", "file": f"tables/{name}.csv", "caption": caption},
        **{"counted": counted, "count": count, "folded": count > FOLDED, "note": numbered, **grid},
    }


def _ledger(table: pd.DataFrame) -> dict:
    """The ledger, a group for each sentence of the original."""
    view = claims.readable(table)
    groups = [
        {
            "title": f"Section {section}: “{quote}”",
            "rows": rows.drop(columns=["section", "quote"]).to_numpy().tolist(),
        }
        for (section, quote), rows in view.groupby(["section", "quote"], sort=False)
    ]
    return {"head": list(view)[2:], "groups": groups}


def _counted(
    table: pd.DataFrame, rows: str, columns: str, order: list[str], groups: str | None = None
) -> dict:
    """How often each pair of values of two columns occurs, with totals, in each of the groups."""
    head, counted = ["", *order, "all"], []
    for title, part in table.groupby(groups, sort=False) if groups else [("", table)]:
        counts = pd.crosstab(part[rows], part[columns], margins=True, margins_name="all")
        counts = counts.reindex(index=[*part[rows].unique(), "all"], columns=head[1:])
        cells = counts.fillna(0).astype(int).astype(object).reset_index().to_numpy().tolist()
        counted.append({"title": title, "rows": cells})
    words = [f"Table {name}" if name.isdigit() else name for name in head[1:]]
    return {"head": [rows, *words], "groups": counted}


def _found(folder: Path) -> dict | None:
    """The seven changes in a table, and the counts of all verdicts in a sentence."""
    path = folder / "tables" / "claims.csv"
    if not path.exists():
        return None
    ledger = pd.read_csv(path)
    said = {"summary": findings.summary(ledger), "tolerances": findings.tolerances(ledger)}
    return _grid(findings.changes(ledger)) | said


def _headline(folder: Path, records: Mapping[str, dict]) -> dict | None:
    """R@1 of the baseline and of each change to it, as far as their tables are there."""
    rows: list[pd.DataFrame] = []
    reasons: dict[str, str] = {}
    for record in records.values():
        for entry in record["tables"]:
            reasons |= entry["reasons"]
    for words, number, condition in HEADLINES:
        path = folder / "tables" / f"table_{number:02d}.csv"
        if path.exists():
            table = pd.read_csv(path)
            chosen = table[(table["condition"] == condition) & (table["metric"] == "R@1")]
            rows.append(chosen.assign(condition=words))
    return _wide(pd.concat(rows), reasons) if rows else None


def _best(folder: Path) -> list[dict]:
    """The best R@1 of each data set, ours and published."""
    if not (folder / "tables" / "best_results.csv").exists():
        return []
    rows: list[dict] = _as_written(folder, "best_results").to_dict("records")
    return [row for row in rows if row["metric"] == "R@1" and row.get("ours")]


def _machines(folder: Path) -> dict:
    """What was measured on another machine, for the template."""
    found = comparison(folder)
    said, table = ("", None) if found is None else (str(found), _grid(found.tables))
    return {"compared": said, "machines": table}


def _run_tables(run: dict) -> dict:
    """What run.json records, for the template.

    `settings` is [(title, table)] with a row for each value, `steps` the ten longest steps,
    `notebooks` the seconds of each notebook.
    """
    plain = {name: value for name, value in run.items() if not isinstance(value, dict)}
    parts = {name: value for name, value in run.items() if isinstance(value, dict)}
    steps = list(parts.pop("steps", {}).values())
    notebooks = parts.pop("notebooks", {})
    settings = [
        (title.replace("_", " "), _grid(_flat(values)))
        for title, values in {"settings": plain, **parts}.items()
        if values
    ]
    longest = sorted(steps, key=lambda step: -step.get("seconds", 0))[:10]
    rows = [[step.get("label", step.get("kind", "")), step.get("seconds", 0)] for step in longest]
    seconds = sum(step.get("seconds", 0) for step in steps)
    spent = pd.DataFrame(notebooks).T.fillna(0).round(1).reset_index(names="notebook")
    return {
        "settings": settings,
        "steps": _grid(pd.DataFrame(rows, columns=["step", "seconds"])),
        "work": {"count": len(steps), "minutes": round(seconds / 60)},
        "notebooks": _grid(spent) if notebooks else None,
    }


def _flat(values: dict) -> pd.DataFrame:
    """A nested dict as a table, a row for each value, the names of its levels in one column."""
    rows = []
    for name, value in values.items():
        inner = value if isinstance(value, dict) else {None: value}
        rows += [[name if part is None else f"{name}, {part}", inner[part]] for part in inner]
    return pd.DataFrame(rows, columns=["what", "value"]).astype(object)


def _figure(folder: Path, name: str, caption: str, alt: str) -> dict:
    """One figure for the template, in the smallest form without loss; sides in CSS pixels."""
    png, svg = (folder / "figures" / f"{name}.{suffix}" for suffix in ("png", "svg"))
    forms = {"svg+xml": svg.read_bytes()} if svg.exists() else {}
    with Image.open(png) as image:
        dpi = image.info.get("dpi", (96, 96))[0]
        width, height = (round(side * 96 / dpi) for side in image.size)
        webp = io.BytesIO()
        image.convert("RGB").save(webp, "WEBP", lossless=True, quality=100)
        forms |= {"png": png.read_bytes(), "webp": webp.getvalue()}
    kind, data = min(forms.items(), key=lambda form: len(form[1]))
    encoded = base64.b64encode(data).decode()
    return {
        **{"id": f"figure-{_slug(name)}", "file": f"figures/{name}.png", "caption": caption},
        **{"alt": f"{caption}. {alt}", "src": f"data:image/{kind};base64,{encoded}"},
        **{"width": width, "height": height},
    }


def _slug(name: str) -> str:
    return re.sub(r"[^\w-]", "-", name)
