"""Why gradient reversal, soups and scales do what they do in the city: variants of the trainings.

    python benchmarks/mechanisms.py [PROFILE, default city] [REAL]

The study's own trainings are found in the cache of ./run_all.sh where that has run; the variants
are trained. REAL is a folder that holds sf-xs/test: photographs, for the scales.
Nothing is chosen by what comes out. Results are written to benchmarks/results/mechanisms.csv.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from real import at_size, photographs

from vgeo.city.plan import Plan
from vgeo.city.write import write_city
from vgeo.photos.layout import NIGHT_TARGET
from vgeo.photos.tables import read_photos
from vgeo.report import measures, tables
from vgeo.report.documents import TOLD
from vgeo.retrieval.multiscale import SCALES
from vgeo.study.rows import LITE, LOSSES, SECOND, UNIFORM, Evaluation
from vgeo.study.study import Study

OUT = Path(__file__).parent / "results" / "mechanisms.csv"
LONGER = 4  # times as many epochs
STRONGER = (3, 10)  # times the weight of gradient reversal
NIGHT_PHOTOS = 400  # of gradient reversal, in place of the profile's
PIXELS = 128  # of the photographs, both sides


def variant(study, epochs=1, weight=1, night=None):
    """The study with so many times the epochs and the weight of gradient reversal."""
    profile = study.profile
    training = replace(profile.training, epochs=epochs * profile.training.epochs)
    reversal = replace(profile.grl, weight=weight * profile.grl.weight)
    other = Study(replace(profile, training=training, grl=reversal), results=study.results)
    if night is not None:
        other.data.night = night
    return other


def night_photos(study):
    """Many night photos of the streets that the profile's few are of."""
    plan = Plan(
        size=study.profile.city.size,
        seed=study.profile.city.seed,
        train_districts=0,
        val_blocks=0,
        test_blocks=0,
        tokyo_blocks=0,
        night_target=NIGHT_PHOTOS,
    )
    recipe = {"plan": plan.__dict__}
    folder = study.cache.step(
        "data", "render night photos", recipe, lambda to: write_city(plan, to), ("vgeo.city.write",)
    )
    return read_photos(folder / NIGHT_TARGET)


def compared(question, results, against):
    """R@1 of each condition, and its difference to the condition `against`, as rows."""
    tests = tables.paired_tests(results, against)[["condition", "dataset", "difference", "p"]]
    rows = measures.recalls(results).merge(tests, on=["condition", "dataset"], how="left")
    return rows.assign(question=question, against=against)


def of_model(study, name):
    """{data set: Result} of a training of the study."""
    return study.evaluate({name: Evaluation(name)})[name]


def reversal(study, epochs=1):
    """Gradient reversal with more night photos and, in short trainings, with more weight."""
    photos, night = night_photos(study), study.data.test_sets["tokyo-night"]
    dark = np.isin(np.arange(len(night.whole.queries)), night.rows)
    cases = {"as in the study": {}, f"{NIGHT_PHOTOS} night photos": {"night": photos}}
    if epochs == 1:
        cases |= {
            f"{words}, weight x {times}": changes | {"weight": times}
            for times in STRONGER
            for words, changes in cases.items()
        }
    without = f"without{longer(epochs)}"
    models = {without: (variant(study, epochs), SECOND["CosFace"])} | {
        words + longer(epochs): (variant(study, epochs, **changes), SECOND["GRL"])
        for words, changes in cases.items()
    }
    results = {words: of_model(other, name) for words, (other, name) in models.items()}
    told = {
        words: measures.domains_told_apart(
            other.describe(other.train(name), night.whole.queries), dark
        )
        for words, (other, name) in models.items()
    }
    rows = compared("reversal", results, without)
    return rows.assign(**{TOLD: rows["condition"].map(told)})


def soups(study, epochs=1):
    """The uniform soup beside its ingredients."""
    other = variant(study, epochs)
    names = [SECOND[name] for name in (*LOSSES, UNIFORM)]
    results = {name + longer(epochs): of_model(other, name) for name in names}
    return compared("soups", results, names[0] + longer(epochs))


def longer(epochs):
    """What a condition's name gets where its trainings have more epochs."""
    return "" if epochs == 1 else f", iterations x {epochs}"


def at_scales(words, name, search, model, dataset):
    """Rows for each scale alone and for the average on the database's side.

    `search` is that of an Evaluations, `name` what the data set is called in the rows.
    """
    results = {
        f"{words}, scale {scale:g} alone": {name: search(model, dataset, scale=scale)}
        for scale in SCALES
    }
    results[f"{words}, average"] = {name: search(model, dataset, multiscale="avg")}
    return compared("scales", results, f"{words}, scale 1 alone")


def rendered_scales(study):
    """Scales of a start that saw images of many sizes, and of a training at one."""
    for words, model in start_and_trained(study):
        for name, dataset in study.data.test_sets.items():
            yield at_scales(f"{words}, rendered", name, study.search, model, dataset)


def photographed_scales(study, real):
    """The same of photographs."""
    search = at_size(study, PIXELS).search
    for words, model in start_and_trained(study):
        yield at_scales(f"{words}, {PIXELS} px", "photographs", search, model, photographs(real))


def start_and_trained(study):
    """The start of EfficientNet-Lite0 and its CosFace training, with words for each."""
    return [("start", study.start(LITE)), ("trained", study.train(SECOND["CosFace"]))]


def measured(study, real):
    """Rows of mechanisms.csv."""
    yield reversal(study)
    yield soups(study)
    yield from rendered_scales(study)
    if real:
        yield from photographed_scales(study, real)
    yield reversal(study, LONGER)
    yield soups(study, LONGER)


def main(profile="city", real=None):
    parts = []
    for rows in measured(Study(profile), real):
        parts.append(rows)
        pd.concat(parts).round(4).to_csv(OUT, index=False)
        print(rows.to_string(index=False), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
