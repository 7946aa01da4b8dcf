"""What a notebook hands to the report: its tables, figures, files and conclusions.

Each is written into the results folder and shown in the notebook by the same call, and named in
`sections/<notebook>.json`, from which the page and the runner learn what there is. The provenance
of each (`provenance.Provenance`) is stored there too, in the metadata of a PNG and an SVG, and
beside a CSV in `<name>.csv-metadata.json`, the place that the W3C's "CSV on the Web" gives it.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Image, Markdown, display
from matplotlib.figure import Figure
from PIL import Image as Pixels
from PIL.PngImagePlugin import PngInfo

from vgeo.files import replacing, write
from vgeo.report import tables
from vgeo.report.provenance import Provenance, commit_of, recipes_since
from vgeo.study.folders import cache_of, clone

SEEDS_IN = "08_conclusions"  # the notebook that repeats the study for all seeds but the first
DPI, PHOTO_DPI = 150, 90  # dots an inch: for print; photos of a few hundred pixels show no more


@dataclass(frozen=True)
class Drawing:
    """A figure with its words.

    Parameters
    ----------
    name : of its files.
    caption : what it is, a phrase.
    alt : what can be seen on it, a sentence for those who can't see it.
    photos : whether it mostly shows photos; it is then stored as pixels alone.
    """

    name: str
    figure: Figure
    caption: str
    alt: str
    photos: bool = False


class Section:
    """The part of the report that one notebook writes.

    Parameters
    ----------
    results : folder of the run's results.
    stem : the notebook's name without ".ipynb"; what an earlier run recorded under it is forgotten.
    """

    def __init__(self, results: str | os.PathLike, stem: str):
        self.results = Path(results)
        self.path = self.results / "sections" / f"{stem}.json"
        self.record: dict = {"tables": [], "figures": [], "says": "", "other": []}
        self.origin = Provenance(f"notebooks/{stem}.ipynb", **commit_of(clone()))
        self._journal = cache_of() / "journals" / f"{self.results.name}.jsonl"
        self._offset = self._journal.stat().st_size if self._journal.exists() else 0
        self._save()

    def provenance(self) -> Provenance:
        """What a table or figure that is written now comes from."""
        return replace(self.origin, recipes=recipes_since(self._journal, self._offset))

    def table(
        self,
        name: int | str,
        table: pd.DataFrame,
        caption: str | None = None,
        reasons: Mapping[str, str] | None = None,
        shown: pd.DataFrame | None = None,
    ) -> None:
        """Writes a table as `tables/<name>.csv` and shows it.

        Parameters
        ----------
        name : a number for one of the original's tables in long form (`tables.COLUMNS`), which is
            also written as read, `.md` and `.tex`; else the file's name.
        caption : what the table is; of a numbered one the original's title.
        reasons : {data set: why it is absent}, shown in the cells of a numbered table.
        shown : what the notebook shows in its place, for a table that is hard to read as stored.
        """
        if isinstance(name, int):
            file, caption = f"table_{name:02d}", caption or tables.title(name)
            table = table.round({"value": 2, "ci_low": 2, "ci_high": 2})
            view = tables.wide(table, reasons)
            body = f"{tables.markdown(view.reset_index(names=''))}\n\n{tables.NOTE}"
            texts = {"md": f"# {caption}\n\n{body}\n", "tex": tables.latex(view, caption)}
        else:
            file, caption, texts = name, caption or name.replace("_", " "), {}
            table = table if table.index.names == [None] else table.reset_index()
            body = tables.markdown(table if shown is None else shown)
        texts["csv"] = table.to_csv(index=False)
        texts["csv-metadata.json"] = _csv_metadata(f"{file}.csv", caption, self.provenance())
        for suffix, text in texts.items():
            write(self.results / "tables" / f"{file}.{suffix}", text)
        entry = {"name": file, "caption": caption, "reasons": dict(reasons or {})}
        self._add("tables", entry | {"files": [f"tables/{file}.{suffix}" for suffix in texts]})
        display(Markdown(f"**{caption}**\n\n{body}"))

    def figure(self, drawing: Drawing | None) -> None:
        """Writes a figure as `figures/<name>.png`, and `.svg` unless of photos, and shows it.

        Nothing happens for None, which is drawn where the data are absent.
        """
        if drawing is None:
            return
        folder = self.results / "figures"
        dpi, source = PHOTO_DPI if drawing.photos else DPI, str(self.provenance())
        with plt.rc_context({"svg.hashsalt": "vgeo"}):  # the same figure gives the same file
            files = [_save_png(drawing.figure, folder / f"{drawing.name}.png", dpi, source)]
            if not drawing.photos:
                files.append(_save_svg(drawing.figure, folder / f"{drawing.name}.svg", source))
        plt.close(drawing.figure)
        entry = {"name": drawing.name, "caption": drawing.caption, "alt": drawing.alt}
        self._add("figures", entry | {"files": [f"figures/{file.name}" for file in files]})
        with Pixels.open(files[0]) as picture:
            width = round(picture.width * 96 / dpi)
        display(Image(files[0], width=width, alt=f"{drawing.caption}. {drawing.alt}"))

    def says(self, *lines: str) -> None:
        """Shows and records the notebook's conclusions, Markdown, each line a point of a list."""
        points = [line if line.startswith("- ") else f"- {line}" for line in lines if line]
        self.record["says"] = "\n".join(points)
        self._save()
        display(Markdown(self.record["says"]))

    def file(self, path: str | os.PathLike) -> Path:
        """Records another result that the notebook wrote; `path` is relative to the results folder.

        Returns
        -------
        The file's whole path.
        """
        self._add("other", {"name": Path(path).as_posix(), "files": [Path(path).as_posix()]})
        return self.results / path

    def _add(self, kind: str, entry: dict) -> None:
        """Records an entry; one with the same name, of a cell that ran twice, makes room for it."""
        others = [each for each in self.record[kind] if each["name"] != entry["name"]]
        entry["provenance"] = self.provenance().as_json()
        self.record[kind] = [*others, entry]
        self._save()

    def _save(self) -> None:
        write(self.path, json.dumps(self.record, indent=2, ensure_ascii=False) + "\n")


def read_sections(results: str | os.PathLike) -> dict[str, dict]:
    """The records of a results folder, {notebook: record}, by name."""
    paths = sorted(Path(results).glob("sections/*.json"))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def files_of(record: dict) -> list[str]:
    """The files that a section wrote, relative to the results folder."""
    entries = [entry for kind in ("tables", "figures", "other") for entry in record[kind]]
    return [file for entry in entries for file in entry["files"]]


def _csv_metadata(file: str, caption: str, source: Provenance) -> str:
    """A table's side-car. "@context" makes it metadata of "CSV on the Web" (W3C, 2015)."""
    words = {"@context": "http://www.w3.org/ns/csvw", "url": file, "dc:title": caption}
    notes = [{"provenance": source.as_json()}]
    content = words | {"dc:source": str(source), "notes": notes}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _save_png(figure: Figure, path: Path, dpi: int, source: str) -> Path:
    """A PNG with a palette of 256 colours: less than half the size, the same to the eye."""
    words = PngInfo()
    words.add_text("Source", source)
    with replacing(path) as temporary:
        metadata = {"Software": None}
        figure.savefig(temporary, format="png", dpi=dpi, bbox_inches="tight", metadata=metadata)
        with Pixels.open(temporary) as picture:
            palette = picture.convert("RGB").quantize(256)
        palette.save(temporary, format="PNG", optimize=True, dpi=(dpi, dpi), pnginfo=words)
    return path


def _save_svg(figure: Figure, path: Path, source: str) -> Path:
    with replacing(path) as temporary:
        metadata = {"Date": None, "Creator": None, "Source": source}
        figure.savefig(temporary, format="svg", bbox_inches="tight", metadata=metadata)
    return path
