"""What the documents and the records of archives say of a released run, written by one command.

    python -P -m vgeo.report.documents

The command writes the parts of README.md and docs/ that stand between markers such as
`<!-- findings -->` and `<!-- /findings -->`, and the whole of `.zenodo.json` and `codecheck.yml`.
"""

import json
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from vgeo.errors import VgeoError
from vgeo.files import write
from vgeo.report import original
from vgeo.report.claims import ALPHA, VERDICTS
from vgeo.report.findings import findings_table, limits
from vgeo.report.machines import KINDS, comparison
from vgeo.report.section import SEEDS_IN, read_sections
from vgeo.report.tables import markdown
from vgeo.study.folders import clone

RELEASED = "results/city"
REAL = "benchmarks/results/real_signs.csv"  # what benchmarks/real.py writes
# what benchmarks/city.py writes
POSES, BRIGHTNESS = (f"benchmarks/results/city_{name}.csv" for name in ("poses", "brightness"))
YARDSTICK = "benchmarks/results/yardstick.csv"  # what benchmarks/yardstick.py writes
MECHANISMS = "benchmarks/results/mechanisms.csv"  # what benchmarks/mechanisms.py writes
STEPS = {  # kinds of the cache's folders, in the words of a page
    "data": "rendering",
    "pooled": "pooled features, for whitened heads and class means",
    "views": "augmented views",
    "models": "training, with validation",
    "mined": "pairs for GeoWarp's training",
    "trunks": "frozen layers of photos",
    "descriptors": "trained layers of photos",
    "pairs": "comparing pairs for GeoWarp",
    "points": "XFeat's points",
}
FIRST = "the first seed"
PASSES = "bare ResNet18, images a second"  # a column of YARDSTICK
BASELINES = {"ResNet18": "CosFace", "EfficientNet-Lite0": "EffLite0: CosFace"}  # rows of Table 1

TOLD = "day and night told apart, %"  # a column of MECHANISMS
NOT_MEASURED = "Not measured yet."

Block = Callable[[Path], str]


def documents(root: str | os.PathLike) -> dict[Path, str]:
    """{file: content that it should have} of everything that is generated from a released run.

    Parameters
    ----------
    root : of a clone with RELEASED in it.

    Raises
    ------
    VgeoError
        When the released run has no ledger, or a document lacks a marker.
    """
    root = Path(root)
    if not (root / RELEASED / "tables" / "claims.csv").exists():
        raise VgeoError(f"{root / RELEASED}: has no ledger: run the study and release it first")
    contents = {}
    for name, blocks in BLOCKS.items():
        text = (root / name).read_text(encoding="utf-8")
        for word, block in blocks.items():
            text = _between(root / name, text, word, block(root))
        contents[root / name] = text
    return contents | {root / name: record(root) for name, record in RECORDS.items()}


def update(root: str | os.PathLike | None = None) -> None:
    """Writes `documents` of a clone, by default of this one."""
    for path, text in documents(root or clone()).items():
        write(path, text)


def _between(path: Path, text: str, word: str, block: str) -> str:
    begin, end = f"<!-- {word} -->", f"<!-- /{word} -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise VgeoError(f"{path}: write the lines {begin} and {end} where that part belongs")
    before, rest = text.split(begin)
    return f"{before}{begin}\n{block}\n{end}{rest.split(end)[1]}"


# ---- parts of pages ----


def _findings(root: Path) -> str:
    folder = root / RELEASED
    return findings_table(folder / "tables" / "claims.csv", limits(folder))


def _expected(root: Path) -> str:
    """The README's results table: command, expected values of the first seed, minutes on both
    kinds of machine.
    """
    table = pd.read_csv(root / RELEASED / "tables" / "table_01.csv")
    best = table[table["metric"] == "R@1"]
    of_rows = {name: best[best["condition"] == row] for name, row in BASELINES.items()}
    values = [
        f"{name} {', '.join(rows['value'].map('{:.1f}'.format))}" for name, rows in of_rows.items()
    ]
    expected = f"R@1 on {', '.join(best['dataset'].unique())}: {'; '.join(values)}"
    rows = {1: {"command": "`./run_all.sh`", "expected value": expected}}
    if (seeds := len(_run(root)["seeds"])) > 1:
        command = f"`./run_all.sh city --seeds {seeds}`"
        rows[seeds] = {"command": command, "expected value": "the same"}
    for count, row in rows.items():
        minutes = _minutes_of_kinds(root, count)
        for kind, words in KINDS.items():
            row[f"2 cores {words}"] = f"{minutes[kind]:.0f} min" if kind in minutes else ""
    return markdown(pd.DataFrame(rows.values()))


def _minutes_of_kinds(root: Path, seeds: int) -> dict[str, float]:
    """{precision of a machine: minutes of its run of one seed, or of all the released seeds}."""
    run, other = _run(root), comparison(root / RELEASED)
    own = _minutes(run)[[FIRST]] if seeds == 1 else _minutes(run)
    others = {} if other is None else other.minutes(seeds)
    return others | {run["machine"]["precision"]: float(own.to_numpy().sum())}


def _machines(root: Path) -> str:
    """The largest difference of each table between two machines."""
    found = comparison(root / RELEASED)
    if found is None:
        return "The two kinds of machine have not been compared for this release."
    return f"{found}\n\n{markdown(found.tables)}"


def _real(root: Path) -> str:
    """How many of the released verdicts have the same sign on photographs, by family."""
    table, keys = _read(root, REAL), ["claim", "family", "metric"]
    absent = "This has not been run for this release."
    if table is None:
        return absent
    ledger = pd.read_csv(root / RELEASED / "tables" / "claims.csv").query("dataset == 'sf-xs'")
    both = table.merge(ledger, on=keys)
    if len(both) < len(table) or not np.allclose(both["effect city"], both["effect"]):
        return absent
    clear = table[(table["p city"] < ALPHA) & table["verdict city"].isin(VERDICTS[:2])]
    clear = clear.assign(opposite=~clear["same sign"] & (clear["p real"] < ALPHA))
    counts = clear.groupby(["family", "verdict city"], sort=False).agg(
        verdicts=("claim", "size"), same=("same sign", "sum"), opposite=("opposite", "sum")
    )
    names = {"verdict city": "on rendered streets", "same": "same sign on photographs"}
    names["opposite"] = f"other sign there, p < {ALPHA}"
    return markdown(counts.reset_index().rename(columns=names))


def _times(root: Path) -> str:
    """Minutes of the released run by kind of step, the repetitions for further seeds apart."""
    run = _run(root)
    table = _minutes(run)
    table.loc["whole run"] = table.sum()
    minutes = table.round(1).rename_axis("minutes").reset_index()
    machine = run["machine"]
    kind = f"{machine['cores']} cores, {machine['processor']}, {KINDS[machine['precision']]}"
    return f"{kind}; commit {str(run.get('commit'))[:12]}.\n\n{markdown(minutes)}"


def _minutes(run: dict) -> pd.DataFrame:
    """Minutes of a run by kind of step, a column for FIRST and one for further seeds."""
    more = f"{len(run['seeds']) - 1} further seeds" if len(run["seeds"]) > 1 else FIRST
    rows: dict[str, dict[str, float]] = {}
    for name, times in run["notebooks"].items():
        column, other = more if name == SEEDS_IN else FIRST, times["seconds"]
        for kind, seconds in times.items():
            if kind != "seconds":
                words = STEPS.get(kind, "all else")
                row = rows.setdefault(words, {})
                row[column], other = row.get(column, 0.0) + seconds, other - seconds
        row = rows.setdefault("all else", {})
        row[column] = row.get(column, 0.0) + other
    table = pd.DataFrame.from_dict(rows, orient="index") / 60
    return table.reindex([*STEPS.values(), "all else"]).dropna(how="all").fillna(0)


def _kinds(root: Path) -> str:
    """What each kind of machine does, and the run's time in bare forward passes, which travels."""
    table, minutes = _read(root, YARDSTICK), _minutes_of_kinds(root, seeds=1)
    if table is None:
        return NOT_MEASURED
    columns = {}
    table = table[table["processor"] == _run(root)["machine"]["processor"]]
    for row in table.to_dict("records"):
        kind, cells = row.pop("precision"), {}
        cells[PASSES] = f"{row[PASSES]:.0f}"
        if kind in minutes:
            cells["`./run_all.sh`, minutes"] = f"{minutes[kind]:.0f}"
            passes = 60 * minutes[kind] * row[PASSES]
            cells["the same in bare ResNet18 images, thousands"] = f"{passes / 1000:,.0f}"
        measured = [name for name in row if name not in ("processor", "cores", PASSES)]
        cells |= {f"`vgeo locate`, {name}": f"{row[name]:.2g}" for name in measured}
        columns[f"{row['cores']} cores {KINDS[kind]}"] = cells
    return markdown(pd.DataFrame(columns).fillna("").rename_axis("").reset_index())


def _sets(root: Path) -> str:
    """The data card's counts: a row for each set of photos of the released run."""
    tables = root / RELEASED / "tables"
    counts = pd.read_csv(tables / "data_sets.csv")
    lists = _run(root)["data"]
    counts["file list"] = [lists[name].rsplit(" ", 1)[-1] for name in counts["dataset"]]
    brightness = pd.read_csv(tables / "night_brightness.csv")
    return "\n\n".join([markdown(counts), f"Training: {lists['train']}.", markdown(brightness)])


def _poses(root: Path) -> str:
    return _table(root, POSES)


def _brightness(root: Path) -> str:
    return _table(root, BRIGHTNESS)


def _mechanism(question: str) -> Block:
    """A block: R@1 of a question's variants, and in brackets `_points` to the one compared with."""

    def block(root: Path) -> str:
        table = _read(root, MECHANISMS)
        if table is None or question not in set(table["question"]):
            return NOT_MEASURED
        rows = table[table["question"] == question].copy()
        known = rows["p"].notna()  # the variant that the others are compared with has no p
        rows["cell"] = rows["value"].map("{:.1f}".format)
        rows.loc[known, "cell"] += " (" + _points(rows[known]) + ")"
        cells = rows.pivot(index="condition", columns="dataset", values="cell")
        order = {name: rows[name].drop_duplicates() for name in ("condition", "dataset")}
        cells = cells.reindex(index=order["condition"], columns=order["dataset"])
        if rows[TOLD].notna().any():
            cells[TOLD] = rows.groupby("condition")[TOLD].first().map("{:.0f}".format)
        return markdown(cells.fillna("").reset_index())

    return block


def _points(tests: pd.DataFrame) -> pd.Series:
    """Differences in points, with * where p < ALPHA."""
    return tests["difference"].map("{:+.1f}".format) + np.where(tests["p"] < ALPHA, "*", "")


def _filter(root: Path) -> str:
    """What each brightness factor adds to R@1 on tokyo-night, in points."""
    tests = pd.read_csv(root / RELEASED / "tables" / "paired_brightness.csv")
    tests = tests[tests["metric"] == "R@1"]
    parts = tests["condition"].str.extract(r"^(?P<row>.+) brightness=(?P<factor>.+)$")
    parts["cell"] = _points(tests)
    cells = parts.pivot(index="factor", columns="row", values="cell")
    cells = cells.sort_index(key=lambda index: -index.astype(float))
    return markdown(cells[parts["row"].drop_duplicates()].reset_index())


# {file: {word of its markers: what stands between them}}
BLOCKS: dict[str, Mapping[str, Block]] = {
    "README.md": {"results": _expected, "findings": _findings},
    "docs/results.md": {
        "machines": _machines,
        "real": _real,
        **{question: _mechanism(question) for question in ("reversal", "soups", "scales")},
        "filter": _filter,
    },
    "docs/performance.md": {"times": _times, "kinds": _kinds},
    "docs/city.md": {"sets": _sets, "poses": _poses, "brightness": _brightness},
}


# ---- records for archives ----


def _zenodo(root: Path) -> str:
    """`.zenodo.json`: what Zenodo stores of a release of the repository."""
    project = _project(root)
    reference = {"identifier": original.URL, "relation": "references", "resource_type": "software"}
    content = {
        "title": _title(root),
        "description": f"{project['description']}. A reproduction of {_original()}.",
        "creators": [{"name": author["name"]} for author in project["authors"]],
        "version": project["version"],
        "license": project["license"].lower(),
        "upload_type": "software",
        "access_right": "open",
        "language": "eng",
        "keywords": project["keywords"],
        "related_identifiers": [reference],
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _codecheck(root: Path) -> str:
    """`codecheck.yml`: the tables and figures that a CODECHECK would make again.

    The paper is the original. The entries about the check itself are left to the one who does it.
    """
    sections = read_sections(root / RELEASED).values()
    entries = [each for kind in ("tables", "figures") for s in sections for each in s[kind]]
    numbered = [each for each in entries if re.fullmatch(r"(table|figure)_\d\d", each["name"])]
    files = {  # of a table the CSV, of a figure the PNG; a table's chart has the table's name
        next(name for name in each["files"] if name.endswith((".csv", ".png"))): each["caption"]
        for each in sorted(numbered, key=lambda each: each["files"][0])
    }
    lines = ["---", "version: https://codecheck.org.uk/spec/config/1.0/", "paper:"]
    lines += [f"  title: {json.dumps(original.TITLE)}", "  authors:"]
    lines += [f"    - name: {json.dumps(name)}" for name in original.AUTHORS.split(" and ")]
    lines += [f"  reference: {original.URL}", "manifest:"]
    for name, caption in files.items():
        lines += [f"  - file: {RELEASED}/{name}", f"    comment: {json.dumps(caption)}"]
    return "\n".join(lines) + "\n"


RECORDS: dict[str, Block] = {".zenodo.json": _zenodo, "codecheck.yml": _codecheck}


def _project(root: Path) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def _title(root: Path) -> str:
    """The title in CITATION.cff, which stands on a line of its own."""
    text = (root / "CITATION.cff").read_text(encoding="utf-8")
    found = re.search(r'^title: "(.+)"$', text, re.MULTILINE)
    if found is None:
        raise VgeoError(f'{root / "CITATION.cff"}: has no line title: "...": add it')
    return found[1]


def _original() -> str:
    return f"{original.AUTHORS}, “{original.TITLE}”, {original.INSTITUTION}"


def _run(root: Path) -> dict:
    return json.loads((root / RELEASED / "run.json").read_text(encoding="utf-8"))


def _table(root: Path, name: str) -> str:
    table = _read(root, name)
    return NOT_MEASURED if table is None else markdown(table.round(1))


def _read(root: Path, name: str) -> pd.DataFrame | None:
    return pd.read_csv(root / name) if (root / name).exists() else None


if __name__ == "__main__":
    update()
