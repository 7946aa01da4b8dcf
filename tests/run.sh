#!/usr/bin/env bash
# Sets up .venv where that is needed, checks style and types, then runs every test and every
# notebook in one pytest.
# Arguments go to pytest: tests/run.sh -m "not slow and not faults".
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
./run_all.sh --setup
python=${VGEO_PYTHON:-.venv/bin/python}

"$python" -P -m ruff check
"$python" -P -m ruff format --check
"$python" -P -m mypy
exec "$python" -P -m pytest --nbval-lax tests notebooks "$@"
