"""The process that speaks to Weights & Biases: rows come in on standard input, one JSON message a line.

The trainer starts it as ``python -m gandist.runtime.wandb_run`` and never imports wandb itself. So nothing that wandb
does can reach a training step: its threads, its exit hooks, its waiting for a server, its death. DataLoader workers
are forked from a trainer that holds none of its locks. When the trainer is killed, this process reads the end of its
input and still hands in what it was given.

====================  =======================================================================================
``{"start": ...}``    the first message: mode, identity, configuration (see :func:`_start`)
``{"row": ...}``      one row, axis ``images_seen`` included
``{"picture": ...}``  ``images_seen``, ``name`` and ``path`` of an image file
``{"finish": ...}``   the last message: ``done``, ``preempted`` or ``failed``
====================  =======================================================================================

It answers on standard output, at most three times: ``{"ready": {"url", "folder"}}``, then ``{"finished": true}``, or
``{"failed": reason}`` at any time.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any, BinaryIO

from gandist.errors import EXIT_DONE, EXIT_FAILED, EXIT_PREEMPTED

FLUSH_SECONDS = 2.0  # wandb keeps rows in memory this long before they are in its file; its default is 15
LINGER_SECONDS = 60.0  # for handing in the rest after the trainer was killed
_FOR_THE_TRAINER = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_EXIT_CODES = {"done": EXIT_DONE, "preempted": EXIT_PREEMPTED, "failed": EXIT_FAILED}


def main() -> None:
    """Serve one run from standard input; never returns."""
    inbox, outbox = _own_pipes()
    # Slurm signals every process of a step, but only the trainer knows what to do. Blocked, and not ignored: wandb's
    # service inherits either, and installs its own handlers over the second.
    signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_THE_TRAINER)
    code = EXIT_DONE
    try:
        import wandb  # here, so that a broken installation is reported like any other failure

        run = _start(wandb, json.loads(inbox.readline())["start"])
        _answer(outbox, "ready", {"url": None if run.offline else run.url, "folder": str(Path(run.dir).parent)})
        _serve(wandb, run, inbox)
        wandb.teardown()
        _answer(outbox, "finished", True)
    except (Exception, SystemExit) as error:
        _answer(outbox, "failed", f"{type(error).__name__}: {' '.join(str(error).split())}")
        code = EXIT_FAILED
    os._exit(code)  # past wandb's exit hooks: all that is worth waiting for has been waited for


def _own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Take the pipes for this code alone: what wandb or its service print or ask must not mix with the messages."""
    inbox, outbox = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    return inbox, outbox


def _start(wandb: Any, start: dict[str, Any]) -> Any:
    sys.argv = start["argv"]  # what W&B shows as the run's command
    wanted = {
        "init_timeout": start["connect_seconds"],
        "x_transaction_log_flush_interval": FLUSH_SECONDS,
        "x_stats_pid": start["trainer_pid"],  # whose memory and CPU W&B plots
        "program": start["argv"][0],
        "console": "off",
        "silent": True,
    }
    known = {name: value for name, value in wanted.items() if name in wandb.Settings.model_fields}
    run = wandb.init(
        **start["identity"],
        mode=start["mode"],
        dir=start["folder"],
        config=start["config"],
        allow_val_change=True,  # a continued run may have another world size
        resume="allow",
        job_type="train",
        settings=wandb.Settings(**known),
    )
    run.define_metric("images_seen")
    run.define_metric("*", step_metric="images_seen")
    return run


def _serve(wandb: Any, run: Any, inbox: BinaryIO) -> None:
    outcome = "failed"  # of a trainer that ends without a word
    for line in inbox:
        if not line.endswith(b"\n"):
            break
        ((kind, content),) = json.loads(line).items()
        if kind == "finish":
            outcome = content
            break
        run.log(content if kind == "row" else _picture(wandb, content))
    linger = threading.Timer(LINGER_SECONDS, os._exit, [EXIT_FAILED])
    linger.daemon = True
    linger.start()
    if outcome == "preempted":
        run.mark_preempting()
    run.finish(exit_code=_EXIT_CODES[outcome])


def _picture(wandb: Any, content: dict[str, Any]) -> dict[str, Any]:
    caption = f"{content['images_seen'] / 1000:g} kimg"
    return {"images_seen": content["images_seen"], content["name"]: wandb.Image(content["path"], caption=caption)}


def _answer(outbox: BinaryIO, kind: str, content: Any) -> None:
    with contextlib.suppress(OSError):  # the trainer is gone; the rows still count
        outbox.write(json.dumps({kind: content}).encode() + b"\n")
        outbox.flush()


if __name__ == "__main__":
    main()
