"""The report as one page that needs nothing beside it: what lies in a results folder, every figure with its words."""

import base64
import json
import re
from fnmatch import fnmatchcase
from pathlib import Path

import mistune
import nbformat
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from vgeo.errors import VgeoError
from vgeo.report.claims import VERDICTS
from vgeo.report.tables import NOTE, TITLES, in_words, wide

# The rows that answer "did it help?": our words, table, condition. The first is what the others change.
HEADLINES = {
    "CosPlace (ResNet18, CosFace): the baseline": (1, "CosFace"),
    "ArcFace": (1, "ArcFace"),
    "SphereFace": (1, "SphereFace"),
    "gradient reversal (GRL)": (2, "GRL"),
    "darker database (factor 0.15)": (3, "baseline brightness=0.15"),
    "GeoWarp's re-ranking": (4, "baseline + GeoWarp"),
    "EfficientNetV2-S": (5, "EffV2s"),
    "greedy soup of the three losses": (6, "Model Soup"),
    "EfficientNetV2-S, GeoWarp and GRL merged (SIF)": (7, "GeoWarp + GRL (SIF)"),
    "GRL at five scales, averaged": (8, "avg"),
}


def _of_the_report(*numbers):
    return {f"table_{number:02d}": f"Table {number}. {TITLES[number]}" for number in numbers}


_PAIRED = "Exact paired tests (McNemar) on the same queries"


# notebook -> its tables: {file: caption}
TABLES = {
    "00_data": {"data_sets": "The data sets: photos, and database photos within 25 m of a query"},
    "01_losses": _of_the_report(1)
    | {
        "paired_losses": _PAIRED,
        "recalls_losses": "All recalls, beside those of the starting weights",
    },
    "02_grl": _of_the_report(2) | {"paired_grl": _PAIRED},
    "03_brightness": _of_the_report(3)
    | {"night_brightness": "How bright the photos are, 0 to 255", "paired_brightness": _PAIRED},
    "04_geowarp": _of_the_report(4)
    | {
        "geowarp_corner_error": "Corner error of the regression on validation photos, in half image sides",
        "geowarp_losses": "What each of GeoWarp's losses adds",
        "geowarp_unwarped": "Re-ranking by local features, warped and not",
        "paired_geowarp": _PAIRED,
    },
    "05_backbones": _of_the_report(5)
    | {"backbone_costs": "What a backbone costs", "paired_backbones": _PAIRED},
    "06_soups_ensembles": _of_the_report(6, 7)
    | {
        "soup_paths": "Recall on the lines between two ingredients",
        "paired_soups": f"{_PAIRED}: soups",
        "paired_ensembles": f"{_PAIRED}: merged predictions",
    },
    "07_multiscale": _of_the_report(*range(8, 14))
    | {
        "single_scales": "What each scale finds alone",
        "paired_multiscale": f"{_PAIRED}, against one scale",
    },
    "08_conclusions": {
        "best_results": "The best row of each data set, published and ours",
        "claims": "The ledger of claims",
        "audit": "The audit of the published record",
    },
    "09_localize": {"locate_calibration": "Confidences: what is promised, and what is kept"},
}


_DOTS = "with bars for their 95 % intervals, a panel for each data set; open diamonds are the published values. The numbers are in the table of this name."


_CURVES = "Two line charts against the iteration: left the training loss, right the R@1 on validation photos with its 95 % interval, starting from the untrained network; "


# notebook -> its figures: {file, or a pattern of files: (caption, with {} for what the pattern stood for; what can be seen, for those who can't)}
FIGURES = {
    "00_data": {
        "data_samples": (
            "Photos of each data set",
            "Grid of photos, a row for each part of each data set: street scenes by car in daylight for training and databases, "
            "by phone from the sidewalk for the queries, of which the tokyo-night row was taken in the dark.",
        ),
        "data_map_*": (
            "{}: where the photos were taken",
            "Map in metres east and north with a scale bar and a north arrow: dots for database photos, crosses for queries, both along the streets.",
        ),
        "data_positives": (
            "How many right answers a query has",
            "Histograms, one for each data set: how many queries have how many database photos within 25 m.",
        ),
    },
    "01_losses": {
        "loss_margins": (
            "What each margin makes of an angle",
            "Line chart: the score of the true class against its angle from 0 to 180 degrees, without a margin and with CosFace's, "
            "SphereFace's and ArcFace's; each of the three lies below the line without a margin.",
        ),
        "loss_training": (
            "Training with three margins",
            _CURVES + "a line for each of CosFace, SphereFace and ArcFace.",
        ),
        "table_01": ("Table 1 as a chart", f"Dot chart: R@1 and R@5 of the three losses {_DOTS}"),
        "gallery_*": (
            "{}: right and wrong retrievals of CosFace",
            "Photo grid: in each of four rows a query and its first five predictions, each labelled with its squared distance and the word right "
            "(solid blue frame) or wrong (dashed orange frame). Of the first two queries the first prediction is right, of the last two it is wrong.",
        ),
    },
    "02_grl": {
        "figure_01": (
            "Figure 1. The pipeline of gradient reversal",
            "Diagram: training images and night photos pass the frozen trunk and the trained stages; from there one branch "
            "leads through pooling and a linear layer to the CosFace loss, the other through gradient reversal to the discriminator of day and night, whose gradient returns reversed.",
        ),
        "grl_training": (
            "Training with and without gradient reversal",
            _CURVES + "a line for CosFace and one for GRL.",
        ),
        "grl_discriminator": (
            "The discriminator during training",
            "Line chart: the share of photos whose domain, day or night, the discriminator tells right, against the iteration; a dashed line marks chance, 50 %.",
        ),
        "grl_descriptors": (
            "Day and night in descriptor space",
            "Two scatter plots, without and with gradient reversal: descriptors of queries on their two directions of most variance, "
            "dots for day and sunset, triangles for night. Each title says how often a line tells the two apart.",
        ),
        "table_02": (
            "Table 2 as a chart",
            f"Dot chart: R@1 and R@5 of the baseline and of GRL {_DOTS}",
        ),
    },
    "03_brightness": {
        "figure_02": (
            "Figure 2. What a brightness factor does to a photo",
            "Two photos, each six times: as it is, and ever darker with factors from 0.4 down to 0.1.",
        ),
        "brightness_curve": (
            "Table 3 as a chart",
            "Two line charts, R@1 and R@5 on tokyo-night against the brightness factor of the database, for the baseline and GRL, with 95 % intervals; "
            "open diamonds are the published values. The numbers are in Table 3.",
        ),
    },
    "04_geowarp": {
        "figure_03": (
            "Figure 3. Estimated quadrilaterals and warped photos",
            "Three rows of four photos: a query and its prediction, each with the estimated quadrilateral drawn on it, then both warped to those, "
            "so that they show the same part of the same facade.",
        ),
        "geowarp_training": (
            "GeoWarp's three losses during training",
            "Three line charts against the iteration: self-supervised, feature-wise and consistency loss.",
        ),
        "table_04": (
            "Table 4 as a chart",
            f"Dot chart: R@1 and R@5 of the baseline and of GeoWarp before and after re-ranking {_DOTS}",
        ),
    },
    "05_backbones": {
        "backbone_training": (
            "Training of the two backbones",
            _CURVES
            + "a line for ResNet18 and EfficientNetV2-S, each with and without gradient reversal.",
        ),
        "table_05": (
            "Table 5 as a chart",
            f"Dot chart: R@1 and R@5 of ResNet18 and EfficientNetV2-S, plain, with GeoWarp and with GRL {_DOTS}",
        ),
    },
    "06_soups_ensembles": {
        "figure_04": (
            "Figure 4. Soups, and the lines between their ingredients",
            "Scatter plot: mean R@1 of the Tokyo-like sets against R@1 on sf-xs, for CosFace, ArcFace, SphereFace and both soups with "
            "95 % intervals, and for the mixtures on the lines between two ingredients.",
        ),
        "table_06": (
            "Table 6 as a chart",
            f"Dot chart: R@1 of the three ingredients, the greedy and the uniform soup {_DOTS}",
        ),
        "table_07": (
            "Table 7 as a chart",
            f"Dot chart: R@1 and R@5 of GeoWarp, GRL and their predictions merged by NIF, SIF and RRF {_DOTS}",
        ),
    },
    "07_multiscale": {
        "multiscale": (
            "Tables 8 to 13 as a chart",
            "Grid of dot charts, a row for each data set and a column for each of Tables 8 to 13: R@1 of one scale, avg, sum, max and min, with 95 % intervals; "
            "open diamonds are the published values. The numbers are in those tables.",
        )
    },
    "08_conclusions": {
        "claims": (
            "The claims of sections 1 to 7 and 9",
            "Dot chart, a row for each claim and a panel for each data set: our effect in R@1 and R@5 with its 95 % interval, marked as reproduced, "
            "contradicted or not decidable; open diamonds are the report's effects. The numbers are in the ledger.",
        ),
        "claims_multiscale": (
            "The claims of section 8, on multi-scale descriptors",
            "Dot chart as the one of the other claims, for those on multi-scale descriptors. The numbers are in the ledger.",
        ),
    },
    "09_localize": {
        "locate_gallery": (
            "The surest and the least sure answers",
            "Photo grid: in each of four rows a query and its first five matches, right ones in a solid blue frame, wrong ones in a dashed orange one, "
            "each labelled in words. The first two queries are those with the highest confidence, the last two those with the lowest.",
        ),
        "locate_calibration": (
            "Is a confidence kept?",
            "Two charts, of held-out photos and of queries: the share of answers within 25 m against the promised share, dots with 95 % intervals "
            "beside the dashed line on which every promise is kept.",
        ),
        "locate_map": (
            "Located queries on a map",
            "Map in metres east and north with a scale bar and a north arrow: the photos of the index in grey, each answer as a circle (within 25 m) or a square "
            "(farther away), with a line to where the photo was taken.",
        ),
    },
}


def write_page(folder):
    """Writes `report.html`, one page without a script or an outer resource, from what lies in a results folder; returns its path.

    folder: as `run.run_study` leaves it: `tables/*.csv`, `figures/*.png` and `.svg`, executed `notebooks/*.ipynb`, `run.json`. What is absent
    is said on the page. Raises VgeoError where there is no table.
    """
    folder = Path(folder)
    tables = {path.stem: path for path in sorted((folder / "tables").glob("*.csv"))}
    figures = {path.stem: path for path in sorted((folder / "figures").glob("*.png"))}
    notebooks = {
        path.stem: nbformat.read(path, as_version=4)
        for path in sorted((folder / "notebooks").glob("*.ipynb"))
    }
    if not tables:
        raise VgeoError(f"{folder}: has no tables/*.csv: run the study first")
    run = json.loads((folder / "run.json").read_text()) if (folder / "run.json").exists() else {}
    reasons = {name: line for name, line in run.get("data", {}).items() if line.startswith("no ")}

    sections, shown, absent = [], set(), []
    for stem in sorted({*TABLES, *FIGURES, *notebooks}):
        captions, pictures = TABLES.get(stem, {}), FIGURES.get(stem, {})
        absent += [f"tables/{name}.csv" for name in captions if name not in tables]
        found = [
            (name, caption.format(name.removeprefix(pattern.rstrip("*")).replace("_", " ")), alt)
            for pattern, (caption, alt) in pictures.items()
            for name in figures
            if fnmatchcase(name, pattern)
        ]
        absent += [
            f"figures/{pattern}.png"
            for pattern in pictures
            if not any(fnmatchcase(name, pattern) for name in figures)
        ]
        if stem not in notebooks:
            absent.append(f"notebooks/{stem}.ipynb")
        section = {
            "id": stem,
            **_words(stem, notebooks.get(stem)),
            "tables": [
                _table(name, tables[name], caption, reasons)
                for name, caption in captions.items()
                if name in tables
            ],
            "figures": [_figure(name, figures[name], caption, alt) for name, caption, alt in found],
        }
        shown |= {("table", name) for name in captions} | {("figure", name) for name, *_ in found}
        if section["tables"] or section["figures"] or section["says"]:
            sections.append(section)
    other = {
        "id": "other",
        "title": "What else is in the folder",
        "question": "",
        "says": "",
        "tables": [
            _table(name, path, name.replace("_", " "), reasons)
            for name, path in tables.items()
            if ("table", name) not in shown
        ],
        "figures": [
            _figure(name, path, name.replace("_", " "), f"Figure {name}, without a description.")
            for name, path in figures.items()
            if ("figure", name) not in shown
        ],
    }
    if other["tables"] or other["figures"]:
        sections.append(other)

    environment = Environment(
        loader=PackageLoader("vgeo.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    page = environment.get_template("report.html").render(
        run=run,
        headline=_headline(tables, reasons),
        best=_rows(tables.get("best_results")),
        verdicts=_verdicts(tables.get("claims")),
        note=NOTE,
        sections=sections,
        absent=absent,
        settings=_settings(run),
        steps=_steps(run.get("steps", {})),
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


class _Words(mistune.HTMLRenderer):
    """Markdown of a notebook as HTML that adds no heading to the page's, loads nothing, and passes no HTML through."""

    def heading(self, text, level, **attributes):
        return self.paragraph(text)

    def image(self, text, url, title=None):
        return text


_markdown = mistune.create_markdown(renderer=_Words(escape=True))


def _words(stem, notebook):
    """title, question and what it says (HTML) of an executed notebook: its first cell's heading and paragraph, and its last words."""
    if notebook is None:
        return {"title": stem.replace("_", " "), "question": "", "says": ""}
    cells = notebook.cells
    title, _, text = cells[0].source.strip().partition("\n")
    says = ""
    for cell, after in zip(cells, [*cells[1:], None]):
        if cell.cell_type == "markdown" and cell.source.startswith("**What it says.**"):
            says = cell.source.removeprefix("**What it says.**")
        elif (
            cell.cell_type == "markdown"
            and cell.source.startswith("## What it says")
            and after is not None
        ):
            says = "\n".join(
                output.data["text/markdown"]
                for output in after.get("outputs", [])
                if "text/markdown" in output.get("data", {})
            )
    return {
        "title": re.sub(r"^#\s*(\d+ )?", "", title),
        "question": Markup(_markdown(text.strip().split("\n\n")[0])),
        "says": Markup(_markdown(says.strip())),
    }


def _bold(text):
    """Our tables' **best** as HTML, all else escaped."""
    return Markup(re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", str(escape(text))))


def _view(table, reasons):
    """A long table of the report as {head, groups}: as it is read."""
    view = wide(table, reasons).fillna("")
    return {
        "head": ["", *view.columns],
        "groups": [
            {
                "title": "",
                "rows": [
                    [_bold(cell) for cell in (name, *row)]
                    for name, row in zip(view.index, view.to_numpy())
                ],
            }
        ],
    }


def _table(name, path, caption, reasons):
    """One table for the template: {id, file, caption, head, groups: [{title, rows}], summary, count, folded, note}; the long ones fold."""
    if re.fullmatch(r"table_\d\d", name):
        data, summary = _view(pd.read_csv(path), reasons), None
    elif name == "claims":
        data, summary = _ledger(_rows(path)), _counts(_rows(path), "section", "verdict", VERDICTS)
    elif name == "audit":
        rows = _rows(path)
        data, summary = (
            _plain(rows.drop(columns="evidence")),
            _counts(
                rows,
                "rule",
                "table",
                sorted(set(rows["table"]), key=lambda t: (len(t), t)),
                "Table ",
            ),
        )
    else:
        data, summary = _plain(_rows(path)), None
    rows = sum(len(group["rows"]) for group in data["groups"])
    return {
        "id": f"table-{_slug(name)}",
        "file": f"tables/{path.name}",
        "caption": caption,
        "summary": summary,
        "count": rows,
        "folded": rows > 30,
        "note": name.startswith("table_"),
        **data,
    }


def _rows(path):
    """A CSV as it is written, every cell a str; None without one."""
    return None if path is None else pd.read_csv(path, dtype=str, keep_default_na=False)


def _plain(table):
    return {
        "head": list(table.columns),
        "groups": [{"title": "", "rows": table.to_numpy().tolist()}],
    }


def _ledger(claims):
    """The ledger, a group for each sentence of the report."""

    def signed(value):
        return f"{float(value):+.1f}" if value else ""

    groups = []
    for (section, quote), part in claims.groupby(["section", "quote"], sort=False):
        rows = []
        for row in part.to_dict("records"):
            ratio = row["metric"] == "ratio of times"
            points = (lambda value: f"{float(value):.1f}" if value else "") if ratio else signed
            rows.append(
                [
                    row["claim"],
                    row["dataset"],
                    row["metric"],
                    points(row["effect"]),
                    f"{signed(row['ci_low'])} to {signed(row['ci_high'])}" if row["ci_low"] else "",
                    in_words(float(row["p"])).removeprefix("= ") if row["p"] else "",
                    f"{float(row['spread']):.1f}" if row["spread"] else "",
                    points(row["reported"]),
                    row["verdict"],
                    row["reason"],
                ]
            )
        groups.append({"title": f"Section {section}: “{quote}”", "rows": rows})
    return {
        "head": [
            "claim",
            "data set",
            "metric",
            "effect, points",
            "95 % interval",
            "p",
            "spread over seeds",
            "reported",
            "verdict",
            "why",
        ],
        "groups": groups,
    }


def _counts(table, rows, columns, order, prefix=""):
    """How often each pair of values occurs, with totals -> {head, rows}."""
    counts = pd.crosstab(table[rows], table[columns]).reindex(
        index=table[rows].unique(), columns=order, fill_value=0
    )
    counts.loc["all"] = counts.sum()
    counts["all"] = counts.sum(axis=1)
    return {
        "head": [rows, *(f"{prefix}{name}" for name in order), "all"],
        "rows": [[name, *map(int, row)] for name, row in zip(counts.index, counts.to_numpy())],
    }


def _verdicts(path):
    claims = _rows(path)
    return (
        None
        if claims is None
        else {verdict: int((claims["verdict"] == verdict).sum()) for verdict in VERDICTS}
    )


def _headline(tables, reasons):
    """R@1 of the baseline and of each change to it, as far as their tables are there; None without any."""
    parts = []
    for words, (number, condition) in HEADLINES.items():
        if (path := tables.get(f"table_{number:02d}")) is not None:
            table = pd.read_csv(path)
            parts.append(
                table[(table["condition"] == condition) & (table["metric"] == "R@1")].assign(
                    condition=words
                )
            )
    return _view(pd.concat(parts), reasons) if parts else None


def _settings(run):
    """run.json without its steps, as tables: [(title, [(what, value), ...])], the plain settings first."""
    found = {
        "settings": {name: value for name, value in run.items() if not isinstance(value, dict)},
        **{
            name: value
            for name, value in run.items()
            if isinstance(value, dict) and name != "steps"
        },
    }
    return [
        (
            title.replace("_", " "),
            [
                (name if part is None else f"{name}, {part}", each)
                for name, value in rows.items()
                for part, each in (value.items() if isinstance(value, dict) else [(None, value)])
            ],
        )
        for title, rows in found.items()
        if rows
    ]


def _steps(steps):
    """How many steps were made, their seconds in all, and the ten longest."""
    longest = sorted(steps.items(), key=lambda item: -item[1].get("seconds", 0))[:10]
    return {
        "count": len(steps),
        "seconds": sum(step.get("seconds", 0) for step in steps.values()),
        "longest": [(label, step.get("seconds", 0)) for label, step in longest],
    }


def _figure(name, path, caption, alt):
    """One figure for the template, the smaller of its files in the page itself: {id, file, caption, alt, src, width, height}; CSS pixels."""
    with Image.open(path) as image:
        width, height = (
            round(side * 96 / dots)
            for side, dots in zip(image.size, image.info.get("dpi", (96, 96)))
        )
    kinds = {path: "image/png", path.with_suffix(".svg"): "image/svg+xml"}
    smallest = min((file for file in kinds if file.exists()), key=lambda file: file.stat().st_size)
    data = base64.b64encode(smallest.read_bytes()).decode()
    return {
        "id": f"figure-{_slug(name)}",
        "file": f"figures/{path.name}",
        "caption": caption,
        "alt": f"{caption}. {alt}",
        "src": f"data:{kinds[smallest]};base64,{data}",
        "width": width,
        "height": height,
    }


def _slug(name):
    return re.sub(r"[^\w-]", "-", name)
