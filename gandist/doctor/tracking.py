"""Weights & Biases and TensorBoard: what is asked for, and whether it can work."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable

from gandist.config import TrackingConfig
from gandist.doctor.finding import Finding, fail, halves, ok, warn, within
from gandist.doctor.software import version
from gandist.errors import MachineError
from gandist.runtime.place import Place
from gandist.runtime.tracking import check_tracking

SERVER = "https://api.wandb.ai"
ANSWER_SECONDS = 8.0

Ask = Callable[[str], object]


def tracking_findings(tracking: TrackingConfig) -> list[Finding]:
    """Look whether what the recipe asks for is installed, and whether there is a key; asks no network."""
    mode = tracking.wandb.mode
    try:
        check_tracking(tracking)
    except MachineError as error:
        fact, advice = halves(str(error))
        return [fail("W&B" if "wandb" in fact else "TensorBoard", fact, advice)]
    installed = version("wandb")
    findings = [ok("TensorBoard", "files are written beside the run")] if tracking.tensorboard else []
    if mode == "online":
        return [*findings, ok("W&B", f"online, wandb {installed}, a key is there")]
    if mode == "offline":
        return [*findings, ok("W&B", f"offline, wandb {installed}; hand in later with wandb sync")]
    key = "a key is there" if _key_exists(tracking) else "no key here: wandb login, where you want it"
    return [*findings, ok("W&B", f"off; wandb {installed} is installed, {key}")]


def _key_exists(tracking: TrackingConfig) -> bool:
    online = tracking.wandb.model_copy(update={"mode": "online"})
    try:
        check_tracking(tracking.model_copy(update={"wandb": online}))
    except MachineError:
        return False
    return True


def ask(url: str) -> None:
    """Ask a server for anything; any answer will do.

    Raises:
        OSError: there is none.

    """
    try:
        urllib.request.urlopen(url, timeout=ANSWER_SECONDS).close()
    except urllib.error.HTTPError as error:
        error.close()


def server_findings(tracking: TrackingConfig, place: Place, asker: Ask = ask) -> list[Finding]:
    """Look whether W&B's server answers, if it will be asked."""
    if tracking.wandb.mode != "online":
        return []
    server = place.environ.get("WANDB_BASE_URL") or SERVER
    if not server.startswith(("https://", "http://")):
        return [fail("W&B server", f"WANDB_BASE_URL is {server!r}", "It begins with https://")]
    try:
        within(2 * ANSWER_SECONDS, lambda: asker(server))
    except (TimeoutError, OSError) as error:
        reason = getattr(error, "reason", None) or error or "no answer"
        fact = f"{server} does not answer ({str(reason).strip() or type(error).__name__})"
        advice = "The run goes on without it and keeps its rows: wandb sync later, or --tracking.wandb.mode offline."
        return [warn("W&B server", fact, advice)]
    return [ok("W&B server", f"{server} answers")]
