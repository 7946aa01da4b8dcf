"""The files that say what the project is, to people who cite it and to tools that install it."""

import ast
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import nbformat
import pytest
import yaml
from importlinter.cli import lint_imports
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
BASE = ("errors", "files", "device", "photos", "models", "retrieval", "locate", "__main__")


def test_the_citation_is_of_this_version_under_this_licence():
    assert CITATION["version"] == PROJECT["version"]
    assert CITATION["license"] == PROJECT["license"] == "MIT"
    ours, theirs = PROJECT["authors"], CITATION["authors"]
    assert [author["name"] for author in theirs] == [author["name"] for author in ours]
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")


def test_the_citation_has_what_its_format_requires():
    assert CITATION["cff-version"] == "1.2.0" and CITATION["type"] == "software"
    assert CITATION["message"] and CITATION["title"]
    for reference in CITATION["references"]:
        assert reference["type"] and reference["title"]
        assert all(name["family-names"] and name["given-names"] for name in reference["authors"])


# Dependencies


def requirements(*extras):
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]
    return [Requirement(line) for line in lines]


def names(*extras):
    return {canonicalize_name(each.name) for each in requirements(*extras)}


def constraints():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_every_dependency_is_named_once_with_a_range():
    listed = requirements("study", "dev")
    assert len(names("study", "dev")) == len(listed)
    assert all(">=" in str(each.specifier) for each in listed)


def test_the_constraints_hold_one_version_inside_every_range_and_no_address():
    pinned = constraints()
    assert [*pinned] == sorted(pinned) and not {"vgeo", "pip"} & pinned.keys()
    assert "/" not in "".join(pinned) + "".join(pinned.values())
    for each in requirements("study", "dev"):
        assert each.specifier.contains(pinned[canonicalize_name(each.name)]), each


def test_the_constraints_are_complete():
    """Whatever a constrained package requires here is constrained too."""
    pinned = constraints()
    for name in pinned:
        try:
            lines = distribution(name).requires or []
        except PackageNotFoundError:  # of another system
            continue
        for each in map(Requirement, lines):
            if each.marker is None or each.marker.evaluate({"extra": ""}):
                assert canonicalize_name(each.name) in pinned, f"{name} requires {each}"


@pytest.mark.parametrize("name", ["run_all.sh", "environment.yml"])
def test_every_set_up_reads_the_constraints(name):
    text = (ROOT / name).read_text()
    assert "-c constraints.txt" in text and ".[study,dev]" in text


# Imports


def sources():
    """(what it is, its syntax tree) of all code: files, and notebooks as one file each."""
    for folder in ("vgeo", "tests", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT), ast.parse(path.read_text())
    yield Path("hubconf.py"), ast.parse((ROOT / "hubconf.py").read_text())
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        code = (cell.source for cell in cells if cell.cell_type == "code")
        yield path.relative_to(ROOT), ast.parse("\n".join(code))


SOURCES = list(sources())
INSIDE = [path.with_suffix("").parts[1:] for path, _ in SOURCES if path.parts[0] != "vgeo"]
OURS = {"vgeo", *(name for parts in INSIDE for name in parts)}
WHOSE = packages_distributions()


def imported(nodes):
    """The top-level names of what is imported from outside the project and Python."""
    for node in nodes:
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found = [node.module]
        else:
            continue
        found = {name.split(".")[0] for name in found}
        yield from found - OURS - set(sys.stdlib_module_names)


@pytest.mark.parametrize("path, tree", SOURCES, ids=[str(path) for path, _ in SOURCES])
def test_every_import_is_declared(path, tree):
    declared = names("study") if path.parts[0] == "vgeo" else names("study", "dev")
    for name in imported(ast.walk(tree)):
        owners = {canonicalize_name(owner) for owner in WHOSE.get(name, [])}
        assert owners & declared, f"{path} imports {name}"


def test_locate_alone_needs_only_what_a_plain_install_brings():
    for path, tree in SOURCES:
        if path.parts[0] == "vgeo" and path.with_suffix("").parts[1] in BASE:
            for name in imported(tree.body):
                owners = {canonicalize_name(owner) for owner in WHOSE[name]}
                assert owners & names(), f"{path} imports {name}"


def test_each_folder_imports_only_those_below_it(monkeypatch, capsys):
    """The contracts of pyproject.toml: see [tool.importlinter] there."""
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(ROOT)
    broken = lint_imports(config_filename="pyproject.toml", no_cache=True)
    assert not broken, capsys.readouterr().out
