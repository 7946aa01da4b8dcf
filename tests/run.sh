#!/usr/bin/env bash
# Sets up if that is needed, then runs every test and every notebook in one pytest; further arguments go to pytest.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
./run_all.sh --setup

what=(tests)
if compgen -G "notebooks/*.ipynb" > /dev/null; then what+=(--nbval-lax notebooks); fi

# pytest-randomly shuffles whatever is collected; the cells of a notebook are put back in their order, after the tests.
exec "${VGEO_PYTHON:-.venv/bin/python}" -c '
import sys, pytest

class NotebooksInOrder:
    def pytest_collection_modifyitems(self, items):
        items.sort(key=lambda item: (str(item.path), item.cell_num) if hasattr(item, "cell_num") else ("", 0))

sys.exit(pytest.main(sys.argv[1:], plugins=[NotebooksInOrder()]))' "${what[@]}" "$@"
