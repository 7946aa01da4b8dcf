"""The fault suite: a smoke run is killed at 22 points, starved and damaged.

It has to end with the tables of an undisturbed run.

    .venv/bin/python benchmarks/faults.py [REFERENCE]

Runs on Linux and takes some ten times as long as a smoke run. It works in clones in a temporary
folder and writes benchmarks/results/faults.csv: point, what was done, what was seen. REFERENCE is
runs/smoke of an undisturbed run of the same commit on this machine; without it one is made first.
tests/runner/test_faults.py is the short form.
"""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "benchmarks" / "results" / "faults.csv"
TIMED = "second"  # in the names of columns that hold times, which no two runs share


@dataclass(frozen=True)
class Point:
    """Where a run is stopped.

    Attributes
    ----------
    file : a pattern below runs/: the run is stopped when a file that fits it appears anew.
    line : or when a line of what the run prints holds this.
    after : so many seconds later.
    how : "kill" all processes at once, the run's process "group" alone, its first process
        ("parent"), or "ctrl-c".
    """

    phase: str
    file: str = ""
    line: str = ""
    after: float = 0.0
    how: str = "kill"


# in the order of a run
POINTS = [
    Point("data", "cache/data/*.partial", after=3, how="parent"),
    Point("data", "cache/data/*.partial/sf-xs/train/*.jpg"),
    Point("data", "cache/data/*.partial/tokyo-xs/test/queries_v1/*.jpg", how="group"),
    Point("notebooks", line="00_data ..."),
    Point("writing", "smoke/figures/data_samples.png"),
    Point("training", "cache/views/*.partial/trunk.npy"),
    Point("training", "cache/models/*.partial", after=2),
    Point("training", "cache/models/*.partial/checkpoint.pt", how="group"),
    Point("extraction", "cache/trunks/*.partial/trunk.npy"),
    Point("writing", "smoke/tables/table_01.csv"),
    Point("notebooks", line="02_grl ...", after=6, how="ctrl-c"),
    Point("training", "cache/models/*.partial", after=5, how="ctrl-c"),
    Point("notebooks", "smoke/notebooks/03_brightness.ipynb", how="group"),
    Point("training", "cache/mined/*.partial"),
    Point("training", "cache/models/*.partial", after=1, how="parent"),
    Point("re-ranking", "cache/pairs/*.partial", after=0.5),
    Point("writing", "smoke/figures/geowarp_*.png", how="group"),
    Point("extraction", "cache/trunks/*.partial/trunk.npy", after=1),
    Point("re-ranking", "cache/pairs/*.partial", after=1, how="group"),
    Point("extraction", "cache/descriptors/*.partial"),
    Point("writing", "smoke/tables/table_07.csv"),
    Point("re-ranking", "cache/pairs/*.partial", how="parent"),
]


def ctrl_c_stops():
    """Called in a new process: a shell lets what runs in its background ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Clone:
    """A clone of this repository and the runs in it."""

    def __init__(self, folder):
        self.folder, self.runs = Path(folder), Path(folder) / "runs"
        subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ROOT, folder], check=True)

    def start(self, name="run.log"):
        """A run in a process group of its own; what it prints goes to the file `name`."""
        environment = os.environ | {"PYTHONPATH": str(self.folder), "PYTHONUNBUFFERED": "1"}
        with open(self.folder / name, "w") as log:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "vgeo", "run", "smoke"],
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=ctrl_c_stops,
            )

    def said(self, name="run.log"):
        return (self.folder / name).read_text()

    def whole(self):
        """Runs to the end -> what it printed."""
        run = self.start()
        code = run.wait()
        if code:
            raise SystemExit(f"a run ended with {code}: {self.said()[-2000:]}")
        return self.said()

    def tables(self):
        """{file: content} of all tables, without times."""
        found = {}
        for path in sorted((self.runs / "smoke" / "tables").glob("*.csv")):
            table = pd.read_csv(path, dtype=str)
            table = table[[column for column in table if TIMED not in column]]
            found[path.name] = table[~(table == "ratio of times").any(axis=1)].to_csv(index=False)
        return found


def wait_for(clone, run, point):
    """Waits for a point -> whether it came before the run ended."""

    def there():
        return (
            {(path, path.stat().st_mtime_ns) for path in clone.runs.glob(point.file)}
            if point.file
            else set()
        )

    before = there()
    while run.poll() is None:
        try:
            if (point.file and there() - before) or (point.line and point.line in clone.said()):
                time.sleep(point.after)
                return run.poll() is None
        except FileNotFoundError:  # renamed while it was listed: it was there
            return True
        time.sleep(0.05)
    return False


def stop(clone, run, point):
    """Stops a run -> what was seen of its end."""
    processes = [psutil.Process(run.pid), *psutil.Process(run.pid).children(recursive=True)]
    began = time.monotonic()
    if point.how == "kill":
        for process in filter(psutil.Process.is_running, processes):
            process.kill()
    elif point.how == "parent":
        run.kill()
    else:
        os.killpg(run.pid, signal.SIGINT if point.how == "ctrl-c" else signal.SIGKILL)
    code = run.wait()
    _, alive = psutil.wait_procs(
        processes, timeout=60
    )  # a worker that is still importing on a busy machine
    seconds = time.monotonic() - began
    seen = f"{len(processes)} processes, exit code {code} after {seconds:.0f} s, {len(alive)} left"
    good = not alive
    if point.how == "ctrl-c":
        last = clone.said().rstrip().splitlines()[-1]
        seen += f", said: {last}"
        good &= (
            code == 1
            and "Traceback" not in clone.said()
            and "the same command goes on from here" in last
        )
    return seen, good


def killed(clone, rows):
    """One run, stopped at every point and started again."""
    number = 0
    run = clone.start()
    for point in POINTS:
        where = point.file or f"'{point.line}'"
        if not wait_for(clone, run, point):
            if run.returncode:
                rows.append(
                    (
                        f"{point.phase}: {where}",
                        point.how,
                        f"NOT WHOLE: the run ended with {run.returncode}: {clone.said()[-300:]}",
                    )
                )
            else:
                rows.append((f"{point.phase}: {where}", point.how, "was not reached again"))
        else:
            seen, good = stop(clone, run, point)
            number += 1
            rows.append(
                (
                    f"{point.phase}: {where}" + (f" and {point.after:g} s" if point.after else ""),
                    point.how,
                    ("" if good else "NOT RIGHT: ") + seen,
                )
            )
        print(*rows[-1], sep=" | ", flush=True)
        run = clone.start()
    second = clone.start("second.log")  # two at once
    codes = run.wait(), second.wait()
    waits = "another run writes it; waits for it" in clone.said() + clone.said("second.log")
    rows.append(
        (
            "the end",
            "two runs at once",
            ("" if codes == (0, 0) and waits else "NOT RIGHT: ")
            + f"exit codes {codes}, one waited: {waits}",
        )
    )
    return number


DAMAGED = {
    "a byte flipped": lambda b: (
        b[: len(b) // 2] + bytes([b[len(b) // 2] ^ 1]) + b[len(b) // 2 + 1 :]
    ),
    "cut to half": lambda b: b[: len(b) // 2],
}
KINDS = {
    "data": "sf-xs/test/database/*.jpg",
    "models": "model.safetensors",
    "descriptors": "descriptors.npy",
    "predictions": "predictions.npy",
    "pairs": "scores.npy",
    "mined": "pairs.npy",
    "soups": "*",
    "trunks": "trunk.npy",
    "views": "trunk.npy",
}


def damaged(clone, rows):
    """A file of every kind of result in the cache is damaged: a byte flipped in one folder of the
    kind, half of a file gone in another. A run of all notebooks has to see all that it uses.
    """
    hit = {}
    (clone.runs / "smoke" / ".executed.json").unlink()
    for kind, pattern in KINDS.items():
        for folder, (how, change) in zip(
            sorted(clone.runs.glob(f"cache/{kind}/*")), DAMAGED.items()
        ):
            path = sorted(folder.rglob(pattern))[0]
            path.write_bytes(change(path.read_bytes()))
            hit[folder] = (kind, how, path)
    said = clone.whole()
    for folder, (kind, how, path) in hit.items():
        seen = re.search(rf"vgeo: {re.escape(str(folder))}: (.*): makes it again", said)
        left = path.exists() and not seen  # never used: nothing asked for it
        rows.append(
            (
                f"{kind}: {path.name}",
                how,
                seen[1] + ", made again"
                if seen
                else "not used by this run"
                if left
                else "NOT RIGHT: not seen",
            )
        )


def starved(clone, rows, reference):
    """A disk that fills up while a run is going, and folders that can't be written.

    The small disk holds what the study made but its models, pairs and tables.
    """
    aside = clone.runs.rename(clone.folder / "aside")
    clone.runs.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1500m", "tmpfs", clone.runs],
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        rows.append(("disk full, read-only", "skipped", f"no mounts here ({error})"))
        return
    shutil.copytree(aside, clone.runs, dirs_exist_ok=True)
    for folder in ("cache/models", "cache/pairs", "smoke/tables"):
        shutil.rmtree(clone.runs / folder)
    try:
        for point in (
            Point("training", "cache/models/*.partial"),
            Point("writing", "smoke/tables/table_01.csv"),
        ):
            run = clone.start()
            came = wait_for(clone, run, point)
            with open(clone.runs / "filler", "wb") as file:
                try:
                    while True:
                        file.write(bytes(1 << 20))
                        file.flush()
                except OSError:
                    pass
            code, last = run.wait(), clone.said().rstrip().splitlines()[-1]
            rows.append(
                (
                    f"{point.phase}: {point.file}",
                    "disk filled",
                    ("" if came and code == 1 and last.startswith("vgeo: ") else "NOT RIGHT: ")
                    + f"exit code {code}, said: {last}",
                )
            )
            (clone.runs / "filler").unlink(missing_ok=True)
        subprocess.run(["mount", "-o", "remount,ro", clone.runs], check=True)
        run = clone.start()
        code, last = run.wait(), clone.said().rstrip().splitlines()[-1]
        rows.append(
            (
                "runs/",
                "read-only",
                ("" if code == 1 and last.startswith("vgeo: ") else "NOT RIGHT: ")
                + f"exit code {code}, said: {last}",
            )
        )
        subprocess.run(["mount", "-o", "remount,rw", clone.runs], check=True)
        clone.whole()
        compare(clone, reference, rows, "after a full disk and a read-only folder")
    finally:
        subprocess.run(["umount", "-l", clone.runs])


def compare(clone, reference, rows, when):
    """All tables with the undisturbed run's."""
    ours = clone.tables()
    differ = sorted(
        name for name in ours.keys() | reference.keys() if ours.get(name) != reference.get(name)
    )
    rows.append(
        (
            "all tables",
            when,
            f"NOT EQUAL: {', '.join(differ)}"
            if differ
            else f"{len(ours)} tables equal the undisturbed run's, bit for bit",
        )
    )
    print(*rows[-1], sep=" | ", flush=True)


def main(reference=None):
    began, rows = time.monotonic(), []
    with tempfile.TemporaryDirectory() as top:
        known = Clone(Path(top, "undisturbed"))
        if reference:
            shutil.copytree(reference, known.runs / "smoke")
        else:
            known.whole()
        tables, clone = known.tables(), Clone(Path(top, "disturbed"))
        number = killed(clone, rows)
        compare(clone, tables, rows, f"after {number} stops")
        damaged(clone, rows)
        compare(clone, tables, rows, "after the damage")
        starved(clone, rows, tables)
    TARGET.parent.mkdir(exist_ok=True)
    with open(TARGET, "w", newline="") as file:
        csv.writer(file).writerows(
            [
                ("point", "what was done", "what was seen"),
                *[[str(cell).replace(top, "") for cell in row] for row in rows],
            ]
        )
    print(f"{TARGET}: {len(rows)} rows in {(time.monotonic() - began) / 60:.0f} minutes")
    sys.exit(any("NOT " in row[2] for row in rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
