"""Why gradient reversal, soups and scales do what they do in the city: variants of the trainings.

    python benchmarks/mechanisms.py [PROFILE, default city] [REAL]

The study's own trainings are found in the cache of ./run_all.sh where that has run; the variants
are trained. REAL is a folder that holds sf-xs/test: photographs, for the scales at larger sizes.
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
STRONGER = 10  # times the weight of gradient reversal
FASTER = 3  # times the learning rate of the extractor
NIGHT_PHOTOS = 400  # of gradient reversal, in place of the profile's
PIXELS = (128, 224, 320)  # of the photographs, both sides


def variant(study, epochs=1, weight=1, rate=1, night=None):
    """The study with so many times the epochs, the reversal's weight and the learning rate."""
    profile = study.profile
    training = replace(
        profile.training,
        epochs=epochs * profile.training.epochs,
        lr_model=rate * profile.training.lr_model,
    )
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


def reversal(study):
    """Gradient reversal with more weight, more night photos and more iterations."""
    photos, night = night_photos(study), study.data.test_sets["tokyo-night"]
    dark = np.isin(np.arange(len(night.whole.queries)), night.rows)
    plain, reversing = SECOND["CosFace"], SECOND["GRL"]
    cases = {
        "as in the study": {},
        f"weight x {STRONGER}": {"weight": STRONGER},
        f"{NIGHT_PHOTOS} night photos": {"night": photos},
        f"{NIGHT_PHOTOS} night photos, weight x {STRONGER}": {"night": photos, "weight": STRONGER},
    }
    for epochs, length in ((1, ""), (LONGER, f", iterations x {LONGER}")):
        without = f"without{length}"
        models = {without: (variant(study, epochs), plain)} | {
            words + length: (variant(study, epochs, **changes), reversing)
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
        yield rows.assign(**{TOLD: rows["condition"].map(told)})


def soups(study):
    """The uniform soup beside its ingredients, after trainings that moved further."""
    for words, changes in {
        "as in the study": {},
        f"iterations x {LONGER}": {"epochs": LONGER},
        f"iterations x {LONGER}, learning rate x {FASTER}": {"epochs": LONGER, "rate": FASTER},
    }.items():
        other = variant(study, **changes)
        names = [SECOND[name] for name in (*LOSSES, UNIFORM)]
        results = {f"{name}, {words}": of_model(other, name) for name in names}
        yield compared("soups", results, f"{names[0]}, {words}")


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


def scales(study, real):
    """Scales of a start that saw images of many sizes, of a training at one, and on photographs."""
    models = {"start": study.start(LITE), "trained": study.train(SECOND["CosFace"])}
    for words, model in models.items():
        for name, dataset in study.data.test_sets.items():
            yield at_scales(f"{words}, rendered", name, study.search, model, dataset)
        for size in PIXELS if real else ():
            search = at_size(study, size).search
            yield at_scales(f"{words}, {size} px", "photographs", search, model, photographs(real))


def main(profile="city", real=None):
    study = Study(profile)
    parts = []
    for part in (reversal(study), soups(study), scales(study, real)):
        for rows in part:
            parts.append(rows)
            pd.concat(parts).round(4).to_csv(OUT, index=False)
            print(rows.to_string(index=False), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
