"""The files that say what the project is, to people who cite it and to tools that install it."""

import tomllib

import yaml

from vgeo.study.profiles import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def test_the_citation_is_of_this_version_under_this_licence():
    assert (
        CITATION["version"] == PROJECT["version"]
        and CITATION["license"] == PROJECT["license"] == "MIT"
    )
    assert [author["name"] for author in CITATION["authors"]] == [
        author["name"] for author in PROJECT["authors"]
    ]
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")


def test_the_citation_has_what_its_format_requires():
    assert (
        CITATION["cff-version"] == "1.2.0"
        and CITATION["message"]
        and CITATION["title"]
        and CITATION["type"] == "software"
    )
    for reference in CITATION["references"]:
        assert (
            reference["type"] in ("conference-paper", "article")
            and reference["title"]
            and 2009 <= reference["year"] <= 2022
        )
        assert all(
            author["family-names"] and author["given-names"] for author in reference["authors"]
        )
        assert reference.get("collection-title") or reference.get("journal")


def test_every_dependency_is_pinned_to_one_version_and_named_once():
    pins = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]]
    assert all(len(pin.split("==")) == 2 for pin in pins)
    names = [pin.split("==")[0].lower() for pin in pins]
    assert len(names) == len(set(names))
