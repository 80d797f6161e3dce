"""What is written down while training, behind one door: a row, a picture, an event, and the end.

Rank 0 holds a :class:`Tracker`, every other rank a :class:`NullTracker`, so a trainer never asks who it is::

    metrics.jsonl   every row                             tensorboard/   rows and pictures, if asked for
    events.log      what happened, also on the screen     wandb/         rows and pictures, if asked for
"""

from __future__ import annotations

import contextlib
import importlib.util
import netrc
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TextIO
from urllib.parse import urlsplit

from gandist.config import TrackingConfig
from gandist.errors import MachineError
from gandist.runtime.metrics_log import MetricsLog
from gandist.runtime.progress import Progress
from gandist.runtime.status import Outcome
from gandist.runtime.wandb_link import WandbLink

# --- before a run ------------------------------------------------------------------------------------------


def check_tracking(tracking: TrackingConfig) -> None:
    """Raise :class:`MachineError` if something asked for cannot work here; asks no network."""
    if tracking.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise MachineError(
            "tracking.tensorboard is true, but the package is missing. "
            "Install it with: pip install tensorboard, or pass --tracking.tensorboard false."
        )
    if tracking.wandb.mode != "disabled" and importlib.util.find_spec("wandb") is None:
        raise MachineError(
            f"tracking.wandb.mode is {tracking.wandb.mode}, but the package is missing. "
            "Install it with: pip install wandb, or pass --tracking.wandb.mode disabled."
        )
    if tracking.wandb.mode == "online" and not _wandb_key_exists():
        raise MachineError(
            "tracking.wandb.mode is online, but there is no W&B API key. "
            "Set WANDB_API_KEY or run: wandb login; or pass --tracking.wandb.mode offline (upload later), "
            "or --tracking.wandb.mode disabled."
        )


def _wandb_key_exists() -> bool:
    """Say whether wandb will find credentials: in the environment, in netrc, or in its settings file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    settings = Path(os.environ.get("WANDB_CONFIG_DIR", "~/.config/wandb")).expanduser() / "settings"
    written = settings.read_text(encoding="utf-8", errors="replace") if settings.is_file() else ""
    pairs = (line.partition("=") for line in written.splitlines())
    stated = {name.strip(): value.strip() for name, _, value in pairs}
    return "api_key" in stated or _in_netrc(os.environ.get("WANDB_BASE_URL") or stated.get("base_url"))


def _in_netrc(base_url: str | None) -> bool:
    candidates = [os.environ.get("NETRC"), "~/.netrc", "~/_netrc"]
    paths = [path for path in (Path(name).expanduser() for name in candidates if name) if path.is_file()]
    try:
        machines = netrc.netrc(paths[0]).hosts if paths else {}
    except (netrc.NetrcParseError, OSError):
        return False  # wandb does not read it either
    if "default" in machines:
        return True
    if base_url:
        return urlsplit(base_url).netloc in machines
    return any(name.endswith(("wandb.ai", "coreweave.com")) for name in machines)  # W&B's own servers, old and new


# --- the parts ---------------------------------------------------------------------------------------------


class EventLog:
    """``events.log``: one line for each thing that happened, with its time, in the file and on the screen."""

    def __init__(self, path: Path, show: Callable[[str], None]) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._show = show

    def write(self, message: str) -> None:
        """Write a message; the lines after its first are indented."""
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {message}".replace("\n", "\n    ")
        self._show(line)
        with contextlib.suppress(OSError):  # a full disk is reported by what needs the space
            self._file.write(line + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):
            self._file.close()


class TensorBoard:
    """TensorBoard files over images seen; events of an earlier session past its start are hidden."""

    def __init__(self, folder: Path, start_images: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # here, since few runs need it

        self._writer = SummaryWriter(str(folder), purge_step=start_images + 1 if start_images else None, flush_secs=10)

    def row(self, images_seen: int, metrics: Mapping[str, float]) -> None:
        """Add one point to every curve."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, images_seen)

    def picture(self, images_seen: int, name: str, path: Path) -> None:
        """Add an image file."""
        import numpy as np
        from PIL import Image

        with Image.open(path) as image:
            self._writer.add_image(name, np.asarray(image.convert("RGB")), images_seen, dataformats="HWC")

    def close(self) -> None:
        """Write out what waits."""
        self._writer.close()


# --- the door ----------------------------------------------------------------------------------------------


class AnyTracker(Protocol):
    """What a trainer may ask of its tracker, on every rank."""

    def log(self, images_seen: int, round_index: int, metrics: Mapping[str, float]) -> None:
        """Record one row of metrics."""

    def picture(self, images_seen: int, name: str, path: Path) -> None:
        """Record an image file under a name such as ``samples/ema``; it must stay where it is."""

    def event(self, message: str) -> None:
        """Tell a person what happened."""

    @property
    def metrics_position(self) -> int:
        """Length of ``metrics.jsonl`` in bytes, for the checkpoint."""

    def rewind(self, metrics_position: int) -> None:
        """Take back the rows beyond a position that :attr:`metrics_position` was at before."""

    def close(self, outcome: Outcome, farewell: str) -> None:
        """End the session with a last word; takes at most half a minute."""


class Tracker:
    """Everything that rank 0 writes down in one session of a run.

    Args:
        folder: The run's folder.
        tracking: What is asked for; see :func:`check_tracking`.
        name: The run's name.
        total_images: Length of the run.
        settings: The resolved configuration, for W&B.
        environment: Versions, devices, world size and the like, for W&B; no secrets.
        metrics_position: What the checkpoint stored; None for a run that starts anew.
        start_images: Images seen where this session begins.
        screen: Where progress and events are shown; standard error if None.

    """

    def __init__(
        self,
        folder: Path,
        tracking: TrackingConfig,
        *,
        name: str,
        total_images: int,
        settings: Mapping[str, Any],
        environment: Mapping[str, Any],
        metrics_position: int | None,
        start_images: int,
        screen: TextIO | None = None,
    ) -> None:
        check_tracking(tracking)
        folder.mkdir(parents=True, exist_ok=True)
        self._progress = Progress(total_images, start_images, screen if screen is not None else sys.stderr)
        self._events = EventLog(folder / "events.log", self._progress.line)
        self._metrics = MetricsLog(folder / "metrics.jsonl", metrics_position or 0)
        if self._metrics.notice:
            self.event(self._metrics.notice)
        self._tensorboard = TensorBoard(folder / "tensorboard", start_images) if tracking.tensorboard else None
        self._wandb: WandbLink | None = None
        if tracking.wandb.mode != "disabled":
            config = {**settings, "environment": dict(environment)}
            self._wandb = WandbLink(folder, tracking.wandb, name=name, config=config, say=self.event)

    def log(self, images_seen: int, round_index: int, metrics: Mapping[str, float]) -> None:
        """Record one row of metrics everywhere."""
        metrics = {name: float(value) for name, value in metrics.items()}
        self._metrics.append(images_seen, round_index, metrics)
        self._progress.update(images_seen, metrics)
        if self._tensorboard:
            self._tensorboard.row(images_seen, metrics)
        if self._wandb:
            self._wandb.row({"images_seen": images_seen, "round": round_index, **metrics})

    def picture(self, images_seen: int, name: str, path: Path) -> None:
        """Record an image file under a name such as ``samples/ema``; it must stay where it is."""
        if self._tensorboard:
            self._tensorboard.picture(images_seen, name, path)
        if self._wandb:
            self._wandb.picture(images_seen, name, path)

    def event(self, message: str) -> None:
        """Tell a person what happened: in ``events.log`` and above the progress line."""
        self._events.write(message)

    @property
    def metrics_position(self) -> int:
        """Length of ``metrics.jsonl`` in bytes, for the checkpoint."""
        return self._metrics.position

    def rewind(self, metrics_position: int) -> None:
        """Take back rows of ``metrics.jsonl``; W&B and TensorBoard keep theirs, and get the new ones beside them."""
        self._metrics.close()
        self._metrics = MetricsLog(self._metrics.path, metrics_position)
        if self._metrics.notice:
            self.event(self._metrics.notice)

    def close(self, outcome: Outcome, farewell: str) -> None:
        """End the session with a last word; takes at most half a minute, whatever state W&B is in."""
        self._progress.finish()
        self.event(farewell)
        if self._wandb:
            self._wandb.close(outcome)
        if self._tensorboard:
            self._tensorboard.close()
        self._metrics.close()
        self._events.close()


class NullTracker:
    """What the ranks other than 0 hold: writes nothing."""

    def log(self, images_seen: int, round_index: int, metrics: Mapping[str, float]) -> None:
        """Do nothing."""

    def picture(self, images_seen: int, name: str, path: Path) -> None:
        """Do nothing."""

    def event(self, message: str) -> None:
        """Do nothing."""

    @property
    def metrics_position(self) -> int:
        """Nothing is written."""
        return 0

    def rewind(self, metrics_position: int) -> None:
        """Do nothing."""

    def close(self, outcome: Outcome, farewell: str) -> None:
        """Do nothing."""
