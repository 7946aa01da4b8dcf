"""The figures of the notebooks.

Each function returns a `Drawing`, or None where no data set that it would show is present. Tables
are those of `report.tables` and `report.measures`: recalls in percent, columns value, ci_low and
ci_high. Colours are Okabe and Ito's, which colour-blind people can tell apart; lines differ in
dashes and points in markers as well.
"""

import textwrap
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from matplotlib.text import OffsetFrom
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar
from sklearn.decomposition import PCA

from vgeo.models.discriminator import Discriminator
from vgeo.models.geowarp import warp
from vgeo.models.network import BACKBONES, build, normalise
from vgeo.photos.images import load_batches, load_image
from vgeo.photos.places import Dataset
from vgeo.photos.tables import Photos
from vgeo.report.measures import IN_DOMAIN, by_domain, quadrilaterals
from vgeo.report.section import Drawing
from vgeo.retrieval.describe import darken
from vgeo.retrieval.metrics import interval
from vgeo.study.rows import FAMILIES, conditions_of, counterpart
from vgeo.training.losses import MARGINS, psi

RIGHT, WRONG = "#0072B2", "#D55E00"
COLOURS = (RIGHT, WRONG, "#009E73", "#CC79A7", "#333333")
DASHES, MARKERS = ("-", "--", "-.", ":", "-"), "os^DP"
STYLE = {
    **sns.axes_style("whitegrid"),
    "axes.prop_cycle": cycler(color=COLOURS) + cycler(linestyle=DASHES),
    "font.size": 11,
    "axes.titlesize": 12,
    "legend.fontsize": 11,
}
del STYLE["font.family"], STYLE["font.sans-serif"]  # matplotlib's own, which is on every machine

DOTS = (
    "with bars for their 95 % intervals, a panel for each data set; open diamonds are the "
    "published values. The numbers are in the table of this name."
)


def style():
    """The look of all figures, as a context or a decorator: the figures of others keep theirs."""
    return matplotlib.rc_context(STYLE)


# ---- the data sets ----


@style()
def data_map(dataset: Dataset) -> Drawing:
    """Where the photos of a data set were taken, in metres from the database's south-west."""
    figure, ((axis,),) = panels(8, 4.4)
    corner = dataset.database.xy.min(0)
    looks = {"database": {"s": 16, "color": WRONG}, "queries": {"s": 14, "color": RIGHT}}
    for role, marker in (("database", "o"), ("queries", "x")):
        xy = getattr(dataset, role).xy - corner
        axis.scatter(*xy.T, marker=marker, label=f"{role} ({len(xy)})", **looks[role])
    finish_map(figure, axis, f"{dataset.name}: where the photos were taken")
    alt = (
        "Map in metres east and north with a scale bar and a north arrow: dots for database "
        "photos, crosses for queries, both along the streets."
    )
    caption = f"{dataset.name}: where the photos were taken"
    return drawing(f"data_map_{dataset.name.replace(' ', '_')}", figure, caption, alt)


@style()
def samples(photos: Mapping[str, Photos], count: int = 8) -> Drawing:
    """A row of photos, evenly spread, for each of {label: Photos}."""
    figure, axes = panels(9, 1.05 * len(photos), len(photos), count)
    for row, (label, of_label) in zip(axes, photos.items(), strict=True):
        paths = of_label.paths
        for axis, k in zip(row, np.linspace(0, len(paths) - 1, count).astype(int), strict=True):
            _show(axis, load_image(paths[k]))
        row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=10)
    rows = ", ".join(photos).replace("\n", " ")
    alt = (
        f"Grid of photos, {count} in each of the rows {rows}. Training and database photos were "
        "taken by day from a car, the queries from the sidewalk, and those of tokyo-night in the "
        "dark."
    )
    return drawing("data_samples", figure, "Photos of each data set", alt, photos=True)


@style()
def positives(datasets: Mapping[str, Dataset]) -> Drawing:
    """How many database photos are right answers for a query."""
    figure, (axes,) = panels(3.1 * len(datasets), 2.8, 1, len(datasets))
    for axis, (name, dataset) in zip(axes, datasets.items(), strict=True):
        axis.hist([len(rows) for rows in dataset.positives], bins=20, color=RIGHT)
        axis.set(title=name, xlabel="positives within 25 m")
        axis.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes[0].set_ylabel("queries")
    alt = (
        f"Histograms for {', '.join(datasets)}: how many queries have how many database photos "
        "within 25 m."
    )
    return drawing("data_positives", figure, "How many right answers a query has", alt)


# ---- training ----


@style()
def loss_margins(names: Sequence[str]) -> Drawing:
    """The score of the true class against its angle, for margins of `losses.MARGINS`."""
    figure, ((axis,),) = panels(6.5, 3.9)
    angles = torch.linspace(0, torch.pi, 300)
    degrees = torch.rad2deg(angles).numpy()
    axis.plot(degrees, angles.cos().numpy(), color="0.5", linestyle=(0, (1, 1)), label="no margin")
    for name in names:
        axis.plot(degrees, psi(angles, MARGINS[name]).numpy(), label=name)
    axis.set(xlabel="angle to the true class, degrees", ylabel="score before the scale s")
    axis.set_xticks(range(0, 181, 30))
    legend_below(figure, axis)
    alt = (
        "Line chart: the score of the true class against its angle from 0 to 180 degrees, without "
        f"a margin and with that of {_listed(names)}, each of which lies below the line without."
    )
    return drawing("loss_margins", figure, "What each margin makes of an angle", alt)


@style()
def learning_curves(
    name: str, caption: str, logs: Mapping[str, pd.DataFrame], queries: int
) -> Drawing:
    """Training loss and validation R@1 against the iteration.

    Parameters
    ----------
    logs : {model: its training's log}; validation R@1 is that of so many `queries`.
    """
    figure, ((left, right),) = panels(9.5, 3.7, 1, 2)
    last = max(log["iteration"].max() for log in logs.values())
    for k, (label, log) in enumerate(logs.items()):
        trained = log.dropna(subset="loss")
        left.plot(trained["iteration"], trained["loss"], marker=MARKERS[k], ms=4, label=label)
        epochs = log.dropna(subset="val_R@1")
        hits = (queries * epochs["val_R@1"] / 100).round()
        ends = np.array([interval(np.arange(queries) < n) for n in hits]).reshape(-1, 2)
        rows = pd.DataFrame(ends, columns=["ci_low", "ci_high"]).assign(
            value=epochs["val_R@1"].array
        )
        look = {"color": COLOURS[k], "linestyle": DASHES[k], "marker": MARKERS[k], "capsize": 2}
        aside = 0.012 * last * (k - (len(logs) - 1) / 2)  # so that no bar hides another
        right.errorbar(epochs["iteration"] + aside, rows["value"], error_bars(rows), lw=1.5, **look)
    left.set(xlabel="iteration", ylabel="training loss")
    _from_zero(left)
    right.set(xlabel="iteration", ylabel="validation R@1, %", title=f"n = {queries}")
    legend_below(figure, left)
    alt = (
        "Two line charts against the iteration: left the training loss, right the R@1 on "
        "validation photos with its 95 % interval, from the untrained start at iteration 0; a "
        f"line for {_listed(logs)} in each."
    )
    return drawing(name, figure, caption, alt)


@style()
def reversal_pipeline(size: int, weight: float) -> Drawing:
    """Figure 1: gradient reversal, from the modules that are run.

    Parameters
    ----------
    size : pixels of a training image's side.
    weight : of the discriminator's loss.
    """
    model = build("resnet18").eval()
    discriminator = Discriminator(BACKBONES["resnet18"][2]).eval()
    with torch.inference_mode():
        image = torch.zeros(1, 3, size, size)
        trunk = model.trunk(image)
        maps = model.upper(trunk)
        descriptor, logits = model.head(maps), discriminator(maps)
    names = [type(layer).__name__ for layer in model.aggregation]
    head, stages = [" → ".join(names[:3]), " → ".join(["", *names[3:]])], len(model.stages)
    frozen = model.frozen_stages
    widths = [str(w.shape[0]) for name, w in discriminator.named_parameters() if "weight" in name]
    judge = [f"{type(discriminator).__name__} {'-'.join(widths)}", f"cross-entropy × {weight:g}"]
    grey, blue, red = "0.92", "#cfe3f3", "#f7d9c4"
    boxes = {
        "images": (0, 1, grey, ["training images (day)", "and night photos", _shape(image)]),
        "trunk": (1, 1, grey, ["frozen trunk", f"stages 1 to {frozen}", _shape(trunk)]),
        "upper": (2, 1, blue, ["trained", f"stages {frozen + 1} to {stages}", _shape(maps)]),
        "head": (3.1, 1.6, blue, [*head, _shape(descriptor)]),
        "loss": (4.3, 1.6, blue, ["CosFace loss", "(training images only)"]),
        "reverse": (3.1, 0.4, red, ["average pooling", "gradient × (−1)", str(maps.shape[1])]),
        "domain": (4.3, 0.4, red, [*judge, f"{_shape(logits)}: day or night?"]),
    }
    figure, ((axis,),) = panels(12, 3.4)
    drawn = {}
    for name, (x, y, colour, lines) in boxes.items():
        look = {"boxstyle": "round,pad=0.6", "facecolor": colour, "edgecolor": "0.4"}
        text = "\n".join(lines)
        drawn[name] = axis.text(x, y, text, ha="center", va="center", fontsize=9, bbox=look)
    forward = [("images", "trunk"), ("trunk", "upper"), ("upper", "head"), ("head", "loss")]
    for pair in [*forward, ("upper", "reverse"), ("reverse", "domain")]:
        _arrow(axis, *(drawn[name] for name in pair), color="0.3")
    back = {"color": WRONG, "linestyle": "--", "connectionstyle": "arc3,rad=-0.45"}
    _arrow(axis, drawn["reverse"], drawn["upper"], **back)
    words = "on the way back:\nreversed gradient"
    axis.text(2.05, 0.3, words, ha="center", va="center", color=WRONG, fontsize=9)
    axis.set(xlim=(-0.45, 4.8), ylim=(-0.05, 2.05))
    axis.axis("off")
    alt = (
        "Diagram: training images and night photos pass the frozen trunk and the trained stages. "
        "From there one branch leads through pooling and a linear layer to the CosFace loss, the "
        "other through gradient reversal to the discriminator of day and night, whose gradient "
        "returns reversed."
    )
    return drawing("figure_01", figure, "Figure 1. The pipeline of gradient reversal", alt)


@style()
def discriminator_accuracy(logs: Mapping[str, pd.DataFrame]) -> Drawing:
    """The share of photos whose domain the discriminator tells, from {model: training's log}."""
    figure, ((axis,),) = panels(6.5, 3.3)
    for k, (model, log) in enumerate(logs.items()):
        rows = log.dropna(subset="domain_accuracy")
        look = {"marker": MARKERS[k], "linestyle": DASHES[k], "ms": 4, "label": model}
        axis.plot(rows["iteration"], 100 * rows["domain_accuracy"], **look)
    axis.axhline(50, color="0.4", linestyle=":", label="chance")
    _from_zero(axis)
    axis.set(xlabel="iteration", ylabel="domains told right, %", ylim=(0, 103))
    legend_below(figure, axis)
    alt = (
        f"Line chart with a line for {_listed(logs)}: the share of photos whose domain, day or "
        "night, the discriminator tells right, against the iteration; a dotted line marks chance, "
        "50 %."
    )
    return drawing("grl_discriminator", figure, "The discriminator during training", alt)


@style()
def geowarp_training(name: str, model: str, log: pd.DataFrame) -> Drawing:
    """GeoWarp's losses against the iteration, from the log of a model's training."""
    losses = [loss for loss in ("self_supervised", "feature_wise", "consistency") if loss in log]
    figure, (axes,) = panels(3.7 * len(losses), 3, 1, len(losses))
    for axis, loss in zip(axes, losses, strict=True):
        rows = log.dropna(subset=loss)
        axis.plot(rows["iteration"], rows[loss], marker="o", ms=4)
        axis.set(title=f"{loss.replace('_', '-')} loss", xlabel="iteration")
        _from_zero(axis)
    axes[0].set_ylabel("loss")
    words = _listed([loss.replace("_", "-") for loss in losses])
    alt = f"{len(losses)} line charts of {model} against the iteration: {words} loss."
    return drawing(name, figure, f"GeoWarp's losses during training: {model}", alt)


# ---- recalls ----


@style()
def compare_recalls(table: pd.DataFrame, title: str) -> Drawing | None:
    """One of the original's tables as a chart: a panel for each data set, a row a condition.

    A line divides the rows of the two families.

    Parameters
    ----------
    table : long form, `tables.COLUMNS`.
    title : what is compared.
    """
    number, conditions = table["table"].iloc[0], list(table["condition"].unique())
    present = _present(table)
    if not present:
        return None
    count = len(set(conditions) & set(conditions_of(number, FAMILIES[0])))
    height = 1.8 + 0.55 * len(conditions)
    figure, (axes,) = panels(3.4 * len(present) + 1.6, height, 1, len(present), sharey=True)
    metrics = list(table["metric"].unique())
    for axis, dataset in zip(axes, present, strict=True):
        of_dataset = table[table["dataset"] == dataset]
        for m, metric in enumerate(metrics):
            rows = of_dataset[of_dataset["metric"] == metric].set_index("condition")
            y = np.arange(len(conditions)) + 0.2 * (m - (len(metrics) - 1) / 2)
            _beside(axis, rows.loc[conditions], y, m, f"{metric}, ")
        queries = int(of_dataset["queries"].max())
        axis.set(title=f"{dataset} (n = {queries})", xlabel="recall, %", xlim=(-2, 102))
        if 0 < count < len(conditions):
            axis.axhline(count - 0.5, color="0.3", linewidth=1, linestyle="-")
    axes[0].set_yticks(range(len(conditions)), conditions)
    axes[0].set_ylim(len(conditions) - 0.5, -0.5)
    figure.suptitle(f"Table {number}: {title}, with 95 % intervals")
    legend_below(figure, axes[0])
    alt = f"Dot chart: {_listed(metrics)} of {_listed(conditions)} {DOTS}"
    return drawing(f"table_{number:02d}", figure, f"Table {number} as a chart", alt)


@style()
def brightness_curve(table: pd.DataFrame, rows: Mapping, family: str) -> Drawing | None:
    """One family's rows of Table 3 as curves over the brightness factor.

    Parameters
    ----------
    table : long form, `tables.COLUMNS`.
    rows : {condition: `study.rows.Evaluation`}, whose model and brightness each condition has.
    family : one of `study.rows.FAMILIES`.
    """
    table = table[table["condition"].isin(conditions_of(3, family))]
    table = table.assign(
        model=[rows[condition].model for condition in table["condition"]],
        factor=[rows[condition].night for condition in table["condition"]],
    ).dropna(subset="value")
    if table.empty:
        return None
    metrics, dataset = list(table["metric"].unique()), table["dataset"].iloc[0]
    figure, (axes,) = panels(10, 4.2, 1, len(metrics), sharey=True)
    for axis, metric in zip(axes, metrics, strict=True):
        of_metric = table[table["metric"] == metric]
        for k, (model, cells) in enumerate(of_metric.groupby("model", sort=False)):
            cells = cells.sort_values("factor")
            aside = cells["factor"] * (1 + 0.03 * (2 * k - 1))  # so that no bar hides another
            _beside(axis, cells, aside, k, f"{model}, ", upright=True, line=DASHES[k])
        axis.set(xscale="log", ylim=(0, 103), title=f"{dataset} {metric}")
        axis.set_xlabel("brightness factor of the database (1: none)")
        ticks = [0.05, 0.1, 0.2, 0.4, 1]
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.minorticks_off()
    axes[0].set_ylabel("recall, %")
    legend_below(figure, axes[0])
    alt = (
        f"Line charts of {_listed(metrics)} on {dataset} against the brightness factor of the "
        f"database, a line for {_listed(table['model'].unique())} with 95 % intervals; open "
        "diamonds are the published values, where there are any. The numbers are in Table 3."
    )
    name = _of_family("brightness_curve", family)
    return drawing(name, figure, f"Table 3 as a chart: {family}", alt)


@style()
def multiscale(
    tables: Mapping[int, pd.DataFrame], models: Mapping[int, str], family: str
) -> Drawing | None:
    """Tables 8 to 13 as a chart: R@1 of one family's rows that aggregate the database.

    Parameters
    ----------
    tables : {number: table in long form, `tables.COLUMNS`}.
    models : {number: what the family's rows of its table are about}.
    family : one of `study.rows.FAMILIES`.
    """
    methods, present = ["/", "avg", "sum", "max", "min"], _present(pd.concat(tables.values()))
    if not present:
        return None
    size = (2.2 * len(tables) + 0.6, 2.1 * len(present) + 1.5, len(present), len(tables))
    figure, axes = panels(*size, sharex=True, sharey=True)
    for row, dataset in zip(axes, present, strict=True):
        for axis, (number, table) in zip(row, tables.items(), strict=True):
            cells = table[(table["dataset"] == dataset) & (table["metric"] == "R@1")]
            conditions = [
                method if family == FAMILIES[0] else counterpart(number, method)
                for method in methods
            ]
            cells = cells.set_index("condition").loc[conditions]
            _beside(axis, cells, np.arange(len(methods)), 0, upright=True)
            axis.set(xlim=(-0.5, len(methods) - 0.5), ylim=(0, 100))
            axis.set_xticks(range(len(methods)), methods, fontsize=10)
        row[0].set_ylabel(f"{dataset}\nR@1, %")
    for axis, number in zip(axes[0], tables, strict=True):
        axis.set_title(f"Table {number}\n{models[number]}", fontsize=11)
    legend_below(figure, axes[0, 0])
    alt = (
        "Grid of dot charts, a row for each data set and a column for each of Tables "
        f"{min(tables)} to {max(tables)}: R@1 with {family} of one scale (/), avg, sum, max and "
        "min, with 95 % intervals; open diamonds are the published values, where there are any. "
        "The numbers are in those tables."
    )
    caption = f"Tables {min(tables)} to {max(tables)} as a chart: {family}"
    return drawing(_of_family("multiscale", family), figure, caption, alt)


@style()
def soups(paths: pd.DataFrame, results: Mapping, family: str) -> Drawing | None:
    """Figure 4: in-domain against shifted-domain R@1 of one family's soups.

    Parameters
    ----------
    paths : of `measures.soup_paths`.
    results : {condition: {data set: Result}} of the ingredients and the soups.
    family : one of `study.rows.FAMILIES`.
    """
    points = {name: by_domain(of_datasets) for name, of_datasets in results.items()}
    if any(point.isna().any(axis=None) for point in points.values()):
        return None
    figure, ((axis,),) = panels(7, 5.6)
    for _, line in paths.groupby(["from", "to"], sort=False):
        axis.plot(line[IN_DOMAIN], line["shifted"], "-", color="0.75", zorder=1)
    between = paths[paths["share"].between(0, 1, inclusive="neither")]
    dots = {"s": 22, "color": "0.5", "zorder": 2, "label": "between two"}
    axis.scatter(between[IN_DOMAIN], between["shifted"], **dots)
    for k, (name, point) in enumerate(points.items()):
        x, y = point["value"]
        xbars, ybars = error_bars(point).T[:, :, None]
        axis.errorbar(x, y, ybars, xbars, color=COLOURS[k], elinewidth=1, alpha=0.5, zorder=2)
        look = {"color": COLOURS[k], "edgecolor": "white", "s": 150 - 22 * k, "zorder": 3 + k}
        axis.scatter(x, y, marker=MARKERS[k], label=name, **look)
    shifted = [name for name in next(iter(results.values())) if name != IN_DOMAIN]
    axis.set(xlabel=f"{IN_DOMAIN} R@1, %", ylabel=f"mean R@1 of {_listed(shifted)}, %")
    legend_below(figure, axis, 3)
    alt = (
        f"Scatter plot: mean R@1 of {_listed(shifted)} against R@1 on {IN_DOMAIN}, for "
        f"{_listed(points)} with 95 % intervals, and for mixtures on the lines between each two "
        "ingredients."
    )
    caption = f"Figure 4. Soups, and the lines between their ingredients: {family}"
    return drawing(_of_family("figure_04", family), figure, caption, alt)


@style()
def claims_chart(name: str, caption: str, ledger: pd.DataFrame, family: str) -> Drawing | None:
    """The claims that compare recalls: our effects, their intervals and the original's effects.

    Parameters
    ----------
    ledger : rows of `claims.ledger`.
    family : the one of `study.rows.FAMILIES` whose rows are shown.
    """
    rows = ledger[ledger["family"] == family].dropna(subset="ci_low")
    caption = f"{caption}, with {family}"
    if rows.empty:
        return None
    claims, datasets = list(rows["claim"].unique()), list(rows["dataset"].unique())
    short = [claim.replace("Table ", "T").replace(f"{family}: ", "") for claim in claims]
    labels = [textwrap.fill(words, 46) for words in short]
    heights = np.array([max(2.0, 1.2 * (1 + label.count("\n"))) for label in labels])
    places = dict(zip(claims, np.cumsum(heights) - heights / 2, strict=True))
    size = (3.4 + 2.6 * len(datasets), 0.19 * heights.sum() + 1.8, 1, len(datasets))
    figure, (axes,) = panels(*size, sharex=True, sharey=True)
    looks: dict[str, dict[str, Any]] = {
        "reproduced": {"marker": "o", "color": RIGHT},
        "contradicted": {"marker": "X", "color": WRONG},
        "not decidable": {"marker": "o", "color": "0.5", "mfc": "white"},
    }
    for axis, dataset in zip(axes, datasets, strict=True):
        of_dataset = rows[rows["dataset"] == dataset]
        y = of_dataset["claim"].map(places) + np.where(of_dataset["metric"] == "R@1", -0.4, 0.4)
        width = np.where(of_dataset["metric"] == "R@1", 2.5, 1.0)
        for verdict, look in looks.items():
            chosen = (of_dataset["verdict"] == verdict).to_numpy()
            ends = of_dataset.loc[chosen, ["ci_low", "ci_high"]].to_numpy().T
            axis.hlines(y[chosen], *ends, color=look["color"], linewidth=width[chosen])
            effects = of_dataset.loc[chosen, "effect"]
            axis.plot(effects, y[chosen], linestyle="none", ms=6, label=verdict, **look)
        axis.plot(
            of_dataset["reported"], y, "D", mfc="none", color="0.2", ms=5, label="in the original"
        )
        axis.axvline(0, color="0.3", linewidth=1, linestyle="-")
        axis.set(title=dataset, xlabel="points", ylim=(heights.sum(), 0))
    axes[0].set_yticks(list(places.values()), labels, fontsize=9)
    figure.suptitle(
        f"{caption}: effects in their direction, with 95 % intervals\n"
        "in each row R@1 (thick) above R@5 (thin)"
    )
    legend_below(figure, axes[0])
    alt = (
        "Dot chart, a row for each claim and a panel for each data set: our effect in R@1 and R@5 "
        "with its 95 % interval, marked as reproduced, contradicted or not decidable; open "
        "diamonds are the original's effects. The numbers are in the ledger."
    )
    return drawing(_of_family(name, family), figure, caption, alt)


@style()
def over_seeds(table: pd.DataFrame) -> Drawing | None:
    """Each seed's R@1, the first seed's interval, and the original's R@1: a panel a data set.

    Parameters
    ----------
    table : of `measures.over_seeds`.
    """
    if table.empty:
        return None
    names, datasets = list(table["row"].unique()), list(table["dataset"].unique())
    size = (3.2 * len(datasets) + 2.6, 0.42 * len(names) + 1.7, 1, len(datasets))
    figure, (axes,) = panels(*size, sharex=True, sharey=True)
    for axis, dataset in zip(axes, datasets, strict=True):
        rows = table[table["dataset"] == dataset]
        y = rows["row"].map(names.index).to_numpy(float)
        first = (rows["seed"] == rows["seed"].min()).to_numpy()
        ends = rows.loc[first, ["ci_low", "ci_high"]].to_numpy().T
        axis.hlines(y[first], *ends, color="0.6", linewidth=4, label="95 % interval, first seed")
        for k, (_, of_seed) in enumerate(rows.groupby("seed", sort=True)):
            at = of_seed["row"].map(names.index) + 0.12 * k  # so that equal points are all seen
            look = {"color": RIGHT, "ms": 5, "label": "" if k else "ours, a point a seed"}
            axis.plot(of_seed["value"], at, "o", **look)
        look = {"mfc": "none", "color": WRONG, "ms": 7, "label": "in the original"}
        axis.plot(rows.loc[first, "published"], y[first], "D", **look)
        queries = int(rows["queries"].max())
        axis.set(title=f"{dataset} (n = {queries})", xlabel="R@1, %", xlim=(-2, 102))
    axes[0].set_yticks(range(len(names)), names, fontsize=9)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    legend_below(figure, axes[0])
    alt = (
        "Dot chart, a row for the baseline and for each change to it and a panel for each data "
        "set: the R@1 of each seed as a dot, the 95 % interval of the first seed as a grey bar, "
        "the original's R@1 as an open diamond. The numbers are in the table of this name."
    )
    caption = "The original's R@1 over ours: every seed, and the interval over queries"
    return drawing("over_seeds", figure, caption, alt)


# ---- descriptors and photos ----


@style()
def descriptor_space(
    descriptors: Mapping[str, np.ndarray], night: np.ndarray, told: Mapping[str, float]
) -> Drawing:
    """Descriptors by day and by night on their two directions of most variance.

    Parameters
    ----------
    descriptors : {model: float (N, D)}.
    night : bool (N,).
    told : {model: percent of the descriptors whose domain a line tells}.
    """
    figure, (axes,) = panels(4.7 * len(descriptors), 4.4, 1, len(descriptors))
    for axis, (name, of_model) in zip(axes, descriptors.items(), strict=True):
        flat = PCA(2, svd_solver="full").fit_transform(of_model)
        for mask, label, k in ((~night, "day and sunset", 0), (night, "night", 2)):
            look = {"color": COLOURS[k // 2], "marker": MARKERS[k], "alpha": 0.7}
            axis.scatter(*flat[mask].T, s=16, label=label, **look)
        axis.set(title=f"{name}: domain told right {told[name]:.0f} %")
        axis.set(xlabel="first direction", ylabel="second direction")
    legend_below(figure, axes[0])
    alt = (
        f"Scatter plots of {_listed(descriptors)}: descriptors of queries on their two directions "
        "of most variance, dots for day and sunset, triangles for night. Each title says how often "
        "a line tells the two apart."
    )
    return drawing("grl_descriptors", figure, "Day and night in descriptor space", alt)


@style()
def brightness_strip(photos: Photos, factors: Sequence[float]) -> Drawing:
    """Figure 2: photos at each brightness factor, a row a photo."""
    figure, axes = panels(1.9 * len(factors), 2.1 * len(photos), len(photos), len(factors))
    for row, path in zip(axes, photos.paths, strict=True):
        for axis, factor in zip(row, factors, strict=True):
            _show(axis, darken(load_image(path), factor))
    for axis, factor in zip(axes[0], factors, strict=True):
        axis.set_title("as it is" if factor == 1 else f"factor {factor:g}", fontsize=11)
    alt = (
        f"{len(photos)} photos, a row each: with the brightness factors "
        f"{_listed([f'{factor:g}' for factor in factors])}, darker from left to right."
    )
    caption = "Figure 2. What a brightness factor does to a photo"
    return drawing("figure_02", figure, caption, alt, photos=True)


@style()
def warped_pairs(model, result, size: int, count: int = 3) -> Drawing:
    """Figure 3: estimated quadrilaterals and warped photos of queries and their first predictions.

    Parameters
    ----------
    model : of `study.load_warp`.
    result : queries whose first prediction is right are shown, where there are such.
    size : pixels of the images' sides.
    """
    right = np.flatnonzero(result.right(1))
    shown = _spread(right if len(right) else np.arange(len(result.first_hit)), count)
    paths = [np.array(result.dataset.queries.paths)[shown]]
    paths += [np.array(result.dataset.database.paths)[result.predictions[shown, 0]]]
    ((_, photos),) = load_batches(np.concatenate(paths), 2 * len(shown), size)
    pairs = photos.unflatten(0, (2, len(shown)))
    corners = quadrilaterals(model, *normalise(photos).unflatten(0, (2, len(shown))))
    figure, axes = panels(9, 2.3 * len(shown) + 0.3, len(shown), 4)
    for row, both, estimate in zip(axes, pairs.transpose(0, 1), corners, strict=True):
        warped = warp(both.float() / 255, estimate).clamp(0, 1)
        for k in range(2):
            _show(row[k], both[k])
            edge = (estimate[k].numpy() + 1) / 2 * (size - 1)
            row[k].add_patch(Polygon(edge, fill=False, edgecolor=WRONG, linewidth=2, clip_on=False))
            _show(row[2 + k], warped[k])
    titles = ("query", "prediction", "query, warped", "prediction, warped")
    for axis, words in zip(axes[0], titles, strict=True):
        axis.set_title(words, fontsize=11)
    alt = (
        f"{len(shown)} rows of four photos: a query and its first prediction, each with the "
        "estimated quadrilateral drawn on it, then both warped to those quadrilaterals."
    )
    caption = "Figure 3. Estimated quadrilaterals and warped photos"
    return drawing("figure_03", figure, caption, alt, photos=True)


def gallery(result, model: str, count: int = 2) -> Drawing:
    """Right and wrong retrievals of a model on one data set, so many of each where there are."""
    right = _spread(np.flatnonzero(result.right(1)), count)
    wrong = _spread(np.flatnonzero(~result.right(1)), count)
    name = result.dataset.name
    shown = (
        f"{len(right)} queries whose first prediction is right, then {len(wrong)} whose first "
        "prediction is wrong"
    )
    return answers(
        f"gallery_{name.replace(' ', '_')}",
        f"{name}: right and wrong retrievals of {model}",
        shown,
        result,
        np.concatenate([right, wrong]),
    )


@style()
def answers(
    name: str, caption: str, shown: str, result, queries: Sequence[int], n: int = 5
) -> Drawing:
    """Queries with their first n predictions, right ones framed in blue, wrong ones in dashes.

    Parameters
    ----------
    shown : what the queries are, for those who can't see them.
    result : with dataset, predictions int (Q, K) and their squared distances (Q, K).
    queries : rows of the result.
    """
    dataset = result.dataset
    figure, axes = panels(1.55 * (n + 1), 1.8 * len(queries) + 0.6, len(queries), n + 1)
    for row, query in zip(axes, queries, strict=True):
        _show(row[0], load_image(dataset.queries.paths[query]))
        for k, axis in enumerate(row[1:]):
            answer = result.predictions[query, k]
            right = answer in dataset.positives[query]
            _show(axis, load_image(dataset.database.paths[answer]))
            words = f"{result.distances[query, k]:.2f} {'right' if right else 'wrong'}"
            axis.set_xlabel(words, fontsize=9, labelpad=2)
            frame = {"color": RIGHT if right else WRONG, "linewidth": 3}
            axis.spines[:].set(visible=True, linestyle="-" if right else "--", **frame)
    for axis, words in zip(axes[0], ("query", *range(1, n + 1)), strict=True):
        axis.set_title(words, fontsize=10)
    figure.suptitle(caption)
    alt = (
        f"Photo grid, a row a query with its first {n} predictions: {shown}. Each prediction is "
        "labelled with its squared distance and the word right (solid blue frame) or wrong "
        "(dashed orange frame)."
    )
    return drawing(name, figure, caption, alt, photos=True)


# ---- what they share ----


def drawing(name: str, figure: Figure, caption: str, alt: str, photos: bool = False) -> Drawing:
    """A finished figure with its words. It is drawn once, so that its ticks are of this style."""
    figure.draw_without_rendering()
    return Drawing(name, figure, caption, alt, photos)


def _of_family(name: str, family: str) -> str:
    """The file's name of a figure that is drawn for each family; the original's has no ending."""
    return name if family == FAMILIES[0] else f"{name}_{family.lower()}"


def panels(width: float, height: float, rows: int = 1, columns: int = 1, **options):
    """A figure of so many inches and its rows x columns axes; pyplot does not know of it."""
    figure = Figure((width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, axes


def error_bars(rows: pd.DataFrame) -> np.ndarray:
    """How far each value's interval reaches below and above it, float (2, N)."""
    return np.abs(rows[["ci_low", "ci_high"]].to_numpy(float).T - rows["value"].to_numpy(float))


def _beside(axis: Axes, rows: pd.DataFrame, at, k: int, words="", upright=False, line="none"):
    """Our recalls with intervals, the k-th series, and the published ones, if any, as open
    diamonds.
    """
    ours, theirs = rows["value"], rows["published"].astype(float)
    look: dict[str, Any] = {"linestyle": line, "marker": MARKERS[k], "capsize": 3}
    look |= {"color": COLOURS[k], "label": f"{words}ours"}
    published: dict[str, Any] = {"color": COLOURS[k], "label": f"{words}published", "mfc": "none"}
    if upright:
        axis.errorbar(at, ours, yerr=error_bars(rows), **look)
    else:
        axis.errorbar(ours, at, xerr=error_bars(rows), **look)
    if theirs.notna().any():
        axis.plot(*((at, theirs) if upright else (theirs, at)), "D", **published)


def _from_zero(axis: Axes) -> None:
    """Lets both axes begin at 0 and end a little beyond the data."""
    axis.set(xlim=(0, 1.05 * axis.dataLim.x1), ylim=(0, 1.1 * axis.dataLim.y1))


def legend_below(figure: Figure, axis: Axes, columns: int = 4) -> None:
    """The legend of one panel below the figure, where it hides nothing."""
    by_label = sorted(zip(*axis.get_legend_handles_labels()[::-1], strict=True), key=itemgetter(0))
    labels, handles = zip(*by_label, strict=True)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)


def finish_map(figure: Figure, axis: Axes, title: str) -> None:
    """Finishes a map in metres: a north arrow and a scale bar right of it hide no point."""
    axis.set(title=title, xlabel="metres east", ylabel="metres north", aspect="equal")
    legend_below(figure, axis)
    corner = OffsetFrom(axis.bbox, (1, 0), "points")
    arrow = {"arrowstyle": "<-", "color": "0.15"}
    places: dict[str, Any] = {"xycoords": corner, "textcoords": corner, "annotation_clip": False}
    axis.annotate("N", (14, 0), (14, 30), ha="center", arrowprops=arrow, **places)
    metres = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(0, np.ptp(axis.get_xlim()))[1]
    words = f"{metres:g} m" if metres < 1000 else f"{metres / 1000:g} km"
    beside = axis.transAxes + ScaledTranslation(24 / 72, 0, figure.dpi_scale_trans)
    look = {"pad": 0, "borderpad": 0, "sep": 5, "frameon": False, "bbox_to_anchor": (1, 0)}
    bar = AnchoredSizeBar(
        axis.transData, metres, words, "lower left", bbox_transform=beside, **look
    )
    axis.add_artist(bar)


def _show(axis: Axes, image: torch.Tensor) -> None:
    """A photo (3, H, W) without ticks and frame."""
    axis.imshow(image.permute(1, 2, 0).numpy())
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    axis.spines[:].set_visible(False)


def _arrow(axis: Axes, start, end, **look) -> None:
    """An arrow from one text's box to another's."""
    look |= {"arrowstyle": "->", "patchA": start.get_bbox_patch(), "patchB": end.get_bbox_patch()}
    axis.annotate("", end.get_position(), start.get_position(), arrowprops=look)


def _spread(rows: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of the rows, evenly spread."""
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]


def _present(table: pd.DataFrame) -> list[str]:
    """The data sets with measured values, in the table's order."""
    return list(table.dropna(subset="value")["dataset"].unique())


def _shape(tensor: torch.Tensor) -> str:
    return " x ".join(map(str, tensor.shape[1:]))


def _listed(words) -> str:
    """The words as "a, b and c"."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else str(last)
