#!/usr/bin/env bash
# Sets up .venv where that is needed, checks style and types, then runs every test and every
# notebook in one pytest of two processes. Each computes with one thread: two that share the cores
# would wait for each other.
# Arguments go to pytest: tests/run.sh -m "not slow and not faults". "-n 0" is for one process.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
./run_all.sh --setup
python=${VGEO_PYTHON:-.venv/bin/python}

"$python" -P -m ruff check
"$python" -P -m ruff format --check
"$python" -P -m mypy
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec "$python" -P -m pytest -n 2 --dist loadfile --nbval-lax tests notebooks "$@"
