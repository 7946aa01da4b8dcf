"""Bad input is answered in one line that names the culprit and the remedy, and costs nothing that was computed before. The cases: bad_input.py."""

import csv
import os

import numpy as np
import pytest
from bad_input import CASES, OWNED, Bench, copy_of_data, starting_weights
from hypothesis import given, settings
from hypothesis import strategies as st

from vgeo.errors import VgeoError, printable
from vgeo.photos.names import FIELDS, format_name, parse_name
from vgeo.photos.tables import read_csv


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    top = tmp_path_factory.mktemp("whole")
    return copy_of_data(top / "data"), starting_weights(top / "weights")


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_answered_in_one_line(whole, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)  # where a name that reached a shell would leave its file
    case, bench = CASES[name], Bench(tmp_path / "bench", *whole)
    answer, code = bench.answer(case)
    if case.words:
        assert code in (1, 2) and answer.isprintable() and answer.startswith("vgeo")
        assert all(words in answer for words in case.words), answer
        assert "Traceback" not in answer and len(answer) < 1000
    else:
        assert answer == "", answer
    assert (bench.kept[0] / "hours").read_text() == "of work" and (
        bench.kept[0] / "sums.json"
    ).exists()
    assert not OWNED.exists() and os.listdir(tmp_path) == ["bench"]


def test_there_are_many():
    assert sum(bool(case.words) for case in CASES.values()) >= 60


# Coordinates, fuzzed

anything = st.text(st.characters(exclude_categories=[], exclude_characters="\0/"), max_size=12)
near_numbers = st.one_of(
    st.floats().map(str),
    st.integers(-(10**8), 10**8).map(str),
    st.text("0123456789.+-eE_ infa٣", max_size=9),
    anything,
)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(near_numbers, min_size=12, max_size=15), st.sampled_from([".jpg", ".JPEG", ".txt", ""])
)
def test_any_name_is_understood_or_refused(parts, suffix):
    name = "@" + "@".join(parts) + "@" + suffix
    try:
        fields = parse_name(name)
    except VgeoError as error:
        assert printable(name.rsplit("/", 1)[-1]) in str(error) and str(error).isprintable()
        return
    assert (
        list(fields) == FIELDS and 0 < fields["utm_east"] < 1e6 and 0 <= fields["utm_north"] <= 1e7
    )
    assert fields["zone"] is None or 1 <= fields["zone"] <= 60 and isinstance(fields["zone"], int)
    assert np.isnan(fields["heading"]) or 0 <= fields["heading"] < 360
    assert fields["month"] == 0 or 1 <= fields["month"] % 100 <= 12
    if (
        fields["zone"] and fields["letter"]
    ):  # what is understood can be written again, and is then understood alike
        again = parse_name(
            format_name(
                *(fields[key] for key in ("utm_east", "utm_north", "zone", "letter")),
                "x",
                fields["heading"],
                fields["month"],
            )
        )
        assert (
            abs(again["utm_east"] - fields["utm_east"]) <= 0.0051
            and abs(again["utm_north"] - fields["utm_north"]) <= 0.0051
        )
        assert (again["zone"], again["letter"], again["month"]) == (
            fields["zone"],
            fields["letter"],
            fields["month"],
        )


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(["file,lat,lon", "file,utm_east,utm_north", "lon,file,lat,heading,month"]),
    st.lists(st.lists(near_numbers, min_size=2, max_size=5), max_size=4),
    st.booleans(),
    st.data(),
)
def test_any_list_is_understood_or_refused(tmp_path_factory, header, lines, quoted, data):
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    folder.mkdir(exist_ok=True)
    (folder / "a.jpg").touch()
    width, place = header.count(",") + 1, header.split(",").index("file")
    if data.draw(st.booleans()):  # of the right form
        lines = [[*line, *["1"] * 5][:width] for line in lines[:1]]
        for line in lines:
            line[place] = "a.jpg"
    with open(
        folder / "list.csv", "w", newline="", encoding="utf-8", errors="surrogatepass"
    ) as file:
        file.write(header + "\n")
        csv.writer(file, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL).writerows(lines)
    try:
        table = read_csv(os.path.join(folder, "list.csv"))
    except VgeoError as error:
        assert "list.csv" in str(error) and str(error).isprintable()
        return
    places = table[["utm_east", "utm_north"]].to_numpy(float)
    assert np.isfinite(places).all() and len(table) <= 1
    headings = table["heading"].to_numpy(float)
    assert (np.isnan(headings) | (headings >= 0) & (headings < 360)).all()


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_of_a_list_are_understood_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "bytes.csv"
    path.write_bytes(content)
    with pytest.raises(VgeoError, match="bytes.csv"):
        read_csv(str(path))


@given(st.text())
def test_what_is_said_is_one_line(text):
    assert printable(text).isprintable() and len(printable(text)) >= len(text)
    assert str(VgeoError(text)) == printable(text)
