"""Which training and which evaluation every table row is: data, which the study turns into
results.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from vgeo.retrieval.multiscale import METHODS
from vgeo.study.data import Data
from vgeo.study.profiles import Profile
from vgeo.training.geowarp import GeoWarp
from vgeo.training.grl import GradientReversal
from vgeo.training.technique import Technique

RESNET, EFFNET, LITE = "resnet18", "efficientnet_v2_s", "efficientnet_lite0"
# "from now on, if not specified, when the filter is involved" (the original, section 4.1)
NIGHT_BRIGHTNESS = 0.15


def _reversal(profile: Profile, data: Data) -> Technique:
    return GradientReversal(profile.grl, data.night)


def _warping(profile: Profile, data: Data) -> Technique:
    return GeoWarp(profile.geowarp)


def _warping_without_consistency(profile: Profile, data: Data) -> Technique:
    return GeoWarp(replace(profile.geowarp, consistency_weight=0.0))


def _warping_self_supervised(profile: Profile, data: Data) -> Technique:
    return GeoWarp(replace(profile.geowarp, consistency_weight=0.0, feature_wise_weight=0.0))


@dataclass(frozen=True)
class TrainingRow:
    """How a model is trained.

    Attributes
    ----------
    backbone, margin : names in `models.network.BACKBONES` and `training.losses.MARGINS`.
    technique : makes what is trained along with the extractor from a profile and its data; None for
        CosPlace alone.
    base : the training whose extractor is used where the technique's layers are trained beside a
        finished one.
    """

    backbone: str
    margin: str = "CosFace"
    technique: Callable[[Profile, Data], Technique] | None = None
    base: str | None = None


TRAININGS = {
    "CosFace": TrainingRow(RESNET),  # the original's baseline from section 2 on
    "SphereFace": TrainingRow(RESNET, "SphereFace"),
    "ArcFace": TrainingRow(RESNET, "ArcFace"),
    "GRL": TrainingRow(RESNET, technique=_reversal),
    "GeoWarp": TrainingRow(RESNET, technique=_warping, base="CosFace"),
    "EffV2s": TrainingRow(EFFNET),
    "EffV2s + GRL": TrainingRow(EFFNET, technique=_reversal),
    "EffV2s + GeoWarp": TrainingRow(EFFNET, technique=_warping, base="EffV2s"),
    "EffLite0": TrainingRow(LITE),
    "EffLite0 SphereFace": TrainingRow(LITE, "SphereFace"),
    "EffLite0 ArcFace": TrainingRow(LITE, "ArcFace"),
    "EffLite0 + GRL": TrainingRow(LITE, technique=_reversal),
    "EffLite0 + GeoWarp": TrainingRow(LITE, technique=_warping, base="EffLite0"),
}

# Regressions with fewer of GeoWarp's losses. No table has a row of them: they are trained by
# benchmarks/geowarp_losses.py alone.
ABLATIONS = {
    "GeoWarp, self-supervised": TrainingRow(
        RESNET, technique=_warping_self_supervised, base="CosFace"
    ),
    "GeoWarp, no consistency": TrainingRow(
        RESNET, technique=_warping_without_consistency, base="CosFace"
    ),
}

LOSSES = ("CosFace", "ArcFace", "SphereFace")  # the soups' ingredients, in Table 6's order
GREEDY, UNIFORM = "Model Soup", "uniform soup"

# The families of rows: the original's, and the same rows with the models of one other backbone.
FAMILIES = ("ResNet18, EffV2s", "EffLite0")
# model of the original's rows -> the model of the second family that stands for it
SECOND = {
    "CosFace": "EffLite0",
    "SphereFace": "EffLite0 SphereFace",
    "ArcFace": "EffLite0 ArcFace",
    "GRL": "EffLite0 + GRL",
    "GeoWarp": "EffLite0 + GeoWarp",
    "EffV2s": "EffLite0",
    "EffV2s + GRL": "EffLite0 + GRL",
    "EffV2s + GeoWarp": "EffLite0 + GeoWarp",
    GREEDY: "EffLite0 Model Soup",
    UNIFORM: "EffLite0 uniform soup",
}


@dataclass(frozen=True)
class Soup:
    """A model whose weights are the mean of several trainings' weights.

    Attributes
    ----------
    ingredients : names of TRAININGS with one backbone.
    greedy : whether validation R@1 chooses some of them. Otherwise all are averaged.
    """

    ingredients: tuple[str, ...]
    greedy: bool


SOUPS = {GREEDY: Soup(LOSSES, greedy=True), UNIFORM: Soup(LOSSES, greedy=False)}
SOUPS |= {
    SECOND[name]: replace(soup, ingredients=tuple(SECOND[each] for each in soup.ingredients))
    for name, soup in SOUPS.items()
}
SHARES = (0.25, 0.5, 0.75)  # of the second ingredient, on the line between two (Figure 4)
BRIGHTNESS = (0.1, 0.15, 0.2, 0.3, 0.4)  # Table 3's factors
MORE_BRIGHTNESS = (0.05, 0.6, 0.8)  # section 4.1 speaks of lower and higher ones


@dataclass(frozen=True)
class Evaluation:
    """How a row's predictions are made from a model.

    Attributes
    ----------
    model : a name of TRAININGS, ABLATIONS or SOUPS.
    night : the brightness factor of the database where tokyo-night's queries are looked up.
    multiscale : an entry of `multiscale.METHODS`, on the descriptors of `side`; None for one scale.
    side : "database", "query" or "both".
    scale : the scale of the descriptors that are not aggregated.
    rerank : whether the model's own warping regression orders the first predictions anew.
    points : whether the points that XFeat finds in both photos order them anew.
    """

    model: str
    night: float = 1.0
    multiscale: str | None = None
    side: str = "database"
    scale: float = 1.0
    rerank: bool = False
    points: bool = False

    def brightness(self, dataset: str) -> float:
        """The brightness factor of a data set's database."""
        return self.night if dataset == "tokyo-night" else 1.0


@dataclass(frozen=True)
class Fusion:
    """Two rows' predictions merged by a method of `evaluation.FUSIONS`."""

    method: str
    first: Evaluation
    second: Evaluation

    def at(self, multiscale: str | None, side: str) -> "Fusion":
        """The same fusion of both rows at several scales."""
        first, second = (
            replace(row, multiscale=multiscale, side=side) for row in (self.first, self.second)
        )
        return Fusion(self.method, first, second)


Row = Evaluation | Fusion


SIDES = {"database": "", "query": ", query side", "both": ", both sides"}


def _at_scales(row: Row, sides: Iterable[str] = ("database",)) -> dict[str, Row]:
    """Tables 8 to 13: a row at one scale, and the original's four methods on each of the sides."""

    def at(multiscale: str | None, side: str) -> Row:
        if isinstance(row, Fusion):
            return row.at(multiscale, side)
        return replace(row, multiscale=multiscale, side=side)

    several = {f"{method}{SIDES[side]}": at(method, side) for side in sides for method in METHODS}
    return {"/": at(None, "database"), **several}


def _tables() -> dict[int, dict[str, Row]]:
    base, grl, warp = Evaluation("CosFace"), Evaluation("GRL"), Evaluation("GeoWarp", rerank=True)
    eff = Evaluation("EffV2s", NIGHT_BRIGHTNESS)
    eff_grl = Evaluation("EffV2s + GRL", NIGHT_BRIGHTNESS)
    eff_warp = Evaluation("EffV2s + GeoWarp", NIGHT_BRIGHTNESS, rerank=True)
    darkened: dict[str, Row] = {
        f"{name} brightness={factor if factor < 1 else 'none'}": replace(row, night=factor)
        for factor in (1.0, *BRIGHTNESS, *MORE_BRIGHTNESS)
        for name, row in (("baseline", base), ("GRL", grl))
    }
    fused: dict[str, Row] = {
        f"GeoWarp + GRL ({method})": Fusion(method, eff_warp, eff_grl)
        for method in ("NIF", "SIF", "NIF by rank", "RRF")
    }
    return {
        1: {name: Evaluation(name) for name in ("CosFace", "SphereFace", "ArcFace")},
        2: {"baseline": base, "GRL": grl},
        3: darkened,
        4: {
            "baseline": base,
            "baseline + GeoWarp (before re-ranking)": replace(warp, rerank=False),
            "baseline + GeoWarp": warp,
            "baseline + XFeat": replace(base, points=True),
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
        6: {name: Evaluation(name) for name in (*LOSSES, GREEDY, UNIFORM)},
        7: {"GeoWarp": eff_warp, "GRL": eff_grl, **fused},
        # The other sides are ours. They stay where no pair of photos is warped for them.
        8: _at_scales(grl, SIDES),
        9: _at_scales(warp),
        10: _at_scales(eff_grl, SIDES),
        11: _at_scales(eff_warp),
        12: _at_scales(Fusion("SIF", eff_warp, eff_grl)),
        13: _at_scales(Fusion("NIF", eff_warp, eff_grl)),
    }


_ORIGINAL = _tables()


def counterpart(table: int, condition: str) -> str:
    """The condition of the second family that stands for one of the original's rows.

    It is the same condition where there is none: in Table 5, which compares backbones, a ResNet18's
    row, and everywhere a model that SECOND does not have.
    """
    row, family = _ORIGINAL[table][condition], FAMILIES[1]
    if not _models(row) <= SECOND.keys():
        return condition
    return condition.replace("EffV2s", family) if table == 5 else f"{family}: {condition}"


def _models(row: Row) -> set[str]:
    return {row.first.model, row.second.model} if isinstance(row, Fusion) else {row.model}


def _second(row: Row) -> Row:
    """The same row with the second family's models."""
    if isinstance(row, Fusion):
        first, second = (
            replace(each, model=SECOND[each.model]) for each in (row.first, row.second)
        )
        return Fusion(row.method, first, second)
    return replace(row, model=SECOND[row.model])


def _second_tables() -> dict[int, dict[str, Row]]:
    return {
        table: {
            other: _second(row)
            for condition, row in rows.items()
            if (other := counterpart(table, condition)) != condition
        }
        for table, rows in _ORIGINAL.items()
    }


_OF_FAMILY = dict(zip(FAMILIES, (_ORIGINAL, _second_tables()), strict=True))
# table -> {condition: its row}. The original's rows come first, spelled as in
# `report/data/report_tables.csv` where the original prints them, then those of the second family.
TABLES = {table: rows | _OF_FAMILY[FAMILIES[1]][table] for table, rows in _ORIGINAL.items()}


def conditions_of(table: int, family: str) -> list[str]:
    """The conditions of a table's rows that belong to one of FAMILIES."""
    return list(_OF_FAMILY[family][table])


def backbone_of(model: str) -> str:
    """The backbone of a training or a soup."""
    return TRAININGS[SOUPS[model].ingredients[0] if model in SOUPS else model].backbone
