"""A program that kills one run again and again at random moments, and looks after each kill at what is left.

``random_kills.py FOLDER KILLS SEED``. Torch is imported once and each attempt is a fork, so that hundreds fit into a
test; every twentieth is a process of its own, with workers. It prints one JSON object for each kill, and at the end
one for the comparison with a run that nobody disturbed.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "trainer"))

from trainer_runs import digests, make_config, metrics

from gandist.config import Config, dump
from gandist.runtime.checkpoint import open_checkpoint, read_weights
from gandist.trainer import Trainer

BATCH, ROUNDS_PER_CHECKPOINT = 16, 20
INTERVAL = BATCH * ROUNDS_PER_CHECKPOINT
EVERY_ROUND = {"tracking": {"every_kimg": BATCH / 1000}, "samples": {"every_kimg": INTERVAL / 1000}}
RECIPE: dict[str, Any] = {"checkpoint": {"every_kimg": INTERVAL / 1000, "keep": 2}, **EVERY_ROUND}
REAL_PROCESS_EVERY = 20


def configuration(root: Path, images: float) -> Config:
    return make_config(root, {**RECIPE, "run": {"total_kimg": images / 1000}})


def forked(config: Config) -> int:
    """Play a run in a fork of this process; return its pid."""
    child = os.fork()
    if child:
        return child
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    code = 1
    try:
        code = Trainer(config).train()
    finally:
        os._exit(code)


def process(config: Config, folder: Path) -> int:
    """Play a run in a process of its own, with workers; return its pid."""
    recipe = folder / "recipe.yaml"
    recipe.write_text(json.dumps(dump(config)))
    command = [sys.executable, "-m", "gandist.cli", "train", str(recipe), "--execution.workers", "2"]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL).pid


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.0002)


def saving(run: Path) -> bool:
    """Return whether a save is on its way: its draft is there, or what it replaces is not gone yet."""
    checkpoints = run / "checkpoints"
    return checkpoints.is_dir() and any(entry.name.endswith(".part") for entry in os.scandir(checkpoints))


def reached(run: Path) -> int:
    """Return the images seen at the last row of the metrics that is whole."""
    log = run / "metrics.jsonl"
    rows = log.read_bytes().split(b"\n")[:-1] if log.exists() else []
    return json.loads(rows[-1])["images_seen"] if rows else 0


def newest(run: Path) -> int:
    """Return the position of the newest checkpoint, after reading every byte and every tensor of it; 0 if none."""
    names = [path.name for path in run.glob("checkpoints/*") if path.name.isdigit()]
    if not names:
        return 0
    folder = run / "checkpoints" / max(names, key=int)
    for weights in (open_checkpoint(folder).folder).glob("*.safetensors"):
        assert read_weights(weights)[0]
    return int(folder.name)


def attempt(config: Config, folder: Path, number: int, draw: random.Random) -> dict[str, Any]:
    """Begin or continue the run, kill it at a random moment, and return what was found."""
    run = config.folder
    before = newest(run)
    real = number % REAL_PROCESS_EVERY == REAL_PROCESS_EVERY - 1
    pid = process(config, folder) if real else forked(config)
    aimed = draw.random() < 0.5
    if aimed:  # at a save, from its first file to the removal of what it makes superfluous
        wait_until(lambda: reached(run) > before + BATCH and saving(run))
        time.sleep(draw.uniform(0, 0.02))
    else:  # anywhere: while it is built, while it reads a checkpoint, while it plays
        time.sleep(draw.uniform(0, 6.0 if real else 1.0))
    os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    position = reached(run)
    begun = (position - 1) // INTERVAL * INTERVAL  # the row comes before the save of its round
    return {
        "kill": number,
        "code": code,
        "real": real,
        "in_a_save": saving(run),
        "before": before,
        "position": position,
        "newest": newest(run),
        "oldest_allowed": max(begun - INTERVAL, before),
    }


def main(root: Path, kills: int, seed: int) -> None:
    draw = random.Random(seed)
    endless = configuration(root / "killed", 1e12)
    for number in range(kills):
        print(json.dumps(attempt(endless, root, number, draw)), flush=True)
    end = newest(endless.folder) + 2 * INTERVAL
    runs = [configuration(root / name, end) for name in ("killed", "straight")]
    codes = [os.waitstatus_to_exitcode(os.waitpid(forked(config), 0)[1]) for config in runs]
    killed, straight = (config.folder for config in runs)
    comparison = {
        "codes": codes,
        "end": end,
        "rows": len(metrics(straight)),
        "same_weights": digests(killed) == digests(straight),
        "same_rows": metrics(killed) == metrics(straight),
    }
    print(json.dumps(comparison), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
