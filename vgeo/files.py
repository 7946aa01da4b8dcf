"""Files that are whole or absent, and hashes that say what a result was made of."""

import ast
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent
WITHOUT_EFFECT = {"vgeo.errors"}  # modules whose code changes messages, never results


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which takes its place when the block ends without an error.

    A reader sees the old file or the new one, never a part of it. The folder is made where it is missing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes a whole file by `replacing`; text as UTF-8."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file's content, 64 hex digits. Raises OSError where it can't be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def key(recipe: dict) -> str:
    """16 hex digits of the SHA-256 of a recipe, a dict of JSON values."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]


@cache
def code_hash(*modules: str) -> str:
    """16 hex digits that change when the code of the modules, or of any module of ours they import, changes.

    Comments, docstrings and layout do not count: the hash is taken from the syntax tree without them.

    Parameters
    ----------
    modules : names such as "vgeo.retrieval.describe".
    """
    digest = hashlib.sha256()
    for name in sorted(_with_imports(modules)):
        digest.update(f"{name} {ast.dump(_tree(name))}\n".encode())
    return digest.hexdigest()[:16]


def _with_imports(modules: tuple[str, ...]) -> set[str]:
    """The modules and all of `vgeo` that they import, directly or through others."""
    found, left = set(), list(modules)
    while left:
        name = left.pop()
        if name in found or name in WITHOUT_EFFECT:
            continue
        found.add(name)
        for node in ast.walk(_tree(name)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vgeo":
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                left += [node.module, *(each for each in inner if _source(each))]
            elif isinstance(node, ast.Import):
                left += [a.name for a in node.names if a.name.split(".")[0] == "vgeo"]
    return found


def _source(module: str) -> Path | None:
    """The file of one of our modules, None where there is no such module."""
    base = PACKAGE.joinpath(*module.split(".")[1:])
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


@cache
def _tree(module: str) -> ast.Module:
    """A module's syntax tree without docstrings."""
    source = _source(module)
    if source is None:
        raise ModuleNotFoundError(module)
    tree = ast.parse(source.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:]
    return tree
