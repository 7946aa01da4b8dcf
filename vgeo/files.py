"""Files that are whole or absent, and hashes that say what a result was made of."""

import ast
import hashlib
import importlib.util
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from vgeo.errors import VgeoError

PACKAGE = Path(__file__).parent
WITHOUT_EFFECT = {"vgeo.errors"}  # modules whose code changes messages, never results


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path in the folder of `path`; it becomes `path` when the block ends well.

    A reader of `path` sees the old file or the new one, never a part of it. After an error the old
    file stays and the temporary one is removed. A missing folder is made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: str | os.PathLike[str], advice: str) -> None:
    """Raises VgeoError with the advice unless a file or folder of this path could be made."""
    folder = Path(path).absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        reason = "can't be written to" if folder.is_dir() else "is no folder"
        raise VgeoError(f"{path}: {folder} {reason}: {advice}")


def write(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Writes a whole file by `replacing`; text as UTF-8."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content, 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def key(recipe: dict[str, Any]) -> str:
    """16 hex digits of the SHA-256 of a recipe, a dict of JSON values."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]


@cache
def code_hash(*modules: str, package: Path = PACKAGE) -> str:
    """16 hex digits that change with the code of the modules and of all that they import.

    Only modules of the package count, imported directly or through others. Comments, docstrings and
    layout do not count. Each module is read once in a process.

    Parameters
    ----------
    modules : names such as "vgeo.retrieval.describe".
    package : the package's folder, which has its name.

    Raises
    ------
    ModuleNotFoundError : one of `modules` is not in the package.
    """
    code: dict[str, str] = {}
    left = list(modules)
    while left:
        name = left.pop()
        if name not in code and name not in WITHOUT_EFFECT:
            tree = _tree(name, package)
            code[name] = ast.unparse(tree)
            left += [each for each in _imports(tree, name, package) if _source(each, package)]
    return hashlib.sha256(json.dumps(code, sort_keys=True).encode()).hexdigest()[:16]


def _tree(module: str, package: Path) -> ast.Module:
    """A module's syntax tree without docstrings."""
    source = _source(module, package)
    if source is None:
        raise ModuleNotFoundError(f"{module}: there is no such module in {package}")
    tree = ast.parse(source.read_bytes(), source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree


def _imports(tree: ast.Module, module: str, package: Path) -> Iterator[str]:
    """The names that a module imports anywhere in its code, whether modules or not."""
    source = _source(module, package)
    inside = source is not None and source.name == "__init__.py"
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            relative = "." * node.level + (node.module or "")
            parent = module if inside else module.rpartition(".")[0]
            base = importlib.util.resolve_name(relative, parent)
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))


def _source(module: str, package: Path) -> Path | None:
    """The file of a module of the package, None where it has no such module."""
    top, *parts = module.split(".")
    base = package.joinpath(*parts)
    files = (base / "__init__.py", base.with_suffix(".py")) if top == package.name else ()
    return next((file for file in files if file.is_file()), None)
