"""The comparison of the city's verdicts with photographs, counted by hand, and its table."""

import numpy as np
import pandas as pd
import pytest
import real
from report.report_case import CITY
from report.test_documents import clone as clone  # a fixture

from vgeo.report.documents import REAL, RELEASED, documents


@pytest.fixture
def ledger():
    return pd.read_csv(CITY / "claims.csv")


def test_signs_are_compared_for_the_claims_about_the_photographs_data_set(ledger):
    photos = ledger.assign(effect=-ledger["effect"]).sample(frac=1, random_state=0)
    photos.loc[photos["dataset"] != "sf-xs", "verdict"] = "no data"
    both = real.compare(ledger, photos)
    tested = ledger[(ledger["dataset"] == "sf-xs")]
    assert len(both) == len(tested) and (both["effect real"] == -both["effect city"]).all()
    assert (both["same sign"] == (both["effect city"] == 0)).all()
    assert real.compare(ledger, ledger)["same sign"].all()
    lost = ledger.assign(verdict=np.where(ledger["section"] == "5.2", "no data", ledger["verdict"]))
    assert len(real.compare(ledger, lost)) < len(tested)


def test_the_table_counts_the_clear_verdicts_of_this_release_alone(clone, ledger):
    path, page = clone / REAL, clone / "docs/results.md"
    path.parent.mkdir(parents=True)
    clear = (ledger["dataset"] == "sf-xs") & (ledger["p"] < 0.05)
    clear &= ledger["verdict"].isin(["reproduced", "contradicted"])
    first = ledger.index[clear & (ledger["verdict"] == "reproduced")][0]
    photos = ledger.copy()
    photos.loc[first, ["effect", "p"]] = [-photos.loc[first, "effect"], 0.001]
    real.compare(ledger, photos).to_csv(path, index=False)
    chosen = ledger[clear & (ledger["verdict"] == "reproduced")]
    family = ledger.loc[first, "family"]
    count = (chosen["family"] == family).sum()
    line = f"| {family} | reproduced | {count} | {count - 1} | 1 |"
    assert line in documents(clone)[page]
    table = clone / RELEASED / "tables" / "claims.csv"
    ledger.assign(effect=ledger["effect"] + 1).to_csv(table, index=False)
    assert line not in documents(clone)[page]
