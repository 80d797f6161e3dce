"""Measure what one round of gandist costs: its arithmetic, its time, and the bytes its processes send.

    .venv/bin/python benchmarks/round.py            # about 5 minutes on 2 cores
    .venv/bin/python benchmarks/round.py --write    # ... and keep the tables in benchmarks/results/round-cpu.md
    .venv/bin/python benchmarks/round.py --quick    # half a minute: does it run?

The counts of operations and of bytes are exact and must be the least possible: the script fails if they are not.
Times mean something on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rounds import report, speed, traffic, work
from rounds.report import Table

RESULTS = Path(__file__).parent / "results" / "round-cpu.md"
SECONDS, QUICK_SECONDS = 50.0, 5.0


def main() -> int:
    """Measure, print, and keep the figures where asked; return 1 if a count is not the least."""
    asked = _arguments()
    machine = report.machine(asked.threads)
    print(report.heading(machine), flush=True)

    works = work.measure(["DCGAN-32"] if asked.quick else work.NETWORKS)
    tables = [_show(work.table(works))]
    sent = traffic.measure(traffic.QUICK if asked.quick else traffic.CASES)
    tables += [_show(traffic.table(sent))]
    cases = speed.computable(speed.QUICK if asked.quick else speed.CASES, asked.threads)
    times = list(speed.measure(cases, asked.seconds or (QUICK_SECONDS if asked.quick else SECONDS)))
    tables += [_show(speed.table(times))]

    if asked.json:
        figures: dict[str, Sequence[Any]] = {"work": works, "traffic": sent, "times": times}
        plain = {name: [asdict(figure) for figure in of] for name, of in figures.items()}
        asked.json.write_text(json.dumps({"machine": machine, **plain}, indent=1) + "\n")
    if asked.write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text("\n".join([report.heading(machine), *(table.markdown() for table in tables)]))
    wasteful = work.wasteful(works) + traffic.wasteful(sent)
    for line in wasteful:
        print(line, file=sys.stderr)
    return 1 if wasteful else 0


def _show(table: Table) -> Table:
    print(table.markdown(), flush=True)
    return table


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description="Measure what one round of gandist costs.")
    parser.add_argument("--quick", action="store_true", help="a smoke run of half a minute")
    parser.add_argument("--threads", type=int, help="threads that compute; all cores when left out")
    parser.add_argument("--seconds", type=float, help=f"of timing for each of the cases; {SECONDS:g} when left out")
    parser.add_argument("--json", type=Path, help="write all figures to this file, block by block")
    parser.add_argument("--write", action="store_true", help=f"write the tables to {RESULTS.name}")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
