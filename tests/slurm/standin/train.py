"""A trainer that trains nothing and keeps the real one's word to scripts: signals, STOP, status.json, exit codes.

Rank 0 counts rounds and saves the count; the other ranks follow it through status.json.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from itertools import pairwise
from pathlib import Path

NAMES = [value for flag, value in pairwise(sys.argv) if flag == "--run.name"]
FOLDER = Path("runs") / ["standin", *NAMES][-1]
ATTEMPT = os.environ.get("SLURM_RESTART_COUNT", "0")
SAVED_AND_STOPPED = 75


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--crash-at", type=int, help="kill this process in that round")
    parser.add_argument("--save-seconds", type=float, default=0)
    parser.add_argument("--linger", action="store_true", help="rank 1 does not end by itself")
    parser.add_argument(
        "--deaf", action="store_true", help="hear no signal, as where Slurm signals only the task's shell"
    )
    parser.add_argument("--slow", action="store_true", help="play no round before being asked to stop")
    parser.add_argument(
        "--forgetful", action="store_true", help="take the first STOP for an old one, as while the trainer starts"
    )
    parser.add_argument("--fail-early", action="store_true", help="end before anything is written")
    options, _ = parser.parse_known_args()
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN if options.deaf else lambda received, frame: asked.append(received))
    assert world == int(os.environ["GANDIST_LAUNCHED_WORLD"])
    if options.fail_early:
        return 2
    (FOLDER / f"rank{rank}.json").write_text(
        json.dumps({"arguments": sys.argv[1:], "world": world, "node": os.environ["SLURMD_NODENAME"]})
    )
    return lead(options, asked) if rank == 0 else follow(options)


def lead(options: argparse.Namespace, asked: list[int]) -> int:
    saved = FOLDER / "saved"
    first = int(saved.read_text()) if saved.exists() else 0
    if options.forgetful and ATTEMPT == "0":
        forget_a_request()
    write_status("running", first)
    print(f"attempt {ATTEMPT} starts at round {first}", flush=True)
    while options.slow and not (FOLDER / "STOP").exists():
        time.sleep(0.02)
    for done in range(first, options.rounds):
        if asked or (FOLDER / "STOP").exists():
            end_of_save = time.monotonic() + options.save_seconds
            while time.monotonic() < end_of_save:  # further signals do not shorten a save
                time.sleep(0.05)
            saved.write_text(str(done))
            write_status("preempted", done)
            return SAVED_AND_STOPPED
        if done == options.crash_at:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.05)  # a round
    write_status("done", options.rounds)
    return 0


def forget_a_request() -> None:
    print("starting", flush=True)
    while not (FOLDER / "STOP").exists():
        time.sleep(0.02)
    (FOLDER / "STOP").unlink()


def follow(options: argparse.Namespace) -> int:
    while (state := read_state()) in (None, "running"):
        time.sleep(0.02)
    if options.linger:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pause()
    return {"done": 0, "preempted": SAVED_AND_STOPPED}[state]


def write_status(state: str, rounds: int) -> None:
    new = FOLDER / "status.new"
    new.write_text(json.dumps({"state": state, "images_seen": rounds, "attempt": ATTEMPT}, indent=2))
    new.replace(FOLDER / "status.json")


def read_state() -> str | None:
    try:
        status = json.loads((FOLDER / "status.json").read_text())
    except FileNotFoundError:
        return None
    return str(status["state"]) if status["attempt"] == ATTEMPT else None


if __name__ == "__main__":
    sys.exit(main())
