"""Checkpoints: safetensors and JSON, complete or invisible, never pickle.

::

    checkpoints/000102400/           named by images seen
        generator.safetensors ...    one file for each part
        state.json                   counters, configuration: everything that is not a tensor
        manifest.json                name, size and SHA-256 of every other file; written last
    checkpoints/latest               the name of the newest complete one
    best -> checkpoints/000051200    beside that folder: the best one by ``state["best"]``, kept while it is

A checkpoint is written into a hidden folder, flushed, and published by one rename. On reading, every byte is
checked against the manifest; a damaged checkpoint is passed over, loudly, for the one before it.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from gandist.errors import CheckpointError, RunError
from gandist.runtime.files import digest, flush_file, flush_folder, publish, write_json, write_text

FORMAT = "gandist-checkpoint"
VERSION = 1
BEST = "best"

_FILE_NAME = re.compile(r"[a-z0-9_]{1,100}\.(safetensors|json)")
_LONGEST_JSON_BYTES = 64 << 20
VISIBLE_SECONDS = 30.0
"""How long a shared file system may take to show on one node what another has written."""


@dataclass(frozen=True)
class Part:
    """One file of a checkpoint.

    Attributes:
        tensors: by name.
        header: what the file says about them.
        steady: names of tensors that nothing changes but a step of an optimizer or of the average.

    """

    tensors: Mapping[str, Tensor]
    header: Mapping[str, str] | None = None
    steady: Collection[str] = ()


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on the disk whose bytes were verified."""

    folder: Path
    state: Mapping[str, Any]

    @property
    def images_seen(self) -> int:
        """Return the position in the run."""
        return int(self.state["images_seen"])

    def tensors(self, part: str) -> dict[str, Tensor]:
        """Return the tensors of one part, on the CPU."""
        return read_weights(self.folder / f"{part}.safetensors")[0]


class CheckpointStore:
    """The checkpoints of one run. Only rank 0 writes; every rank reads.

    Args:
        folder: that holds them.
        keep: newest checkpoints that are kept.
        keep_every_images: the first checkpoint in each interval of so many images is kept for ever, if not None.
        fence: called just before a checkpoint is published; raises an error if that is no longer ours to do.

    """

    def __init__(
        self,
        folder: Path,
        keep: int,
        keep_every_images: float | None = None,
        fence: Callable[[], None] | None = None,
    ) -> None:
        self.folder = folder
        self.keep = keep
        self.keep_every_images = keep_every_images
        self.fence = fence

    def names(self) -> list[str]:
        """Return the names of the published checkpoints, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted((entry.name for entry in self.folder.iterdir() if entry.name.isdigit()), key=int)

    def save(self, images_seen: int, parts: Mapping[str, Part], state: Mapping[str, Any]) -> Path:
        """Write and publish a checkpoint, then drop the ones that are no longer kept.

        Raises:
            CheckpointError: it could not be written; what was there before is untouched.
            RunError: raised by the fence.

        """
        target = self.folder / f"{images_seen:09d}"
        draft = self.folder / f".{target.name}.{os.getpid()}.part"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.sweep()
            self._write(draft, parts, {"images_seen": images_seen, **state})
            if self.fence is not None:
                self.fence()
            self._publish(draft, target)
            best = self._mark_best(state)
        except RunError:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        except OSError as error:
            shutil.rmtree(draft, ignore_errors=True)
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            advice = "the disk is full: free some space" if full else "make the folder writable"
            raise CheckpointError(
                f"{target}: the checkpoint could not be written ({error}); {advice}. Earlier checkpoints are whole."
            ) from None
        with suppress(OSError):  # one that cannot be dropped now is dropped after the next save
            self._prune(images_seen, best)
        return target

    def _mark_best(self, state: Mapping[str, Any]) -> str | None:
        """Point ``best`` at the checkpoint that the state names, if it is there; return its name."""
        chosen = state.get("best")
        name = f"{chosen['images_seen']:09d}" if chosen else None
        if name is None or not (self.folder / name).is_dir():
            return None
        link, target = self.folder.parent / BEST, f"{self.folder.name}/{name}"
        if not link.is_symlink() or str(link.readlink()) != target:
            new = self.folder.parent / f".{BEST}.{os.getpid()}.part"
            new.unlink(missing_ok=True)
            new.symlink_to(target)
            new.replace(link)
        return name

    def _write(self, draft: Path, parts: Mapping[str, Part], state: Mapping[str, Any]) -> None:
        draft.mkdir()
        for name, part in parts.items():
            path = draft / f"{name}.safetensors"
            _save_tensors(part.tensors, path, part.header)
            flush_file(path)
        write_json(draft / "state.json", {"format": FORMAT, "version": VERSION, **state})
        files = sorted(path for path in draft.iterdir())
        manifest = {path.name: {"bytes": path.stat().st_size, "sha256": digest(path)} for path in files}
        write_json(draft / "manifest.json", {"format": FORMAT, "version": VERSION, "files": manifest})

    def _publish(self, draft: Path, target: Path) -> None:
        if target.exists():  # the same position saved again, after a resume from it
            replaced = self.folder / f".{target.name}.replaced.part"
            shutil.rmtree(replaced, ignore_errors=True)
            target.rename(replaced)
            draft.rename(target)
            shutil.rmtree(replaced)
        else:
            draft.rename(target)
        flush_folder(self.folder)
        write_text(self.folder / "latest", target.name + "\n")

    def _say_latest(self, name: str) -> None:
        """Put ``latest`` right where an interrupted save left it behind, or the one it names is damaged."""
        latest, text = self.folder / "latest", name + "\n"
        with suppress(OSError):  # it is for people and scripts; the next save writes it again
            if not latest.is_file() or latest.read_bytes() != text.encode():
                write_text(latest, text)

    def _prune(self, images_seen: int, best: str | None) -> None:
        # Checkpoints ahead of this position were passed over as damaged: they must not push out a whole one.
        reached = [name for name in self.names() if int(name) <= images_seen]
        milestones = self._milestones(reached)
        for name in reached[: -self.keep]:
            if name in milestones or name == best:
                continue
            hidden = self.folder / f".{name}.dropped.part"
            (self.folder / name).rename(hidden)
            shutil.rmtree(hidden, ignore_errors=True)

    def _milestones(self, names: Sequence[str]) -> set[str]:
        """Return the first checkpoint of each interval, after the one that the run begins in."""
        if self.keep_every_images is None:
            return set()
        first: dict[int, str] = {}
        for name in names:
            first.setdefault(int(int(name) // self.keep_every_images), name)
        return {name for interval, name in first.items() if interval > 0}

    def sweep(self) -> None:
        """Remove what interrupted saves left behind; a replaced checkpoint whose successor never came is put back."""
        for link in self.folder.parent.glob(f".{BEST}.*.part"):
            link.unlink(missing_ok=True)
        for leftover in self.folder.glob(".*.part"):
            name = leftover.name.split(".")[1]
            if leftover.name.endswith(".replaced.part") and not (self.folder / name).exists():
                leftover.rename(self.folder / name)
            elif leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)

    def open(self, name: str) -> Checkpoint:
        """Return a checkpoint that rank 0 has found whole, without reading every byte again.

        On a shared file system another node may see its files a little later: they are waited for.
        """
        end = time.monotonic() + VISIBLE_SECONDS
        while True:
            try:
                files = _read_json(self.folder / name / "manifest.json")["files"]
                for file in files:
                    (self.folder / name / file).stat()
                return Checkpoint(self.folder / name, _read_json(self.folder / name / "state.json"))
            except (CheckpointError, OSError):
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def newest(self, warn: Callable[[str], None]) -> Checkpoint | None:
        """Return the newest checkpoint that is whole, telling ``warn`` of each damaged one that was passed over.

        Raises:
            CheckpointError: there are checkpoints, but none is whole; starting anew would lose the run.

        """
        if self.folder.is_dir():
            self.sweep()
        names = self.names()
        for name in reversed(names):
            try:
                found = open_checkpoint(self.folder / name)
            except CheckpointError as error:
                warn(f"{error} Falling back to the checkpoint before it.")
            else:
                self._say_latest(name)
                return found
        if names:
            raise CheckpointError(
                f"{self.folder}: none of the {len(names)} checkpoint(s) is whole. Move the folder away to start anew."
            )
        return None


def open_checkpoint(folder: Path) -> Checkpoint:
    """Return the checkpoint in ``folder`` after checking every byte of it.

    Raises:
        CheckpointError: a file is missing, short, changed, or of an unknown format.

    """
    manifest = _read_json(folder / "manifest.json")
    files = manifest.get("files")
    known = manifest.get("format") == FORMAT and manifest.get("version") == VERSION
    if not known or not isinstance(files, dict) or "state.json" not in files:
        raise CheckpointError(f"{folder}/manifest.json: not a checkpoint of this version of gandist.")
    for name, recorded in files.items():
        if not _FILE_NAME.fullmatch(name):
            raise CheckpointError(f"{folder}/manifest.json: {name[:100]!a} is no file of a checkpoint: damaged.")
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{path}: missing.")
        if not isinstance(recorded, dict) or not {"bytes", "sha256"} <= recorded.keys():
            raise CheckpointError(f"{folder}/manifest.json: says nothing of {name}: damaged.")
        if path.stat().st_size != recorded["bytes"]:
            raise CheckpointError(f"{path}: {path.stat().st_size} bytes, {recorded['bytes']} were written: damaged.")
        if digest(path) != recorded["sha256"]:
            raise CheckpointError(f"{path}: its digest is not the one written: damaged.")
    return Checkpoint(folder, _read_json(folder / "state.json"))


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file, on the CPU, and its header.

    Raises:
        CheckpointError: the file is not whole.

    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in list(file.keys())}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: cannot be read as safetensors ({error}).") from None


def write_weights(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file, whole or not at all.

    Raises:
        OSError: it could not be written; what was there before is untouched.

    """
    with publish(path) as partial:
        _save_tensors(tensors, partial, header)


def _save_tensors(tensors: Mapping[str, Tensor], path: Path, header: Mapping[str, str] | None) -> None:
    whole = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    try:
        save_file(whole, path, metadata=dict(header) if header else None)
    except SafetensorError as error:  # safetensors wraps the system's error; keep its meaning
        full = "No space left" in str(error) or "File too large" in str(error)
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error)) from None


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():  # absent, or a pipe or a device, whose reading may never end
        raise CheckpointError(f"{path}: missing.")
    try:
        if (size := path.stat().st_size) > _LONGEST_JSON_BYTES:
            raise ValueError(f"{size} bytes long")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}): damaged.") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: not a JSON object: damaged.")
    return content


# --- modules and optimizers as named tensors -----------------------------------------------------------------


@torch.no_grad()
def load_module(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Copy saved tensors into a module, in place, names and shapes checked first.

    Raises:
        CheckpointError: a name or a shape does not fit.

    """
    own = module.state_dict()
    _check_names(own.keys(), tensors.keys(), where)
    for name, tensor in own.items():
        if tensor.shape != tensors[name].shape:
            raise CheckpointError(f"{where}: {name} has shape {list(tensors[name].shape)}, not {list(tensor.shape)}.")
    for name, tensor in own.items():
        tensor.copy_(tensors[name])


def optimizer_tensors(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """Return the optimizer's state as ``parameter name/quantity`` tensors."""
    return {
        f"{name}/{quantity}": value
        for name, parameter in module.named_parameters()
        for quantity, value in optimizer.state.get(parameter, {}).items()
    }


@torch.no_grad()
def load_optimizer(
    optimizer: torch.optim.Optimizer, module: nn.Module, tensors: Mapping[str, Tensor], where: str
) -> None:
    """Put saved state back under its parameters; a network that never stepped has none.

    Raises:
        CheckpointError: a parameter is unknown to the module, or a shape does not fit.

    """
    parameters = dict(module.named_parameters())
    on_device = any(group.get("fused") or group.get("capturable") for group in optimizer.param_groups)
    state: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, quantity = key.rpartition("/")
        parameter = parameters.get(name)
        if parameter is None or (tensor.ndim and tensor.shape != parameter.shape):
            raise CheckpointError(f"{where}: {key} does not fit the network's parameters.")
        if quantity == "step":  # Adam's count of steps: one number, on the device only for fused kernels
            place = tensor.to(parameter.device) if on_device else tensor
        else:
            place = torch.empty_like(parameter).copy_(tensor)
        state.setdefault(name, {})[quantity] = place
    optimizer.state.clear()
    for name, quantities in state.items():
        optimizer.state[parameters[name]] = quantities


def _check_names(own: Any, saved: Any, where: str) -> None:
    missing, unknown = sorted(set(own) - set(saved)), sorted(set(saved) - set(own))
    if missing or unknown:
        raise CheckpointError(
            f"{where}: made by another network: lacks {missing[:3] or 'nothing'}, has {unknown[:3] or 'nothing'} extra."
        )
