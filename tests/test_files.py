"""Files are whole or absent; hashes change with what they stand for and with nothing else."""

import hashlib
import os
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgeo import files

# Writing


@pytest.mark.parametrize("content", [b"", b"\x00\xff\r\n", "Zürich\n", "a" * 100_000])
def test_files_are_written_whole(tmp_path, content):
    path = tmp_path / "deep" / "er" / "a.txt"
    for _ in range(2):  # new, and over an old one
        files.write(path, content)
        expected = content.encode() if isinstance(content, str) else content
        assert path.read_bytes() == expected and os.listdir(path.parent) == ["a.txt"]
        assert files.sha256(path) == hashlib.sha256(expected).hexdigest()


def test_what_stops_within_leaves_the_old_file(tmp_path):
    files.write(tmp_path / "a", "old")
    with pytest.raises(KeyboardInterrupt), files.replacing(tmp_path / "a") as temporary:
        temporary.write_text("half")
        assert (tmp_path / "a").read_text() == "old" and temporary.parent == tmp_path
        raise KeyboardInterrupt
    assert (tmp_path / "a").read_text() == "old" and os.listdir(tmp_path) == ["a"]


@given(st.dictionaries(st.text(), st.one_of(st.integers(), st.text(), st.lists(st.floats()))))
def test_keys_do_not_depend_on_the_order(recipe):
    assert files.key(recipe) == files.key(dict(reversed(recipe.items())))
    assert len(files.key(recipe)) == 16 and int(files.key(recipe), 16) >= 0
    assert files.key(recipe) != files.key(recipe | {"another": 1})


# The hash of the code

SOURCES = {
    "__init__": "",
    "errors": "def say(): print('hello')",
    "top": '"""Top."""\nfrom vgeo.low import middle\n\n\n'
    'def f(x):\n    """F."""\n    return x + 1\n',
    "low/__init__": "",
    "low/middle": "import os\nfrom .base import number\nfrom vgeo.errors import say\n",
    "low/base": "number = 1  # one\n\n\nclass A:\n    def late(self):\n        import vgeo.late\n",
    "late": "text = 'late'",
    "apart": "other = 1",
}


@pytest.fixture
def hashed(tmp_path):
    """A function: the hash of vgeo.top in a package of SOURCES, some of them changed."""

    def of(*modules, **changed):
        package = tmp_path / str(len(list(tmp_path.iterdir()))) / "vgeo"
        for name, source in (
            SOURCES | {k.replace("__", "/"): v for k, v in changed.items()}
        ).items():
            files.write(package / f"{name}.py", source)
        return files.code_hash(*(modules or ["vgeo.top"]), package=package)

    return of


@pytest.mark.parametrize(
    "name, old, new",
    [
        ("top", "x + 1", "x + 2"),
        ("top", "f(x)", "f(x, y=0)"),
        ("low__middle", "import os", "import sys"),  # imported
        ("low__base", "number = 1", "number = 2"),  # through another, by a relative import
        ("low__base", "number = 1", "number = '1'"),
        ("late", "'late'", "'later'"),  # inside a method
        ("low__base", "def late", "async def late"),
    ],
)
def test_the_hash_changes_with_the_code(hashed, name, old, new):
    source = SOURCES[name.replace("__", "/")]
    assert old in source and hashed() != hashed(**{name: source.replace(old, new)})


@pytest.mark.parametrize(
    "name, old, new",
    [
        ("top", "Top.", "Another module docstring."),
        ("top", '    """F."""\n', ""),
        ("top", "x + 1", "(x\n            + 1)  # a comment"),
        ("top", "\n\n\ndef", "\n\n# a comment\n\n\ndef"),
        ("low__base", "# one", "# 1"),
        ("low__base", "class A:\n", 'class A:\n    """A."""\n\n'),
        ("apart", "1", "2"),  # not imported
        ("errors", "hello", "goodbye"),  # messages
    ],
)
def test_the_hash_does_not_change_with_what_has_no_effect(hashed, name, old, new):
    source = SOURCES[name.replace("__", "/")]
    assert old in source and hashed() == hashed(**{name: source.replace(old, new)})


def test_the_hash_is_of_a_set_of_modules(hashed):
    assert hashed("vgeo.top", "vgeo.apart") == hashed("vgeo.apart", "vgeo.top", "vgeo.low.middle")
    assert hashed("vgeo.top", "vgeo.apart") != hashed("vgeo.top")
    assert hashed() != hashed("vgeo.low.middle")
    with pytest.raises(ModuleNotFoundError, match="vgeo.nothing"):
        hashed("vgeo.nothing")


def test_the_hash_of_this_package(tmp_path):
    names = ("vgeo.files", "vgeo.photos.places")
    shutil.copytree(files.PACKAGE, tmp_path / "vgeo", ignore=shutil.ignore_patterns("pretrained"))
    assert files.code_hash(*names) == files.code_hash(*names, package=tmp_path / "vgeo")
    path = tmp_path / "again" / "vgeo"
    shutil.copytree(tmp_path / "vgeo", path)
    with open(path / "photos" / "images.py", "a") as file:  # imported by tables, by places
        file.write("LIMIT = 1\n")
    assert files.code_hash(*names) != files.code_hash(*names, package=path)
    assert files.code_hash("vgeo.files") == files.code_hash("vgeo.files", package=path)
