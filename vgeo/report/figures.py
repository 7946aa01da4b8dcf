"""TODO: report.figures."""

from pathlib import Path

import IPython.display
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from cycler import cycler
from matplotlib.text import OffsetFrom
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar
from PIL import Image

from vgeo.photos.images import load_image
from vgeo.photos.places import RetrievalSet
from vgeo.retrieval.metrics import interval

RIGHT, WRONG = "#0072B2", "#D55E00"  # of the colour-blind safe palette


def write_figure(folder, name, figure, photos=False):
    """`figures/<name>.png` and `.svg` under the results folder; of a page of photos the `.png` alone, which is also what a notebook shows.

    The PNG has a palette of 256 colours, a third of the size; for photos one that fits them. It has 150 dots an inch, for print; with photos,
    which have no more to show, 90.
    """
    path = Path(folder) / "figures" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    of_photos = any(axis.images for axis in figure.axes)
    dots = 90 if of_photos else 150
    figure.savefig(path, dpi=dots, bbox_inches="tight", metadata={"Software": None})
    with Image.open(path) as page:
        # photos: k-means until fewer than so many pixels change, 0.3 s a page; to its end it takes 4 s and comes 5 % closer
        page.convert("RGB").quantize(256, kmeans=100_000 * of_photos).save(
            path, optimize=True, dpi=(dots, dots)
        )
    if photos:
        plt.close(figure)
        IPython.display.display(IPython.display.Image(path))
    else:
        figure.savefig(
            path.with_suffix(".svg"), bbox_inches="tight", metadata={"Date": None, "Creator": None}
        )


def style():
    """One look for all figures: lines differ in colour and in dashes."""
    sns.set_theme(
        context="notebook", style="whitegrid", rc={"svg.hashsalt": "vgeo", "figure.dpi": 90}
    )
    plt.rc(
        "axes",
        prop_cycle=cycler(color=sns.color_palette("colorblind", 4))
        + cycler(linestyle=["-", "--", "-.", ":"]),
    )


def compare_recalls(table, title):
    """Each condition's recalls with intervals, a panel per data set and a marker per metric; published values as open diamonds."""
    present = [
        d for d in table["dataset"].unique() if table[table["dataset"] == d]["value"].notna().any()
    ]
    metrics, conditions = list(table["metric"].unique()), list(table["condition"].unique())
    figure, axes = plt.subplots(
        1,
        len(present),
        figsize=(3.6 * len(present) + 1.4, 1.2 + 0.62 * len(conditions)),
        sharey=True,
        squeeze=False,
    )
    colours = sns.color_palette("colorblind")
    for axis, dataset in zip(axes[0], present):
        for m, metric in enumerate(metrics):
            part = (
                table[(table["dataset"] == dataset) & (table["metric"] == metric)]
                .set_index("condition")
                .loc[conditions]
            )
            y = np.arange(len(conditions)) + 0.16 * (m - (len(metrics) - 1) / 2)
            spread = np.abs(
                part[["ci_low", "ci_high"]].to_numpy(float).T - part["value"].to_numpy(float)
            )
            axis.errorbar(
                part["value"],
                y,
                xerr=spread,
                fmt="os^v"[m],
                color=colours[m],
                capsize=3,
                label=f"{metric}, ours",
            )
            axis.plot(
                part["published"],
                y,
                "D",
                mfc="none",
                color=colours[m],
                label=f"{metric}, published",
            )
        axis.set(
            title=f"{dataset} (n = {int(part['queries'].max())})", xlabel="recall, %", xlim=(0, 100)
        )
        axis.set_yticks(range(len(conditions)), conditions)
    axes[0, 0].set_ylim(len(conditions) - 0.5, -0.5)
    figure.suptitle(title)
    figure.tight_layout()
    legend_below(figure)
    return figure


def legend_below(figure):
    """The legend of a figure's first axes below it, in the order of the labels, where it hides nothing."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    order = sorted(range(len(labels)), key=labels.__getitem__)
    figure.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="upper center",
        bbox_to_anchor=(0.5, 0.02),
        ncols=4,
        frameon=False,
    )


def gallery(result, queries, title, n=5):
    """Queries (rows of the result) with their first n predictions, right ones framed in blue, wrong ones dashed in orange."""
    data = result.data
    figure, axes = plt.subplots(
        len(queries), n + 1, figsize=(1.5 * (n + 1), 1.66 * len(queries) + 0.4), squeeze=False
    )
    for row, query in zip(axes, queries):
        found = result.predictions[query, :n]
        images = [data.queries["path"].iloc[query], *data.database["path"].iloc[found]]
        for k, (axis, path) in enumerate(zip(row, images)):
            axis.imshow(load_image(path).permute(1, 2, 0))
            axis.set(xticks=[], yticks=[])
            right = k and found[k - 1] in data.positives[query]
            for spine in axis.spines.values():
                spine.set(
                    visible=bool(k),
                    color=RIGHT if right else WRONG,
                    linewidth=3,
                    linestyle="-" if right else "--",
                )
            if k:
                axis.set_xlabel(
                    f"{result.distances[query, k - 1]:.2f} " + ("right" if right else "wrong"),
                    fontsize=9,
                    labelpad=2,
                )
    for k, axis in enumerate(axes[0]):
        axis.set_title("query" if k == 0 else str(k), fontsize=9)
    figure.suptitle(title)
    figure.tight_layout()
    return figure


def learning_curve(logs, title, queries):
    """Training loss and validation R@1 against iterations of {condition: `Study.log`}; queries: how many R@1 is a share of, for its 95 % intervals."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
    for k, (condition, log) in enumerate(logs.items()):
        left.plot(log["iteration"], log["loss"], marker=".", label=condition)
        epochs = log.dropna(subset="val_R@1")
        ends = np.array(
            [
                interval(np.arange(queries) < round(queries * value / 100))
                for value in epochs["val_R@1"]
            ]
        ).T
        aside = (
            0.012 * log["iteration"].max() * (k - (len(logs) - 1) / 2)
        )  # so that none hides another
        right.errorbar(
            epochs["iteration"] + aside,
            epochs["val_R@1"],
            yerr=np.abs(ends - epochs["val_R@1"].to_numpy()),
            color=f"C{k}",
            marker="os^D"[k % 4],
            capsize=2,
            elinewidth=1,
        )
    left.set(
        xlabel="iteration",
        ylabel="training loss",
        ylim=(0, 1.1 * max(log["loss"].max() for log in logs.values())),
    )
    right.set(xlabel="iteration", ylabel="validation R@1, %", title=f"n = {queries}")
    figure.suptitle(title)
    figure.tight_layout()
    figure.legend(
        *left.get_legend_handles_labels(),
        loc="upper center",
        bbox_to_anchor=(0.5, 0.02),
        ncols=len(logs),
        frameon=False,
    )
    return figure


def scale_and_north(axis):
    """A north arrow and a scale bar right of a finished map whose axes are metres east and north: there they hide no point."""
    corner = OffsetFrom(axis.bbox, (1, 0), "points")
    axis.annotate(
        "N",
        (14, 0),
        (14, 30),
        xycoords=corner,
        textcoords=corner,
        ha="center",
        arrowprops={"arrowstyle": "<-", "color": "0.15"},
        annotation_clip=False,
    )
    metres = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(0, np.ptp(axis.get_xlim()))[1]
    beside = axis.transAxes + ScaledTranslation(24 / 72, 0, axis.figure.dpi_scale_trans)
    axis.add_artist(
        AnchoredSizeBar(
            axis.transData,
            metres,
            f"{metres:g} m" if metres < 1000 else f"{metres / 1000:g} km",
            "lower left",
            pad=0,
            borderpad=0,
            sep=5,
            frameon=False,
            bbox_to_anchor=(1, 0),
            bbox_transform=beside,
        )
    )


def data_map(name, data):
    """Database and query positions in metres from the south-west corner; a str for absent data gives None."""
    if not isinstance(data, RetrievalSet):
        return None
    corner = data.database[["utm_east", "utm_north"]].min()
    figure, axis = plt.subplots(figsize=(8, 3.4))
    for table, label, look in (
        (data.database, "database", dict(s=16, color=WRONG, zorder=3)),
        (data.queries, "queries", dict(s=12, color=RIGHT, marker="x", linewidth=1)),
    ):
        axis.scatter(
            table["utm_east"] - corner["utm_east"],
            table["utm_north"] - corner["utm_north"],
            label=f"{label} ({len(table)})",
            **look,
        )
    axis.set(
        title=f"{name}: where the photos were taken",
        xlabel="metres east",
        ylabel="metres north",
        aspect="equal",
    )
    axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
    scale_and_north(axis)
    figure.tight_layout()
    return figure
