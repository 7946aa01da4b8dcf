#!/usr/bin/env bash
# Sets up .venv where that is needed, then runs a profile of the study.
# Works from a bare clone and from any folder.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
venv=$root/.venv
stamp=$venv/set-up # what the finished set-up was made of; "unfinished" while it is being made
cpu_index=https://download.pytorch.org/whl/cpu

say() { echo "run_all.sh: $*" >&2; }
die() { say "$@"; exit 1; }

usage() {
    cat << 'EOT'
Usage: ./run_all.sh [PROFILE] [--data FOLDER] [--image-size N] [--seeds N] [--start imagenet]

Sets up .venv (once), then makes the study's tables and figures in runs/PROFILE.

PROFILE   smoke  a tiny city and few steps, in minutes
          city   the default
          paper  sf-xs, tokyo-xs and tokyo-night from FOLDER: hours on a GPU
--data FOLDER    reads the data sets from FOLDER, laid out as they are published
--image-size N   the side of the images, in pixels
--seeds N        repeats every training N times
--start imagenet starts from ImageNet's weights, downloaded once
--setup          only sets up

VGEO_PYTHON=/path/to/python uses that Python with what is installed there, and skips the set-up.
EOT
}

has_gpu() { nvidia-smi -L > /dev/null 2>&1; }

is_recent() { "$1" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; }

# What a set-up depends on: the folder (an editable install holds its path), Python and the two
# lists of dependencies.
inputs() {
    local lists
    lists=$(cat "$root/pyproject.toml" "$root/constraints.txt" | cksum)
    echo "$root $("$venv/bin/python" -I --version) $lists"
}

# CPU wheels on a machine that now has a GPU are outdated. CUDA wheels also run without a GPU.
up_to_date() {
    case $(cat "$stamp" 2> /dev/null) in
        "$(inputs 2> /dev/null)") true ;;
        "$(inputs 2> /dev/null) cpu") ! has_gpu ;;
        *) false ;;
    esac
}

find_python() {
    for python in python3.13 python3.12 python3.11 python3 python; do
        if is_recent "$python"; then return; fi
    done
    die "needs Python 3.11 or later, and found none: install it from python.org, with your" \
        "system's packages or with 'uv python install 3.13', then call again"
}

# Runs one command of the set-up and shows what it prints.
# Ends with one line for the usual reasons of a failure.
run() {
    local said
    if said=$("$@" 2>&1 | awk '{ print; print > "/dev/stderr"; fflush() }'); then return; fi
    case $said in
        *"o space left"* | *"isk quota"* | *"os error 28)"*)
            die "a disk is full (of $venv, of the installer's cache or of ${TMPDIR:-/tmp}):" \
                "free 8 GB, then call again" ;;
        *onnection* | *"onnect error"* | *"rror sending request"* | *"dns error"* | \
            *"name resolution"* | *"imed out"* | *"from versions: none"*)
            die "the package registry can't be reached: check the network, the proxy" \
                "(HTTPS_PROXY) or the mirror (UV_DEFAULT_INDEX with uv, PIP_INDEX_URL with pip)," \
                "then call again" ;;
        *ensurepip*)
            die "this Python can't make environments: install python3-venv (Debian, Ubuntu)" \
                "or uv, then call again" ;;
        *) die "the set-up failed for the reason above: correct that, then call again" ;;
    esac
}

index_answers() {
    timeout 4 "$python" -c "
import urllib.request as r
r.urlopen(r.Request('$cpu_index/torch/', method='HEAD'))" 2> /dev/null
}

set_up() {
    local began=$SECONDS install index wheels=
    case $(cat "$stamp" 2> /dev/null) in
        unfinished) rm -rf "$venv" ;; # was stopped half-way
        *" cpu") if has_gpu; then rm -rf "$venv"; fi ;;
    esac
    if is_recent "$venv/bin/python"; then
        python=$venv/bin/python
    else
        if [ -e "$venv" ] && [ ! -e "$stamp" ]; then
            die "$venv was not made by this script and has no Python 3.11 or later: remove it," \
                "then call again"
        fi
        find_python
        rm -rf "$venv"
    fi
    run mkdir -p "$venv"
    echo unfinished > "$stamp"

    if uv --version > /dev/null 2>&1; then
        say "sets up .venv with uv (about a minute, once)"
        [ -e "$venv/bin/python" ] || run uv venv --quiet --allow-existing --python "$python" "$venv"
        install=(uv pip install --compile-bytecode --python "$venv/bin/python")
        index=--default-index
    else
        say "sets up .venv with pip (a few minutes, once)"
        [ -e "$venv/bin/pip" ] || run "$python" -m venv "$venv"
        install=("$venv/bin/python" -m pip --disable-pip-version-check install --prefer-binary)
        index=--index-url
    fi

    # Without a GPU, PyTorch's CPU wheels save 5 GB. Nothing else is looked up in PyTorch's index.
    if [ "$(uname -s)" = Linux ] && ! has_gpu && index_answers; then
        mapfile -t pins < <(grep -E '^torch(vision)?==' constraints.txt)
        "${install[@]}" --no-deps "$index" "$cpu_index" "${pins[@]}" >&2 && wheels=' cpu'
    fi
    run "${install[@]}" -c constraints.txt -e '.[study,dev]'
    echo "$(inputs)$wheels" > "$stamp"
    say "set up in $((SECONDS - began)) s"
}

for word in "$@"; do
    case $word in -h | --help) usage; exit ;; esac
done

python=${VGEO_PYTHON:-$venv/bin/python}
if [ -n "${VGEO_PYTHON:-}" ]; then
    "$python" -P -c 'import vgeo' || die "VGEO_PYTHON=$python can't import vgeo (see above): run" \
        "$python -m pip install -c $root/constraints.txt -e '${root}[study,dev]'," \
        "or leave VGEO_PYTHON unset"
elif ! up_to_date; then
    ( # one set-up at a time: a second call waits here and then finds it made
        if command -v flock > /dev/null; then flock 9; fi
        cd "$root"
        up_to_date || set_up
    ) 9> "$root/.venv.lock"
fi

case ${1:-} in
    --setup) exit ;;
    "" | -*) set -- city "$@" ;;
esac
exec "$python" -P -m vgeo run "$@" # in the caller's folder, so that --data may be relative to it
