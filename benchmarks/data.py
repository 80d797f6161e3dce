"""Measure what it costs to bring images to a trainer, beside other ways to do it.

    .venv/bin/python benchmarks/data.py            # about 5 minutes on 2 cores
    .venv/bin/python benchmarks/data.py --write    # ... and keep the tables in benchmarks/results/data-cpu.md
    .venv/bin/python benchmarks/data.py --quick    # half a minute: does it run?

Each figure stands beside one that was measured at the same time, so the ratios mean something on a busy machine too.
With --strict the script fails where gandist misses its targets.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from pipelines import preparing, resume, throughput
from pipelines.pictures import Kind, store
from rounds import report
from rounds.report import Table

RESULTS = Path(__file__).parent / "results" / "data-cpu.md"
TITLE = "What it costs to read images, on CPUs"
KINDS = [Kind(256, "jpg", 512), Kind(32, "jpg", 4096), Kind(32, "npy", 4096)]
QUICK = [Kind(256, "jpg", 128), Kind(32, "jpg", 1024)]
IMAGES = {256: 1280, 32: 12_800}  # of a block


def main() -> int:
    """Measure, print, and keep the figures where asked; with --strict return 1 if a target is missed."""
    warnings.simplefilter("ignore")  # other libraries' words about themselves
    asked = _arguments()
    top = report.heading(report.machine(1), TITLE, "benchmarks/data.py")
    print(top, flush=True)
    found = []
    for kind in QUICK if asked.quick else KINDS:
        with tempfile.TemporaryDirectory(prefix="gandist-data-") as folder:
            images = IMAGES[kind.resolution] // (10 if asked.quick else 1)
            found += throughput.measure(store(kind, Path(folder)), blocks=1 if asked.quick else 3, images=images)
    tables = [_show(throughput.table(found))]
    tables += [_show(resume.measure(quick=asked.quick)), _show(preparing.measure(quick=asked.quick))]
    if asked.write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text("\n".join([top, *(table.markdown() for table in tables)]))
    slow = throughput.too_slow(found)
    for line in slow:
        print(line, file=sys.stderr)
    return 1 if slow and asked.strict else 0


def _show(table: Table) -> Table:
    print(table.markdown(), flush=True)
    return table


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description="Measure what it costs to bring images to a trainer.")
    parser.add_argument("--quick", action="store_true", help="a smoke run of half a minute")
    parser.add_argument("--strict", action="store_true", help="fail where a target is missed")
    parser.add_argument("--write", action="store_true", help=f"write the tables to {RESULTS.name}")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
