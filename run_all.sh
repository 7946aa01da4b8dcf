#!/usr/bin/env bash
# Sets up .venv where that is needed, then runs a profile of the study: from a bare clone, from any folder.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
venv=$root/.venv
stamp=$venv/set-up  # what the finished set-up was made of; "unfinished" from its first moment to its last
cpu_index=https://download.pytorch.org/whl/cpu

say() { echo "run_all.sh: $*" >&2; }
die() { say "$@"; exit 1; }

usage() {
    cat << 'EOF'
Usage: ./run_all.sh [PROFILE] [--data FOLDER] [--image-size N] [--seeds N]

Sets up .venv (once), then regenerates the study's tables and figures in results/PROFILE.

PROFILE                            expected time on 2 cores, after the set-up
  smoke  a tiny city, few steps    3 to 10 minutes: the shorter with bfloat16 in hardware
  city   the default               20 to 60 minutes, 3 GB of disk; twice the disk with --seeds 3
  paper  sf-xs, tokyo-xs and tokyo-night, ImageNet weights: hours on a GPU; needs the data sets

  --data FOLDER    read the data sets from FOLDER instead (sf-xs, tokyo-xs, ... as they are published)
  --image-size N   the side of the images, in pixels
  --seeds N        repeat every training N times, for the spread in the ledger of claims
  --setup          only set up

VGEO_PYTHON=/path/to/python uses that Python, with what is installed there, and skips the set-up.
EOF
}

# What a set-up is made of: the folder (an editable install holds its path), Python, the list of dependencies.
identity() {
    "$1" -I -S -c '
import hashlib, sys
assert sys.version_info >= (3, 11)
pyproject = open(sys.argv[1] + "/pyproject.toml", "rb").read()
print(sys.argv[1], "%d.%d" % sys.version_info[:2], hashlib.sha256(pyproject).hexdigest())' "$root" 2> /dev/null
}

has_gpu() { nvidia-smi -L > /dev/null 2>&1; }

# Sets $now (what a set-up made at this moment would be; empty without a usable .venv) and $made (what was made).
# CPU wheels on a machine that has a GPU by now are outgrown; the registry's, with CUDA, also run without one.
up_to_date() {
    now=$(identity "$venv/bin/python") || now=
    made=$(cat "$stamp" 2> /dev/null) || made=
    outgrown=false
    case $made in *+cpu) if has_gpu; then outgrown=true; fi ;; esac
    [ -n "$now" ] && [ "${made% torch *}" = "$now" ] && ! $outgrown
}

find_python() {
    local name seen=
    for name in python3.13 python3.12 python3.11 python3 python; do
        python=$("$name" -c 'import sys; print(sys.executable)' 2> /dev/null) || continue
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then return; fi
        seen="$name is $("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
    done
    die "needs Python 3.11 or later (${seen:-found none}): install one from python.org, your system's packages or" \
        "'uv python install 3.13', then call again"
}

need_room() {  # GB
    local free
    free=$(df -Pk "$root" | awk 'NR == 2 { print int($4 / 1048576) }')
    [ "$free" -ge "$1" ] || die "the disk of $root has $free GB free, the set-up takes about $1 GB: free some space," \
        "or clone where there is more"
}

# Within 3 seconds, the look-up of the name included, which no socket's time-out covers.
cpu_index_answers() {
    "$python" -c '
import os, sys, threading, urllib.request
threading.Timer(3, os._exit, [1]).start()
try:
    urllib.request.urlopen(urllib.request.Request(sys.argv[1], method="HEAD"))
except OSError:
    os._exit(1)
os._exit(0)' "$cpu_index/torch/"
}

# Runs one command of the set-up, shows what it says, and keeps that in $said for explain.
run() {
    said=$("$@" 2>&1 | while IFS= read -r line || [ -n "$line" ]; do
        printf '%s\n' "$line" >&2
        printf '%s\n' "$line"
    done)
}

disk_was_full() { case $said in *"o space left"* | *"isk quota"* | *"os error 28)"*) true ;; *) false ;; esac; }

explain() {
    if disk_was_full; then
        die "a disk is full (of $venv, of the installer's cache or of ${TMPDIR:-/tmp}): free some," \
            "then call again"
    fi
    case $said in
        *onnection* | *"onnect error"* | *"rror sending request"* | *"dns error"* | *"name resolution"* | *"imed out"*)
            die "the package registry can't be reached: check the network, the proxy (HTTPS_PROXY) or the mirror" \
                "(UV_DEFAULT_INDEX with uv, PIP_INDEX_URL with pip), then call again" ;;
        *"No module named ensurepip"*)
            die "this Python can't make environments: install python3-venv (Debian, Ubuntu) or uv, then call again" ;;
        *) die "the set-up failed for the reason above: put that right, then call again" ;;
    esac
}

set_up() {
    local begin=$SECONDS in_place=false cpu_wheels=false install index_option pins gb=8
    # A whole set-up, or an environment made by hand, is brought up to the list; one that was cut short is made anew.
    if [ -n "$now" ] && ! $outgrown; then
        case $made in "" | "${now% *} "*) in_place=true ;; esac
    elif [ -e "$venv/pyvenv.cfg" ] && [ ! -e "$stamp" ]; then
        die "$venv was not made by this script and has no Python 3.11 or later: remove it, then call again"
    fi
    if $in_place; then python=$venv/bin/python; else find_python; fi

    if [ "$(uname -s)" != Linux ]; then
        gb=3
    elif ! has_gpu && cpu_index_answers; then
        cpu_wheels=true gb=3
    fi
    if ! $in_place; then
        need_room $gb
        rm -rf "$venv"
        mkdir "$venv"
    fi
    echo unfinished > "$stamp"

    if uv --version > /dev/null 2>&1; then
        say "sets up .venv with uv (about a minute and $gb GB, once)"
        $in_place || run uv venv --quiet --allow-existing --python "$python" "$venv" || explain
        install=(uv pip install --compile-bytecode --python "$venv/bin/python")  # as pip does: many processes import torch
        index_option=--default-index
    else
        say "sets up .venv with pip (a few minutes and $gb GB, once)"
        $in_place || run "$python" -m venv --without-pip "$venv" || explain
        "$venv/bin/python" -m pip --version > /dev/null 2>&1 || run "$venv/bin/python" -m ensurepip || explain
        install=("$venv/bin/python" -m pip --disable-pip-version-check install --prefer-binary)
        index_option=--index-url
    fi

    # Only PyTorch itself from its index, so that no other name is ever looked up there; the rest finds it installed.
    if $cpu_wheels; then
        pins=$("$venv/bin/python" -c '
import re, tomllib
listed = tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]
print(*[pin for pin in listed if re.match("torch(vision)?==", pin)])')
        # shellcheck disable=SC2086  # one word a pin
        if ! run "${install[@]}" --no-deps "$index_option" "$cpu_index" $pins; then
            if disk_was_full; then explain; fi
            say "PyTorch's own index failed: takes the registry's PyTorch, same version, 5 GB more"
            need_room 8
        fi
    fi
    run "${install[@]}" -e ".[test]" || explain

    local torch
    torch=$("$venv/bin/python" -c 'from importlib.metadata import version; print(version("torch"))')
    echo "$(identity "$venv/bin/python") torch $torch" > "$stamp"
    say "set up in $((SECONDS - begin)) s: $("$venv/bin/python" --version), torch $torch"
}

# --- what is asked ---
for word in "$@"; do
    case $word in -h | --help) usage; exit ;; esac
done
only_set_up=false profile=city
case ${1:-} in
    --setup) only_set_up=true ;;
    "" | -*) ;;
    smoke | city | paper) profile=$1; shift ;;
    *) die "no profile is called '$1': smoke, city or paper" ;;
esac

# --- the set-up ---
python=${VGEO_PYTHON:-$venv/bin/python}
if [ -n "${VGEO_PYTHON:-}" ]; then
    "$python" -P -c 'import vgeo' || die "VGEO_PYTHON=$python can't import vgeo (see above): run" \
        "$python -m pip install -e '${root}[test]', or leave VGEO_PYTHON unset"
elif ! up_to_date; then
    (   # one set-up at a time: a second call waits here, then finds it made
        if command -v flock > /dev/null; then flock 9; fi
        cd "$root"
        if ! up_to_date; then set_up; fi
    ) 9> "$root/.venv.lock"
fi
if $only_set_up; then exit; fi

# --- the run, in the caller's folder (so that --data may be relative), which -P keeps from shadowing any module ---
exec "$python" -P -m vgeo run "$profile" "$@"
