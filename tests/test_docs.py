"""What README.md and docs/ promise: files that exist, commands that parse, code that runs."""

import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torchvision.models as zoo

from vgeo.__main__ import _parser
from vgeo.models.network import build
from vgeo.runner.unchanged import print_end
from vgeo.study.profiles import PROFILES
from vgeo.training.technique import Technique

ROOT = Path(__file__).resolve().parents[1]
TOP = [ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")]
PAGES = [*TOP, *sorted((ROOT / "docs").glob("*.md"))]
# The changelog may name files of earlier versions, and files of a results folder that a later run
# brings.
PRESENT = [page for page in PAGES if page.stem != "CHANGELOG"]
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}
README = TEXTS[ROOT / "README.md"]
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
VGEO = re.compile(r"(?:^|/|-m )vgeo ([a-z].*)")
RUN_ALL = re.compile(r"^\./run_all\.sh\b(.*)")


def blocks(text, language):
    return [body for name, body in FENCE.findall(text) if name == language]


def command_lines():
    """(page, line) of each line of a block without a language, without its comment."""
    for page, text in TEXTS.items():
        for block in blocks(text, ""):
            yield from ((page.name, line.split(" #")[0].rstrip()) for line in block.splitlines())


def anchors(text):
    """The fragments that GitHub gives to headings."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in titles}


def test_the_readme_is_short():
    assert len(README.encode()) <= 6000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_and_images_exist(page):
    for target in LINK.findall(TEXTS[page]):
        if target.startswith("https://"):
            continue
        path, _, fragment = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target}"
        assert not fragment or fragment in anchors(file.read_text()), f"{page.name}: {target}"


def test_every_page_of_docs_is_linked_from_the_readme():
    linked = {(ROOT / target.split("#")[0]).resolve() for target in LINK.findall(README)}
    assert set((ROOT / "docs").glob("*.md")) <= linked


def test_every_notebook_is_named_in_the_readme():
    assert all(f"`{path.stem}`" in README for path in (ROOT / "notebooks").glob("*.ipynb"))


# Names in backticks that begin with a folder of the repository, or are files at its root
NAMED = re.compile(r"`((?:vgeo|tests|benchmarks|results|notebooks|docs)/[\w./*-]+)`")
AT_ROOT = re.compile(r"`(?:\./)?([\w-]+\.(?:md|toml|txt|yml|cff|sh))`")
OF_A_RUN = re.compile(
    r"`((?:tables|figures|sections|located|machines)/[\w./*-]*|report\.html|run\.json)`"
)
OF_A_BENCHMARK = re.compile(r"`(\w[\w*]*\.csv)`")
MADE_BY_READERS = {"vgeo/training/sides.py"}  # the example of docs/add-a-technique.md
# lists that `vgeo locate` reads and writes
LISTS = {"locations.csv", "skipped.csv", "photos.csv", "database.csv", "queries.csv"}


@pytest.mark.parametrize("page", PRESENT, ids=lambda page: page.name)
def test_named_files_exist(page):
    text = FENCE.sub("", TEXTS[page])
    for pattern, folders in (
        (NAMED, ["."]),
        (AT_ROOT, [".", "tests"]),
        (OF_A_RUN, ["results/city"]),
        (OF_A_BENCHMARK, ["benchmarks/results", "results/city/tables", "vgeo/report/data"]),
    ):
        for name in set(pattern.findall(text)) - MADE_BY_READERS - LISTS:
            assert any([*(ROOT / folder).glob(name)] for folder in folders), f"{page.name}: {name}"


COMMANDS = [
    (page, match[1])
    for page, line in command_lines()
    if (match := VGEO.search(line)) and not line.startswith("vgeo: ")
]


@pytest.mark.parametrize("page, words", COMMANDS)
def test_commands_parse(page, words):
    options = _parser().parse_args(shlex.split(words))
    assert getattr(options, "profile", "city") in PROFILES


def test_run_all_is_called_with_profiles_and_options_of_vgeo_run():
    calls = [match[1] for _, line in command_lines() if (match := RUN_ALL.search(line))]
    assert len(calls) > 5 and len(COMMANDS) > 5
    for words in map(shlex.split, calls):
        if words != ["--setup"]:
            options = _parser().parse_args(["run", *(words or ["city"])])
            assert options.profile in PROFILES


def test_the_files_to_download_are_torchvisions():
    """docs/your-data.md names what `--start imagenet` needs where there is no network."""
    page = TEXTS[ROOT / "docs/your-data.md"]
    for weights in (zoo.ResNet18_Weights, zoo.EfficientNet_V2_S_Weights):
        megabytes = weights.IMAGENET1K_V1.meta["_file_size"]
        assert f"| {weights.IMAGENET1K_V1.url} | {megabytes:.0f} MB |" in page


def test_the_last_line_of_a_run(tmp_path, capsys):
    results = tmp_path / "runs" / "city"
    (results / "tables").mkdir(parents=True)
    (results / "tables" / "table_01.md").write_text("# Table 1\n")
    print_end(results, "done in N minutes")
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.replace(str(tmp_path), "...") in README.splitlines()


@pytest.fixture
def in_streets(tmp_path, monkeypatch, make_photos):
    """The current folder holds `database`, `queries` and `photos`, and a `query.jpg`."""
    easts = [553_000.0 + 60 * place for place in range(6)]
    make_photos(tmp_path / "database", easts)
    make_photos(tmp_path / "queries", easts[:3], noise=4.0)
    make_photos(tmp_path / "photos", easts)
    (path,) = make_photos(tmp_path / "one", easts[1:2], places=[1], noise=4.0)
    path.rename(tmp_path / "query.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def run(code):
    names = {}
    exec(compile(code, "the example", "exec"), names)
    return names


@pytest.mark.parametrize("page", ["README.md", "docs/how-it-works.md"])
def test_the_examples_find_the_photos(page, in_streets, capsys):
    names = run(blocks(TEXTS[ROOT / page], "python")[0])
    assert names["predictions"].shape == (3, 5)
    assert names["predictions"][:, 0].tolist() == [0, 1, 2]
    assert capsys.readouterr().out == "100.0\n"


def test_the_example_of_locate(in_streets):
    names = run(blocks(TEXTS[ROOT / "docs/locate.md"], "python")[0])
    assert names["answers"].predictions[0, 0] == 1
    assert abs(names["latitude"][0] - 37.7) < 0.1 and abs(names["longitude"][0] + 122.4) < 0.1
    assert names["calibration"](names["answers"].features).shape == (1,)


def test_the_example_technique_is_one():
    """Its losses tell sides apart once its layer is trained, and it has what a Technique has."""
    names = run(blocks(TEXTS[ROOT / "docs/add-a-technique.md"], "python")[3])
    technique = names["Sides"](names["Settings"]())
    members = [name for name in dir(Technique) if name[0] != "_"]
    assert all(hasattr(technique, name) for name in [*members, *Technique.__annotations__])
    module = technique.prepare(build("resnet18"), SimpleNamespace(), 64, 0, None)
    maps = torch.zeros(4, 512, 2, 2)
    maps[:, :, :, 1] = 1
    optimizer = torch.optim.Adam(module.parameters(), technique.learning_rate)
    losses = []
    for iteration in range(20):
        loss, numbers = module.loss(None, maps, None, iteration)
        assert loss.item() == pytest.approx(0.1 * numbers["sides_loss"].item())
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0]
