"""The disks: space, whether one may write, whether files can be locked and replaced."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gandist.doctor.figures import count, duration, size
from gandist.doctor.finding import Finding, fail, note, ok, warn
from gandist.errors import MachineError
from gandist.runtime.files import write_text

LITTLE_SPACE_BYTES = 1 << 30
MEMORY_DISKS = ("tmpfs", "ramfs")
NETWORK_DISKS = ("nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p")
OFF_CLOCK_SECONDS = 2.0
WORKSPACE_PREFIX = ".gandist-doctor-"


def space_findings(name: str, folder: Path) -> list[Finding]:
    """Look at the space and the file system of a folder, or of where it would be made."""
    place = standing(folder)
    status = os.statvfs(place)
    free, total = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
    kind = file_system(place)
    fact = f"{folder.absolute()}: {size(free)} of {size(total)} free" + (f", {kind}" if kind else "")
    figures = {"free_bytes": float(free)}
    if status.f_files and status.f_favail == 0:
        return [fail(name, f"{fact}; no room for another file", "Remove small files: its table of files is full.")]
    if free < LITTLE_SPACE_BYTES:
        return [warn(name, fact, "Free some space, or choose a folder on another disk.", **figures)]
    if kind in MEMORY_DISKS and name != "temporary folder":
        advice = "What is written there is gone after a restart: choose a folder on a disk."
        return [warn(name, fact, advice, **figures)]
    return [ok(name, fact, **figures)]


def standing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    return next(place for place in (folder, *folder.parents) if place.exists())


def file_system(place: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """Return the kind of file system that a place lies on, such as ext4 or nfs4; nothing where it is not known."""
    lines = mounts.read_text(errors="replace").splitlines() if mounts.is_file() else []
    resolved = place.resolve()
    best, kind = -1, ""
    for line in lines:
        words = line.split()
        if len(words) < 3:
            continue
        mount = Path(words[1].replace("\\040", " "))
        if (mount == resolved or mount in resolved.parents) and len(mount.parts) >= best:
            best, kind = len(mount.parts), words[2]
    return kind


def temporary_findings() -> list[Finding]:
    """Look at the folder for temporary files, where shards from afar are kept unless a recipe says otherwise."""
    try:
        folder = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        return [fail("temporary folder", str(error), "Set TMPDIR to a folder that can be written.")]
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"gandist")
        file.flush()
    return space_findings("temporary folder", folder)


# --- where runs are written --------------------------------------------------------------------------------


@contextmanager
def workspace(root: Path) -> Iterator[Path]:
    """Give a hidden folder below the root of runs, on their disk, and leave nothing behind; no new root either.

    What an earlier doctor left that was killed is removed as well; one that still lives holds a lock.

    Raises:
        MachineError: nothing can be written there.

    """
    made = [place for place in (root, *root.parents) if not place.exists()]
    folder = root / f"{WORKSPACE_PREFIX}{uuid.uuid4().hex[:12]}"
    try:
        folder.mkdir(parents=True)
        lock = os.open(folder / "owner", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise MachineError(f"{root} cannot be written ({error.strerror}). Choose another --run.root.") from None
    for other in root.glob(f"{WORKSPACE_PREFIX}*"):
        if other != folder:
            _remove_abandoned(other)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    finally:
        os.close(lock)
        remove_tree(folder)
        for place in made:
            with suppress(OSError):  # somebody has begun to use it
                place.rmdir()


def _remove_abandoned(folder: Path) -> None:
    try:
        lock = os.open(folder / "owner", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return  # being made, or being removed
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return
    finally:
        os.close(lock)
    remove_tree(folder)


def remove_tree(folder: Path, seconds: float = 5.0) -> None:
    """Remove a folder and what is in it; a file that somebody else still writes or holds open is tried again."""
    end = time.monotonic() + seconds
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
        if time.monotonic() > end:
            return
        if folder.exists():
            time.sleep(0.05)


def writing_findings(folder: Path) -> list[Finding]:
    """Try in ``folder`` what checkpoints and leases need: replacing a file whole, locking, the clock of the disk."""
    file = folder / "writing"
    before = time.time()
    begin = time.monotonic()
    for number in range(5):
        write_text(file, f"{number}\n")
    seconds = (time.monotonic() - begin) / 5
    findings = [ok("safe writing", f"a small file is flushed and renamed in {duration(seconds)}", seconds=seconds)]
    off = file.stat().st_mtime - time.time()
    if not -OFF_CLOCK_SECONDS - (time.time() - before) <= off <= OFF_CLOCK_SECONDS:
        fact = f"the disk's clock is {duration(abs(off))} {'ahead of' if off > 0 else 'behind'} this machine's"
        findings.append(warn("clock of the disk", fact, "Set both by NTP: files look older or newer than they are."))
    return findings + lock_findings(folder)


def lock_findings(folder: Path) -> list[Finding]:
    """Try a lock twice in this process: the second hold must be refused."""
    kind = file_system(folder)
    with (folder / "lock").open("w") as first, (folder / "lock").open("w") as second:
        try:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            fact = f"this file system has none ({error.strerror})" + (f", {kind}" if kind else "")
            advice = "A second job on the same run is then noticed later, by its name in lease.json."
            return [note("locks", fact, advice)]
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return [ok("locks", "a file that is locked is refused to a second holder")]
    advice = "Never start a run twice at the same time here, or choose another --run.root."
    return [warn("locks", "two holders get the same lock", advice)]


def run_root_findings(root: Path) -> list[Finding]:
    """Look at the folder that runs are written to, without making it."""
    place = standing(root)
    if not place.is_dir():
        return [fail("run folder", f"{place} is a file", "Choose another --run.root.")]
    if not os.access(place, os.W_OK | os.X_OK):
        return [fail("run folder", f"{place} cannot be written", "Choose another --run.root, or change its owner.")]
    findings = space_findings("run folder", root)
    runs = [entry for entry in root.iterdir() if (entry / "config.yaml").is_file()] if root.is_dir() else []
    if runs:
        findings.append(ok("runs there", count(len(runs), "run")))
    return findings
