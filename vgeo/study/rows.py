"""Which training and which evaluation every table row is: data, which `study.Study` turns into results."""

from dataclasses import dataclass, replace

from vgeo.retrieval.multiscale import METHODS

DATASETS = (
    "sf-xs",
    "tokyo-xs",
    "tokyo-night",
)  # the columns of every table, spelled as in the report


RESNET, EFFNET = "resnet18", "efficientnet_v2_s"


NIGHT_BRIGHTNESS = (
    0.15  # "from now on, if not specified, when the filter is involved" (the report, section 4.1)
)


# name of a trained model -> how it is trained, as fields of `train.Recipe`
TRAININGS = {
    "CosFace": {"backbone": RESNET, "margin": "CosFace"},  # the report's baseline from section 2 on
    "SphereFace": {"backbone": RESNET, "margin": "SphereFace"},
    "ArcFace": {"backbone": RESNET, "margin": "ArcFace"},
    "GRL": {"backbone": RESNET, "margin": "CosFace", "method": "GRL"},
    "GeoWarp": {"backbone": RESNET, "margin": "CosFace", "method": "GeoWarp"},
    # what each of GeoWarp's losses adds
    "GeoWarp, self-supervised": {
        "backbone": RESNET,
        "margin": "CosFace",
        "method": "GeoWarp",
        "without": ("feature_wise", "consistency"),
    },
    "GeoWarp, no consistency": {
        "backbone": RESNET,
        "margin": "CosFace",
        "method": "GeoWarp",
        "without": ("consistency",),
    },
    "EffV2s": {"backbone": EFFNET, "margin": "CosFace"},
    "EffV2s + GRL": {"backbone": EFFNET, "margin": "CosFace", "method": "GRL"},
    "EffV2s + GeoWarp": {"backbone": EFFNET, "margin": "CosFace", "method": "GeoWarp"},
}


SOUPS = ("Model Soup", "uniform soup")  # greedy, and of all three


LOSSES = ("CosFace", "ArcFace", "SphereFace")  # the soups' ingredients, in Table 6's order


SHARES = (0.25, 0.5, 0.75)  # of the second, on the line between two ingredients (Figure 4)


BRIGHTNESS = (0.1, 0.15, 0.2, 0.3, 0.4)  # Table 3's factors


MORE_BRIGHTNESS = (0.05, 0.6, 0.8)  # section 4.1 speaks of lower and higher ones


@dataclass(frozen=True)
class Evaluation:
    """How a row's predictions are made from a model.

    model: a name of TRAININGS or SOUPS. night: brightness factor of the database where tokyo-night's queries
    are looked up. multiscale: an entry of `multiscale.METHODS`, on the descriptors of `side`: "database", "query" or "both". scale: of all
    other descriptors. rerank: with the model's own warping regression.
    """

    model: str
    night: float = 1.0
    multiscale: str | None = None
    side: str = "database"
    scale: float = 1.0
    rerank: bool = False


@dataclass(frozen=True)
class Fusion:
    """Two rows' predictions merged: method "NIF", "SIF" or "RRF"."""

    method: str
    first: Evaluation
    second: Evaluation


def _multiscale(row):
    """Tables 8 to 13: a row without multi-scale, the report's four, and those on the other sides."""
    rows = {"/": row(None, "database")} | {method: row(method, "database") for method in METHODS}
    return rows | {
        f"{method}, {words}": row(method, side)
        for side, words in (("query", "query side"), ("both", "both sides"))
        for method in METHODS
    }


def _tables():
    base, grl, warp = Evaluation("CosFace"), Evaluation("GRL"), Evaluation("GeoWarp", rerank=True)
    eff, eff_grl = (
        Evaluation("EffV2s", NIGHT_BRIGHTNESS),
        Evaluation("EffV2s + GRL", NIGHT_BRIGHTNESS),
    )
    eff_warp = Evaluation("EffV2s + GeoWarp", NIGHT_BRIGHTNESS, rerank=True)
    fused = {
        f"GeoWarp + GRL ({method})": Fusion(method, eff_warp, eff_grl)
        for method in ("NIF", "SIF", "RRF")
    }
    return {
        1: {name: Evaluation(name) for name in ("CosFace", "SphereFace", "ArcFace")},
        2: {"baseline": base, "GRL": grl},
        3: {
            f"{name} brightness={f if f < 1 else 'none'}": replace(row, night=f)
            for f in (1.0, *BRIGHTNESS, *MORE_BRIGHTNESS)
            for name, row in (("baseline", base), ("GRL", grl))
        },
        4: {
            "baseline": base,
            "baseline + GeoWarp (before re-ranking)": replace(warp, rerank=False),
            "baseline + GeoWarp": warp,
        },
        5: {
            "baseline": base,
            "ResNet18 + GeoWarp": warp,
            "ResNet18 + GRL": grl,
            "EffV2s": eff,
            "EffV2s + GeoWarp (before re-ranking)": replace(eff_warp, rerank=False),
            "EffV2s + GeoWarp": eff_warp,
            "EffV2s + GRL": eff_grl,
            "EffV2s (no brightness filter)": replace(eff, night=1.0),
        },
        6: {name: Evaluation(name) for name in (*LOSSES, *SOUPS)},
        7: {"GeoWarp": eff_warp, "GRL": eff_grl, **fused},
        8: _multiscale(lambda method, side: replace(grl, multiscale=method, side=side)),
        9: _multiscale(lambda method, side: replace(warp, multiscale=method, side=side)),
        10: _multiscale(lambda method, side: replace(eff_grl, multiscale=method, side=side)),
        11: _multiscale(lambda method, side: replace(eff_warp, multiscale=method, side=side)),
        12: _multiscale(
            lambda method, side: Fusion(
                "SIF", *(replace(row, multiscale=method, side=side) for row in (eff_warp, eff_grl))
            )
        ),
        13: _multiscale(
            lambda method, side: Fusion(
                "NIF", *(replace(row, multiscale=method, side=side) for row in (eff_warp, eff_grl))
            )
        ),
    }


# table -> {condition, spelled as in `data/report_tables.csv` where the report has it: how its predictions are made}
TABLES = _tables()


def backbone_of(name):
    """The backbone of a training or a soup."""
    return (
        RESNET if name in SOUPS else TRAININGS[name]["backbone"]
    )  # the soups' ingredients are ResNet18s
