"""Visual geo-localization by image retrieval: where was this photo taken?

>>> model = vgeo.build("resnet18", "city").eval()
>>> database, queries = (vgeo.describe(model, paths, size=224) for paths in (known, new))
>>> predictions, distances = vgeo.search(database, queries, k=5)

`first_hit` and `recall` rate predictions, `rerank` orders them by other scores, and
`open_index(folder)` makes an index of a folder of photos. Each is imported at its first use.
"""

import os
from importlib import import_module

# OpenMP's threads spin while they wait for each other, which is slow beside another busy program.
# The number is from docs/performance.md. libgomp reads it once, when torch or faiss is imported.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

__version__ = "1.1.0"
__all__ = ["build", "describe", "first_hit", "open_index", "recall", "rerank", "search"]

_MODULES = {
    "build": "vgeo.models.network",
    "describe": "vgeo.retrieval.describe",
    "first_hit": "vgeo.retrieval.metrics",
    "open_index": "vgeo.locate.index",
    "recall": "vgeo.retrieval.metrics",
    "rerank": "vgeo.retrieval.rerank",
    "search": "vgeo.retrieval.search",
}


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
