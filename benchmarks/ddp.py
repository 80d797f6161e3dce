"""Measure what two processes cost against one: bytes, time, and how much of a reduction is hidden.

    .venv/bin/python benchmarks/ddp.py            # some minutes on 2 cores
    .venv/bin/python benchmarks/ddp.py --write    # ... and keep the tables in benchmarks/results/ddp-cpu.md
    .venv/bin/python benchmarks/ddp.py --quick    # half a minute: does it run?

The bytes are exact and must be the least possible: the script fails if they are not. Times mean something on a
machine that does nothing else.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rounds import report, scaling, traffic

RESULTS = Path(__file__).parent / "results" / "ddp-cpu.md"


def main() -> int:
    """Measure, print, and keep the figures where asked; return 1 if a count is not the least."""
    parser = argparse.ArgumentParser(description="Measure what two processes cost against one.")
    parser.add_argument("--quick", action="store_true", help="a smoke run of half a minute")
    parser.add_argument("--write", action="store_true", help=f"write the tables to {RESULTS.name}")
    asked = parser.parse_args()
    top = report.heading(report.machine(1), "What two processes cost against one, on CPUs", "benchmarks/ddp.py")
    print(top, flush=True)
    sent = traffic.measure(traffic.QUICK if asked.quick else traffic.CASES)
    pages = [top, traffic.table(sent).markdown()]
    print(pages[-1], flush=True)
    found = scaling.measure(scaling.QUICK if asked.quick else scaling.CASES)
    pages += [scaling.speeds(found).markdown(), scaling.overlaps(found).markdown()]
    print(*pages[-2:], sep="\n", flush=True)
    if asked.write:
        RESULTS.write_text("\n".join(pages))
    wasteful = traffic.wasteful(sent)
    for line in wasteful:
        print(line, file=sys.stderr)
    return 1 if wasteful else 0


if __name__ == "__main__":
    sys.exit(main())
