"""The figures of the notebook on `vgeo locate`: answers, their confidence, and where they lie."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from vgeo.photos.images import load_image
from vgeo.photos.places import Dataset
from vgeo.report import figures
from vgeo.report.section import Drawing


@figures.style()
def gallery_with_confidence(
    dataset: Dataset,
    answers,
    confidence: np.ndarray,
    in_words: Callable[[float], str],
    count: int = 2,
    n: int = 5,
) -> Drawing:
    """The `count` surest and the `count` least sure answers, with their first n matches.

    Parameters
    ----------
    dataset : its queries were located among its database.
    answers : with predictions int (Q, K), rows of the database, the best match first, and their
        similarity float (Q, K).
    confidence : float (Q,), the probability that the first match is right.
    in_words : what a confidence is called.
    """
    order = np.argsort(-np.asarray(confidence), kind="stable")
    queries = [*order[:count], *order[count:][-count:]]
    width, height = 1.55 * (n + 1), 1.8 * len(queries) + 0.6
    figure, axes = figures.panels(width, height, len(queries), n + 1)
    for row, query in zip(axes, queries, strict=True):
        matches = answers.predictions[query, :n]
        paths = [dataset.queries.paths[query], *(dataset.database.paths[k] for k in matches)]
        labels = [f"confidence {in_words(confidence[query])}"]
        frames: list[dict] = [{"visible": False}]
        for match, alike in zip(matches, answers.similarity[query], strict=False):
            right = match in dataset.positives[query]
            labels.append(f"{alike:.2f} {'right' if right else 'wrong'}")
            colour, line = (figures.RIGHT, "-") if right else (figures.WRONG, "--")
            frames.append({"visible": True, "color": colour, "linestyle": line, "linewidth": 3})
        for axis, path, label, frame in zip(row, paths, labels, frames, strict=False):
            axis.imshow(load_image(path).permute(1, 2, 0).numpy())
            axis.set_xlabel(label, fontsize=9, labelpad=2)
            axis.spines[:].set(**frame)
        for axis in row:
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
        for axis in row[len(paths) :]:  # fewer matches than n
            axis.set_axis_off()
    for axis, words in zip(axes[0], ("query", *range(1, n + 1)), strict=True):
        axis.set_title(words, fontsize=10)
    caption = f"{dataset.name}: the surest and the least sure answers"
    figure.suptitle(caption)
    alt = (
        f"Photo grid, a row a query with its first {n} matches, which are labelled with their "
        "similarity and the word right (solid blue frame) or wrong (dashed orange frame). The "
        f"first {count} queries are those with the highest confidence, the others those with the "
        "lowest."
    )
    return figures.drawing("locate_gallery", figure, caption, alt, photos=True)


@figures.style()
def calibration(curves: Mapping[str, pd.DataFrame]) -> Drawing:
    """Whether answers are right as often as their confidence says.

    Parameters
    ----------
    curves : {whose answers: rows of `vgeo.locate.confidence.reliability`}.
    """
    figure, axes = figures.panels(4.5 * len(curves), 4.4, 1, len(curves), sharey=True)
    for axis, (name, rows) in zip(axes[0], curves.items(), strict=True):
        percent = 100 * rows[["confidence", "right", "low", "high"]]
        bars = [percent["right"] - percent["low"], percent["high"] - percent["right"]]
        axis.plot([0, 100], [0, 100], color="0.5", linestyle="--")
        axis.errorbar(percent["confidence"], percent["right"], bars, fmt="o", capsize=3)
        title = f"{name} ({rows['answers'].sum()}, about {rows['answers'].mean():.0f} a dot)"
        axis.set(title=title, xlabel="mean confidence, %", aspect="equal")
        axis.set(xlim=(-3, 103), ylim=(-3, 103))
    axes[0, 0].set_ylabel("answers within 25 m, %")
    caption = "Share of right answers against their confidence"
    alt = (
        f"Dot plots for {' and '.join(curves)}: in bins of about equally many answers, the share "
        "within 25 m with its 95 % interval against the mean confidence. On the dashed diagonal "
        "both are equal. The numbers are summed up in the table locate_calibration."
    )
    return figures.drawing("locate_calibration", figure, caption, alt)


@figures.style()
def risk(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Drawing:
    """How often answers are wrong where the least sure ones are left out.

    Parameters
    ----------
    curves : {what says how sure an answer is: `vgeo.locate.confidence.risk_coverage`}.
    """
    figure, axes = figures.panels(6.5, 4.2)
    axis = axes[0, 0]
    for name, (given, wrong) in curves.items():
        axis.plot(100 * given, 100 * wrong, label=name)
    axis.set(xlabel="answers given, %", ylabel="of them wrong, %", xlim=(0, 100))
    axis.set_ylim(bottom=0)
    figures.legend_below(figure, axis, 2)
    caption = "Wrong answers among the surest ones"
    alt = (
        "Curves of the share of wrong answers against the share of answers given, the surest "
        f"first, where {', '.join(curves)} says how sure an answer is. Lower is better. The "
        "areas are in the table locate_selection."
    )
    return figures.drawing("locate_risk", figure, caption, alt)


@figures.style()
def located_map(dataset: Dataset, xy: np.ndarray, right: np.ndarray) -> Drawing:
    """The answers on a map, with a line from each to where its photo was taken.

    Parameters
    ----------
    dataset : its queries were located among its database.
    xy : float (Q, 2), the answers: UTM east and north, metres.
    right : bool (Q,), whether the answer is within 25 m.
    """
    database, corner = dataset.database.xy, dataset.database.xy.min(0)
    figure, axes = figures.panels(8, 5)
    axis = axes[0, 0]
    label = f"database ({len(database)} photos)"
    axis.scatter(*(database - corner).T, s=8, color="0.7", label=label)
    for chosen, colour, marker, words in (
        (right, figures.RIGHT, "o", "answer within 25 m"),
        (~right, figures.WRONG, "s", "answer farther away"),
    ):
        answers, truth = (place[chosen] - corner for place in (xy, dataset.queries.xy))
        line = {"linestyle": "-", "linewidth": 0.6, "alpha": 0.6}
        axis.plot(*np.stack([answers, truth]).transpose(2, 0, 1), color=colour, **line)
        label = f"{words} ({chosen.sum()})"
        axis.scatter(*answers.T, s=16, color=colour, marker=marker, label=label, zorder=3)
    figures.finish_map(figure, axis, f"{dataset.name}: located queries")
    caption = f"{dataset.name}: where the queries were located"
    alt = (
        f"Map with north up: the database photos as grey dots, {right.sum()} answers within 25 m "
        f"as blue dots and {(~right).sum()} farther ones as orange squares. A line leads from "
        "each answer to where its photo was taken."
    )
    return figures.drawing("locate_map", figure, caption, alt)
