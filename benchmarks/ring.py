"""Count the modes that a GAN keeps of eight Gaussians on a ring, for every loss, strategy, regulariser and balance.

    .venv/bin/python benchmarks/ring.py              # 42 rows, 5 seeds each: an hour of one core, in all
    .venv/bin/python benchmarks/ring.py --write      # ... and keep the tables in benchmarks/results/ring.md
    .venv/bin/python benchmarks/ring.py --jobs 8     # eight runs at a time
    .venv/bin/python benchmarks/ring.py --quick      # two rows, a twentieth of their length: does it run?

Every row is configs/ring_mlp.yaml, with R1 at every step, and a few knobs changed; but for the critic's rows none is
tuned for the row. gandist's own round plays it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

from modes.count import FAIR_SHARE, NEAR
from modes.play import SAMPLES, Outcome, play, recipe
from modes.rows import TABLES
from rounds import report
from rounds.report import Table

RESULTS = Path(__file__).parent / "results" / "ring.md"
SEEDS = 5
QUICK = {"Regularisers": {name: TABLES["Regularisers"][name] for name in ("none", "R1")}}
NOTE = (
    f"Mean and standard deviation over seeds, of {SAMPLES} samples of G's average. A sample is of high quality within "
    f"{NEAR:g} standard deviations of a mode's centre; a mode is covered if the samples of high quality near it are at "
    f"least {FAIR_SHARE:g} of an eighth of all. *all 8* counts the seeds that cover every mode, *told* those of which "
    "the monitor said that G repeats itself or leaves out part of the data."
)

Tables = Mapping[str, Mapping[str, Mapping[str, Any]]]


@dataclass(frozen=True)
class Run:
    """One run to be played."""

    table: str
    row: str
    changes: Mapping[str, Any]
    seed: int
    length: float


def perform(run: Run) -> tuple[Outcome, float]:
    """Play a run; return its outcome and the processor's seconds that it took."""
    start = time.process_time()
    return play(recipe(run.changes, run.seed, run.length)), time.process_time() - start


def outcomes(tables: Tables, seeds: int, jobs: int, length: float) -> Iterator[tuple[Run, Outcome, float]]:
    """Play all runs, some at a time, and yield each as it ends."""
    runs = [
        Run(table, row, changes, seed, length)
        for table, rows in tables.items()
        for row, changes in rows.items()
        for seed in range(seeds)
    ]
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(perform, run): run for run in runs}
        for done in as_completed(waiting):
            yield waiting[done], *done.result()


def table_of(title: str, rows: Mapping[str, Sequence[Outcome]]) -> Table:
    """Return the table of the rows that are complete."""
    columns = ["", "modes covered", "all 8", "high quality", "modes, G itself", "told"]
    return Table(title, NOTE, columns, [[name, *cells(of)] for name, of in rows.items() if of])


def cells(of: Sequence[Outcome]) -> list[str]:
    """Return the cells of a row, from its runs of several seeds."""
    modes, quality = [o.average.modes for o in of], [100 * o.average.quality for o in of]
    told = sum(any("mode collapse" in news and "no longer" not in news for news in o.news) for o in of)
    return [
        f"{mean(modes):.1f} ± {pstdev(modes):.1f}",
        f"{sum(m == 8 for m in modes)} of {len(of)}",
        f"{mean(quality):.0f} ± {pstdev(quality):.0f} %",
        f"{mean(o.raw.modes for o in of):.1f}",
        f"{told} of {len(of)}",
    ]


def main() -> int:
    """Play, print, and keep the tables where asked."""
    asked = _arguments()
    tables: Tables = QUICK if asked.quick else _chosen(asked.rows)
    seeds, length = (1, 0.05) if asked.quick else (asked.seeds, 1.0)
    heading = report.heading(report.machine(1), "Modes that a GAN keeps of a ring of Gaussians", "benchmarks/ring.py")
    found: dict[str, dict[str, list[Outcome]]] = {title: {row: [] for row in rows} for title, rows in tables.items()}
    seconds = list[float]()
    for run, outcome, took in outcomes(tables, seeds, asked.jobs, length):
        found[run.table][run.row].append(outcome)
        seconds.append(took)
        print(f"{run.table}: {run.row}, seed {run.seed}: {outcome.average}, {took:.0f} s", flush=True)
        if len(found[run.table][run.row]) == seeds and asked.page:
            asked.page.write_text(page(heading, found, seconds))
    text = page(heading, found, seconds)
    print(text)
    if asked.write:
        RESULTS.write_text(text)
    return 0


def _chosen(names: Sequence[str]) -> Tables:
    """Return the rows of these names, in their tables; all without names."""
    chosen = {title: {n: c for n, c in rows.items() if not names or n in names} for title, rows in TABLES.items()}
    return {title: rows for title, rows in chosen.items() if rows}


def page(heading: str, found: Mapping[str, Mapping[str, Sequence[Outcome]]], seconds: Sequence[float]) -> str:
    """Return all tables under a heading."""
    facts = f"- processor time: {mean(seconds):.0f} s a run, {sum(seconds) / 60:.0f} minutes for {len(seconds)} runs\n"
    return "\n".join([heading + facts, *(table_of(title, rows).markdown() for title, rows in found.items())])


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description="Count the modes that a GAN keeps of a ring of Gaussians.")
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="runs of each row (default: %(default)s)")
    parser.add_argument("--rows", nargs="+", default=[], metavar="NAME", help="these rows only; all when left out")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="runs at a time; default: cores")
    parser.add_argument("--write", action="store_true", help=f"write the tables to {RESULTS.name}")
    parser.add_argument("--page", type=Path, help="write them to this file, as far as they are, whenever a row ends")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
