"""Measure the order of the real images: its cost at 100 million samples, its fairness over 1,024 ranks, its shuffle.

    .venv/bin/python benchmarks/order.py            # about a minute
    .venv/bin/python benchmarks/order.py --write    # ... and keep the tables in benchmarks/results/order.md
    .venv/bin/python benchmarks/order.py --quick    # some seconds: does it run?

Which samples the ranks read, what nodes fetch and how well classes are mixed is counted, not timed: the same on every
machine. The script fails if ranks do not share batches and epochs exactly.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from orders import mixing, scale, sharing
from rounds import report
from rounds.report import Table

RESULTS = Path(__file__).parent / "results" / "order.md"
TITLE = "What the order of the images costs, and what it is worth"


def main() -> int:
    """Measure, print, and keep the figures where asked; return 1 if ranks do not share exactly."""
    asked = _arguments()
    top = report.heading(report.machine(1), TITLE, "benchmarks/order.py")
    print(top, flush=True)
    tables = [_show(scale.orders(quick=asked.quick))]
    tables += [_show(scale.indexes(quick=asked.quick))]
    shared, wrong = sharing.ranks(quick=asked.quick)
    tables += [_show(shared), _show(sharing.downloads(quick=asked.quick)), _show(mixing.table(quick=asked.quick))]
    if asked.write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text("\n".join([top, *(table.markdown() for table in tables)]))
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


def _show(table: Table) -> Table:
    print(table.markdown(), flush=True)
    return table


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description="Measure the order of the real images.")
    parser.add_argument("--quick", action="store_true", help="a smoke run of some seconds")
    parser.add_argument("--write", action="store_true", help=f"write the tables to {RESULTS.name}")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
