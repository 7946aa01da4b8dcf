"""The findings: counted from the ledger, and limited by the data."""

import pandas as pd
import pytest

from vgeo.report.claims import CLAIMS, COSTS, TESTED, TOLERANCES
from vgeo.report.findings import (
    CHANGES,
    CLAIMED,
    DECIDED,
    QUOTED,
    changes,
    findings_table,
    limits,
    opposites,
    quotes,
    summary,
    tolerances,
)
from vgeo.study.rows import FAMILIES

FIRST, SECOND = FAMILIES


@pytest.fixture
def ledger():
    """A ledger of both families: every comparison is not decidable, with an effect of its own."""
    rows = []
    for family in FAMILIES:
        for _, claim in TESTED[family]:
            for dataset in claim.datasets:
                for metric in claim.metrics:
                    effect = 0.1 * len(rows)
                    numbers = [effect, effect - 1.0, effect + 2.0, 0.2, 3.0]
                    words = [claim.section, claim.quote, str(claim), family, dataset, metric]
                    rows.append([*words, *numbers, "not decidable"])
        if family == FIRST:
            for cost in COSTS:
                words = [cost.section, cost.quote, cost.name, family, "", "ratio of times"]
                rows.append([*words, 1.5, None, None, None, 1.5, "reproduced"])
    columns = ["section", "quote", "claim", "family", "dataset", "metric", "effect", "ci_low"]
    columns += ["ci_high", "p", "reported", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def where(ledger, claim, metric="R@1"):
    """The rows of a claim, by its words."""
    return (ledger["claim"] == claim) & (ledger["metric"] == metric)


def test_every_change_shows_claims_of_the_ledger():
    known = {str(claim): claim for claim in CLAIMS}
    assert len(CHANGES) == 7
    for change in CHANGES:
        for claim in change.shown.values():
            assert known[claim].section in change.sections and "R@1" in known[claim].metrics


def test_every_section_of_the_original_belongs_to_one_change():
    sections = [section for change in CHANGES for section in change.sections]
    assert len(sections) == len(set(sections))
    assert {each.section for each in (*CLAIMS, *COSTS)} == set(sections)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_verdicts_of_all_rows_add_up_to_the_ledger(ledger, family):
    ledger.loc[ledger.index[::3], "verdict"] = "contradicted"
    of_family = ledger.loc[ledger["family"] == family, "verdict"]
    counts = [(of_family == verdict).sum() for verdict in DECIDED]
    last = changes(ledger)[family].str.split("\n").str[-1]
    cells = last.str.split(" / ", expand=True).astype(int)
    assert cells.sum().tolist() == counts and sum(counts) == len(of_family)


def test_an_effect_is_the_ledger_s_in_each_family(ledger):
    columns = ["effect", "ci_low", "ci_high", "p"]
    chosen = where(ledger, "Table 2: GRL better than baseline")
    ledger.loc[chosen, columns] = [12.34, 1.26, 23.47, 0.0123]
    chosen = where(ledger, "Table 2: EffLite0: GRL better than EffLite0: baseline")
    ledger.loc[chosen & (ledger["dataset"] == "tokyo-xs"), columns] = [-2.0, -3.0, 0.5, 0.06]
    row = changes(ledger).set_index("change").loc["gradient reversal"]
    assert row[FIRST].splitlines()[0] == ", ".join(["+12.3* (1.3 to 23.5)"] * 3)
    assert row[SECOND].split(", ")[1] == "-2.0 (-3.0 to 0.5)"
    assert row[SECOND].splitlines()[-1] == "0 / 0 / 6" and len(row[SECOND].splitlines()) == 2


def test_what_the_original_says_and_prints_stands_beside(ledger):
    claim = "Table 2: GRL better than baseline"
    ledger.loc[where(ledger, claim), "reported"] = [2.4, 3.5, 8.6]
    row = changes(ledger).set_index("change").loc["gradient reversal"]
    assert row[CLAIMED] == "+2.4, +3.5, +8.6"
    assert row[QUOTED] == f"“{ledger.loc[where(ledger, claim), 'quote'].iloc[0]}”"


def test_data_sets_are_named_where_a_claim_is_not_about_all(ledger):
    table = changes(ledger).set_index("change")
    assert table.loc["brightness filter 0.15", SECOND].startswith("tokyo-night +")
    soup, sif, _ = table.loc["soups and ensembles", FIRST].splitlines()
    assert soup.startswith("soup: +") and sif.startswith("SIF: sf-xs and tokyo-xs +")


def test_a_data_set_without_a_result(ledger):
    gone = ledger["dataset"] == "tokyo-night"
    ledger.loc[gone, ["effect", "ci_low", "ci_high", "p"]] = None
    assert changes(ledger).loc[1, FIRST].splitlines()[0].endswith(", no data")


def test_the_summary_counts_each_family_and_where_both_agree(ledger):
    chosen = ledger["claim"].isin(
        [
            "Table 2: GRL better than baseline",
            "Table 4: baseline + GeoWarp better than baseline",
            "Table 4: EffLite0: baseline + GeoWarp better than EffLite0: baseline",
        ]
    )
    ledger.loc[chosen, "verdict"] = "reproduced"  # GRL in one family, GeoWarp in both
    chosen = ledger["claim"] == "Table 2: EffLite0: GRL better than EffLite0: baseline"
    ledger.loc[chosen & (ledger["dataset"] == "sf-xs"), "verdict"] = "contradicted"
    second = (ledger["family"] == SECOND).sum()
    open_, text = second - 2 - 3, summary(ledger)
    share = f"{open_} ({100 * open_ / second:.0f} %)"
    assert f"3 reproduced, 2 contradicted and {share} not decidable with {SECOND}" in text
    # GRL's six comparisons differ, two of them are opposite; GeoWarp's three agree, decided
    assert f"agree in {second - 6} of {second} comparisons (3 of them decided)" in text
    assert text.endswith("are opposite in 2.")
    assert opposites(ledger) == [
        f"Opposite: “Table 2: GRL better than baseline” is reproduced with {FIRST} and "
        f"contradicted with {SECOND} (sf-xs R@1 and sf-xs R@5)."
    ]


def test_quotes_count_what_is_decided_a_family(ledger):
    first, second = list(ledger["quote"].unique())[:2]
    some = ledger["quote"].isin([first, second])
    ledger.loc[some & (ledger["family"] == FIRST), "verdict"] = "reproduced"
    one = ledger.index[(ledger["quote"] == second) & (ledger["family"] == SECOND)][0]
    ledger.loc[one, "verdict"] = "contradicted"
    count = ledger.groupby(["quote", "family"]).size()
    assert [line for line in quotes(ledger) if first in line or second in line] == [
        f"Reproduced: “{first}” ({count[first, FIRST]} of {count[first, FIRST]} with {FIRST}).",
        f"Reproduced: “{second}” ({count[second, FIRST]} of {count[second, FIRST]} with {FIRST}).",
        f"Contradicted: “{second}” (1 of {count[second, SECOND]} with {SECOND}).",
    ]


def test_families_that_agree_are_not_opposite(ledger):
    assert opposites(ledger) == [] and summary(ledger).endswith("are opposite in 0.")


@pytest.fixture
def starts():
    """What `measures.starts` writes: ResNet18's training moves nothing clearly, Lite0's does."""
    moves = {
        "resnet18": ("city", [2, -3, 20], [0.2, 0.05, 0.6]),
        "efficientnet_v2_s": ("city", [1, 1, 1], [0.001, 0.001, 0.001]),
        "efficientnet_lite0": ("imagenet", [0, 5.26, 9], [0.3, 0.01, 0.0001]),
    }
    rows = [
        (backbone, dataset, weights, *numbers)
        for backbone, (weights, points, ps) in moves.items()
        for dataset, *numbers in zip(("sf-xs", "tokyo-xs", "tokyo-night"), points, ps, strict=True)
    ]
    return pd.DataFrame(rows, columns=["backbone", "dataset", "weights", "difference", "p"])


@pytest.fixture
def measured(tmp_path, starts):
    """A folder with Table 1, the data sets' counts and the starts."""
    folder = tmp_path / "tables"
    folder.mkdir()
    columns = ["condition", "dataset", "metric", "value", "ci_low", "ci_high", "queries"]
    rows = [
        (condition, dataset, "R@1", 50.0, 45.0, 55.0, 300)
        for condition in ("CosFace", "EffLite0: CosFace")
        for dataset in ("sf-xs", "tokyo-xs", "tokyo-night")
    ]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "table_01.csv", index=False)
    counts = {"dataset": ["sf-xs val", "sf-xs", "tokyo-xs"], "database": [9, 2000, 1000]}
    counts |= {"chance R@1, %": [50.0, 1.24, 0.9]}
    pd.DataFrame(counts).to_csv(folder / "data_sets.csv", index=False)
    starts.to_csv(folder / "starts.csv", index=False)
    return tmp_path


def test_the_limits_are_computed(measured):
    queries, databases, training = limits(measured)
    assert queries == (
        "Queries: 300 on sf-xs, 300 on tokyo-xs and 300 on tokyo-night. "
        "The 95 % interval of the baseline's R@1 is ± 5, 5 and 5 points there."
    )
    assert databases == (
        "Databases of sf-xs and tokyo-xs: 2,000 and 1,000 photos. Chance R@1 is 1.2 and 0.9 %."
    )
    assert training == (
        "Trainings start: ResNet18 and EfficientNetV2-S from the weights of "
        "vgeo/models/pretrained, EfficientNet-Lite0 from ImageNet weights. Training by CosFace "
        "moves R@1 on sf-xs, tokyo-xs and tokyo-night: ResNet18's by +2.0, -3.0 and "
        "+20.0 points; EfficientNetV2-S's by +1.0*, +1.0* and +1.0* points; EfficientNet-Lite0's "
        "by +0.0, +5.3* and +9.0* points (* where p < 0.05). So comparisons of ResNet18's "
        "trainings say little about the techniques. Comparisons of backbones (Table 5) compare "
        "these starts too."
    )


def test_one_source_of_all_starts_is_said_once(measured, starts):
    starts.assign(weights="imagenet", p=0.01).to_csv(measured / "tables/starts.csv", index=False)
    training = limits(measured)[-1]
    names = "ResNet18, EfficientNetV2-S and EfficientNet-Lite0"
    assert training.startswith(f"Trainings start: {names} from ImageNet weights. ")
    assert "say little" not in training and "Table 5" not in training


def test_trainings_that_move_nothing_are_said_to_tell_little(measured, starts):
    starts.assign(p=0.5).to_csv(measured / "tables" / "starts.csv", index=False)
    names = "ResNet18, EfficientNetV2-S and EfficientNet-Lite0"
    words = f"comparisons of {names}'s trainings say little"
    assert words in limits(measured)[-1]


def test_without_the_starts_nothing_is_said_of_them(measured):
    (measured / "tables" / "starts.csv").unlink()
    assert len(limits(measured)) == 2 and not any("start" in line for line in limits(measured))


def test_a_folder_without_tables_has_no_limits(tmp_path):
    assert limits(tmp_path) == []


def test_the_findings_begin_with_what_the_data_can_tell(results):
    claims, said = pd.read_csv(results / "tables" / "claims.csv"), limits(results)
    lines = findings_table(results / "tables" / "claims.csv", said).splitlines()
    first = [summary(claims), *said]
    assert lines[: len(first)] == [f"- {line}" for line in first]
    rows = [line for line in lines if line.startswith("| ")]
    assert len(rows) == 2 + 7 and len({line.count(" | ") for line in rows}) == 1


def test_other_tolerances_are_counted(ledger):
    assert tolerances(ledger) == ""
    for name in TOLERANCES:
        ledger[name] = ledger["verdict"]
    ledger.loc[ledger["family"] == SECOND, "margin 10"] = "reproduced"
    first, second = ((ledger["family"] == family).sum() for family in FAMILIES)
    costs = len(COSTS)
    same = f"{costs} / 0 / {first - costs} and 0 / 0 / {second}"
    assert tolerances(ledger) == (
        "These counts are for alpha 0.05 and a margin of 5 points. "
        f"Alpha 0.01: {same}; alpha 0.10: {same}; margin 3: {same}; "
        f"margin 10: {costs} / 0 / {first - costs} and {second} / 0 / 0."
    )
