"""Numbers that the notebooks compute beside the original's tables."""

import time
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import PredefinedSplit, cross_val_predict

from vgeo.device import precision
from vgeo.models.geowarp import IDENTITY, symmetric
from vgeo.models.network import build, freeze, normalise
from vgeo.photos.images import load_batches, load_image
from vgeo.photos.places import Dataset
from vgeo.photos.tables import Photos
from vgeo.report.original import printed, rows_of
from vgeo.report.tables import best_published, measured, paired_tests
from vgeo.retrieval.describe import describe
from vgeo.retrieval.metrics import recall
from vgeo.study.rows import EFFNET, LITE, RESNET, TRAININGS, Evaluation
from vgeo.training.augment import recoloured
from vgeo.training.geowarp import mean_corner_error, self_supervised_pairs
from vgeo.training.losses import MARGINS, psi

if TYPE_CHECKING:
    from vgeo.study.study import Study

IN_DOMAIN = "sf-xs"  # its queries are of the city that the training photos show
NAMES = {RESNET: "ResNet18", EFFNET: "EfficientNetV2-S", LITE: "EfficientNet-Lite0"}
# of each backbone, its training by CosFace alone
PLAIN = {
    row.backbone: name
    for name, row in TRAININGS.items()
    if row.margin == "CosFace" and not row.technique
}


def dataset_counts(datasets: Mapping[str, Dataset]) -> pd.DataFrame:
    """A row a data set: its photos, and how many database photos lie within 25 m of a query."""
    counts = {}
    for name, dataset in datasets.items():
        right = [len(rows) for rows in dataset.positives]
        counts[name] = {
            "queries": len(dataset.queries),
            "database": len(dataset.database),
            "without a positive": right.count(0),
            "positives per query (median)": int(np.median(right)),
            "chance R@1, %": round(100 * np.mean(right) / len(dataset.database), 2),
        }
    return pd.DataFrame.from_dict(counts, orient="index").rename_axis("dataset")


def recalls(results: Mapping, ns: Sequence[int] = (1,)) -> pd.DataFrame:
    """{condition: {data set: Result}} -> a row for each R@n, with its 95 % interval, in percent."""
    rows = [
        {"condition": condition, "dataset": dataset, "metric": f"R@{n}", **measured(result, n)}
        for condition, of_datasets in results.items()
        for dataset, result in of_datasets.items()
        for n in ns
    ]
    return pd.DataFrame(rows).round({"value": 2, "ci_low": 2, "ci_high": 2})


def costs(ratios: Mapping[str, float]) -> pd.DataFrame:
    """`study.costs.measure_costs` as a table: what, times as long."""
    return pd.DataFrame({"what": list(ratios), "times as long": list(ratios.values())}).round(2)


def over_seeds(
    results: Mapping[int, Mapping], rows: Sequence[tuple[str, int, str]]
) -> pd.DataFrame:
    """R@1 of some rows for every seed, beside the original's.

    Parameters
    ----------
    results : {seed: {table: {condition: {data set: Result}}}}.
    rows : (words, table, condition) of each row.

    Returns
    -------
    A row for each of `rows`, data set and seed: row (its words), table, condition, dataset, seed,
    value, ci_low, ci_high and published in percent (NaN where the original has no such row), and
    queries.
    """
    published = printed().query("metric == 'R@1'").set_index(["table", "condition", "dataset"])
    lines = [
        {"row": words, "table": table, "condition": condition, "dataset": dataset, "seed": seed}
        | measured(result, 1)
        | {"published": published["value"].get((table, condition, dataset), np.nan)}
        for words, table, condition in rows
        for seed, tables in results.items()
        for dataset, result in tables[table][condition].items()
    ]
    return pd.DataFrame(lines).round({"value": 2, "ci_low": 2, "ci_high": 2})


def best_rows(tables: pd.DataFrame) -> pd.DataFrame:
    """The best row of each data set and metric among tables in long form, the original's and ours.

    Rows that the original does not have are left out. Of equally good rows the first is named.
    """
    rows = []
    known = tables[tables["published"].notna()]
    for (dataset, metric), cells in known.groupby(["dataset", "metric"], sort=False):
        theirs = _best(cells, "published")
        row: dict[str, Any] = {
            "dataset": dataset,
            "metric": metric,
            "published": theirs["published"],
        }
        row["published row"] = f"Table {theirs['table']}, {theirs['condition']}"
        if cells["value"].notna().any():
            ours = _best(cells, "value")
            row |= {"ours": ours["value"], "ci_low": ours["ci_low"], "ci_high": ours["ci_high"]}
            row["our row"] = f"Table {ours['table']}, {ours['condition']}"
        rows.append(row)
    return pd.DataFrame(rows).round(1)


def best_rows_in_words(table: pd.DataFrame) -> list[str]:
    """The best R@1 on each data set of one table in long form, beside the original's: sentences."""
    ours = table[table["metric"] == "R@1"].dropna(subset="value")
    best = [_best(cells, "value") for _, cells in ours.groupby("dataset", sort=False)]
    return [
        f"{row['dataset']}: the best R@1 is {row['value']:.1f}, of {row['condition']}; "
        f"{best_published(row['table'], row['dataset'])}."
        for row in best
    ]


def _best(cells: pd.DataFrame, column: str) -> Any:
    """The row with the highest value of a column, of equal ones the first."""
    return cells.sort_values(column, ascending=False, kind="stable").iloc[0]


def domains_told_apart(descriptors: np.ndarray, night: np.ndarray, folds: int = 15) -> float:
    """How well a linear classifier tells day from night, in percent of held-out descriptors.

    Parameters
    ----------
    descriptors : float (N, D).
    night : bool (N,).
    folds : every such row is held out together; the classifier is fitted to the others.
    """
    held_out = PredefinedSplit(np.arange(len(night)) % folds)
    told = cross_val_predict(RidgeClassifier(alpha=1.0), descriptors, night, cv=held_out)
    return float(100 * np.mean(told == night))


def mean_brightness(photos: Mapping[str, Photos]) -> pd.DataFrame:
    """Mean pixel value, 0 to 255, of {name: photos}, and its ratio to the first one's.

    Each photo counts the same, whatever its size.
    """
    means = {
        name: np.mean([load_image(path).float().mean() for path in of_name.paths])
        for name, of_name in photos.items()
    }
    table = pd.DataFrame({"photos": list(means), "mean pixel value": list(means.values())})
    ratios = table["mean pixel value"] / table["mean pixel value"].head(1).sum()
    return table.assign(**{"of the database's": ratios}).round(3)


def margin_scores(names: Sequence[str], degrees: Sequence[int]) -> pd.DataFrame:
    """What a margin makes of the cosine: `losses.psi` at angles in degrees.

    Returns
    -------
    A row for each angle and a column for each of `names`, which are names of `losses.MARGINS`.
    """
    angles = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    scores = {name: psi(angles, MARGINS[name]).numpy() for name in names}
    return pd.DataFrame(scores, index=pd.Index(degrees, name="angle"))


def corner_errors(study: "Study", names: Sequence[str], count: int = 96) -> pd.DataFrame:
    """Corner errors of GeoWarp's regressions on self-supervised pairs of validation photos.

    Parameters
    ----------
    names : trainings with a warping regression.
    count : of photos, spread over the validation database; no training has seen them.

    Returns
    -------
    A row for the identity, which says that both photos show the same, and two for each training,
    without and with the colour jitter of training. Errors are means in half image sides.
    """
    paths = study.data.val.database.paths
    paths = paths[:: max(1, len(paths) // count)][:count]
    ((_, photos),) = load_batches(paths, len(paths), study.profile.image_size)
    generator = torch.Generator().manual_seed(99)
    *views, targets = self_supervised_pairs(
        photos.float() / 255, generator, study.profile.geowarp.k
    )
    plain = [normalise((view * 255).round().to(torch.uint8)) for view in views]
    jittered = [recoloured(view, generator) for view in views]
    errors = {("identity", "none"): mean_corner_error(IDENTITY.expand_as(targets), targets)}
    for name in names:
        model = study.load_warp(study.train(name))
        for jitter, pair in {"none": plain, "jitter": jittered}.items():
            errors[name, jitter] = mean_corner_error(quadrilaterals(model, *pair), targets)
    rows = [
        {
            "quadrilaterals": name,
            "colours": "as they are" if jitter == "none" else "with the jitter of training",
            "mean corner error": float(error.mean()),
            "standard error": float(error.std() / len(error) ** 0.5),
            "pairs": len(error),
        }
        for (name, jitter), error in errors.items()
    ]
    return pd.DataFrame(rows).round(4)


@torch.inference_mode()
def quadrilaterals(model, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """What a `study.load_warp` model estimates for pairs of normalised images, (B, 3, H, W) each.

    Returns
    -------
    float32 (B, 2, 4, 2) on the CPU: the corners in the first and in the second image, in -1..1.
    """
    device = next(model.regression.parameters()).device
    estimates = [
        symmetric(model.regression, model.local(a.to(device)), model.local(b.to(device))).cpu()
        for a, b in zip(first.split(32), second.split(32), strict=True)
    ]
    return torch.cat(estimates)


def soup_paths(study: "Study", names: Sequence[str], shares: Sequence[float]) -> pd.DataFrame:
    """R@1 on the straight lines between the weights of each two trainings, ends included.

    Parameters
    ----------
    shares : of the second training, where models are made between two.

    Returns
    -------
    A row a point: from, to, share of the second, and R@1 in percent on sf-xs and, as the mean of
    the other data sets, shifted.
    """
    rows = []
    for first, second in combinations(names, 2):
        for share in (0, *shares, 1):
            if share in (0, 1):
                model = study.train(second if share else first)
            else:
                model = study.soup((first, second), shares=(1 - share, share))
            results = {d.name: study.search(model, d) for d in study.data.test_sets.values()}
            row = {"from": first, "to": second, "share": share}
            rows.append(row | by_domain(results)["value"].to_dict())
    return pd.DataFrame(rows).round(2)


def by_domain(results: Mapping) -> pd.DataFrame:
    """{data set: Result} of one model -> its R@1 in domain and on shifted domains.

    Returns
    -------
    Rows "sf-xs" and "shifted" (the mean of the other data sets), columns value, ci_low and ci_high
    in percent, NaN where there is no such data set. The mean's interval is the mean of the
    intervals: no narrower than it has to be.
    """
    each = pd.DataFrame({name: measured(result, 1) for name, result in results.items()}).T
    shifted = each.drop(index=IN_DOMAIN, errors="ignore").mean()
    rows = pd.DataFrame({IN_DOMAIN: each.reindex([IN_DOMAIN]).iloc[0], "shifted": shifted}).T
    return rows[["value", "ci_low", "ci_high"]]


def backbone_costs(study: "Study", names: Sequence[str], photos: int = 128) -> pd.DataFrame:
    """What trained models cost: a row a model.

    Parameters
    ----------
    photos : this many validation photos are described, from files, for the speed.
    """
    paths, size = study.data.val.database.paths[:photos], study.profile.test_size
    rows = []
    for name in names:
        trained = study.train(name)
        model, fresh = study.load(trained), build(trained.backbone)
        freeze(fresh)
        describe(model, paths[:16], size, precision=precision())  # warms up
        began = time.perf_counter()
        describe(model, paths, size, precision=precision())
        speed = len(paths) / (time.perf_counter() - began)
        sizes = [parameter.numel() for parameter in fresh.parameters()]
        learned = [p.numel() for p in fresh.parameters() if p.requires_grad]
        row: dict[str, Any] = {"model": name, "backbone": trained.backbone}
        row |= {"parameters (millions)": sum(sizes) / 1e6, "trained (millions)": sum(learned) / 1e6}
        row |= {"photos described a second": speed, "training seconds": trained.seconds}
        row["validation R@1 of the start"] = validation(study, study.start(trained.backbone))
        rows.append(row | {"validation R@1": validation(study, trained)})
    return pd.DataFrame(rows).round(1)


def starts(study: "Study") -> pd.DataFrame:
    """What training by CosFace adds to the starting weights of each backbone.

    Returns
    -------
    A row for each backbone and data set: the name of the starting weights (a profile's `weights`),
    R@1 in percent of the start and of the trained model, each with its 95 % interval, the
    difference in points, and the p value of the exact paired test.
    """
    rows, sets = [], study.data.test_sets
    for backbone, name in PLAIN.items():
        start = study.start(backbone)
        before = {dataset: study.search(start, sets[dataset]) for dataset in sets}
        after = study.evaluate({name: Evaluation(name)})[name]
        for test in rows_of(paired_tests({"start": before, name: after}, "start")):
            row: dict[str, Any] = {"backbone": backbone, "dataset": test.dataset}
            row["weights"] = study.trainings.source(backbone)
            for stage, results in {"start": before, "trained": after}.items():
                value, low, high, row["queries"] = measured(results[test.dataset], 1).values()
                row |= {f"{stage} R@1": round(value, 2), f"{stage} ci_low": round(low, 2)}
                row[f"{stage} ci_high"] = round(high, 2)
            rows.append(row | {"difference": round(test.difference, 2), "p": test.p})
    return pd.DataFrame(rows)


def validation(study: "Study", model) -> float:
    """R@1 in percent of a trained model, a start or a soup on the validation photos."""
    return recall(study.search(model, study.data.val).first_hit, 1)
