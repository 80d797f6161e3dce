"""What a prepare did, in a few lines for people."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gandist.data.making.preview import PREVIEW_NAME
from gandist.data.making.write import SHOWN, printable

_CLASSES_SHOWN = 20


@dataclass(frozen=True)
class Summary:
    """The set that was made; ``str()`` of it is for people.

    Attributes:
        destination: the folder that was asked for.
        source: its title.
        images: in all parts.
        shards: likewise.
        resolution: of the images, in pixels.
        channels: 1 or 3.
        class_counts: images of each class, in all parts.
        rejected: name and reason of each image that cannot be used.
        reasons: how many were rejected for which kind of reason.
        skipped: what was no image, by what it is.
        widths: images of the source by their width.
        heights: likewise.
        bytes: on the disk.
        seconds: that it took.
        parts: images of each part, where the set was divided.
        continued: images that an earlier run had finished.

    """

    destination: Path
    source: str
    images: int
    shards: int
    resolution: int
    channels: int
    class_counts: Mapping[str, int]
    rejected: tuple[tuple[str, str], ...]
    reasons: Mapping[str, int]
    skipped: Mapping[str, int]
    widths: Mapping[int, int]
    heights: Mapping[int, int]
    bytes: int
    seconds: float
    parts: Mapping[str, int]
    continued: int

    @property
    def training_set(self) -> Path:
        """The folder to train on."""
        return self.destination / next(iter(self.parts), "")

    @property
    def next_command(self) -> str:
        """The command that trains on the new shards."""
        knobs = f"--data.shards {shlex.quote(str(self.training_set))} --data.resolution {self.resolution}"
        return f"gandist train {knobs} --data.channels {self.channels}"

    def __str__(self) -> str:
        """Describe the result in a few lines."""
        size = f"{self.bytes / 2**20:.1f} MiB"
        lines = [
            f"{self.destination}: {self.images} images of {self.resolution}x{self.resolution}x{self.channels} "
            f"in {self.shards} shard(s), {size}, from {printable(self.source)}, in {self.seconds:.1f} s"
        ]
        if self.continued:
            lines.append(f"  continued: {self.continued} images were there already")
        if self.parts:
            lines.append("  " + ", ".join(f"{count} images in {name}" for name, count in self.parts.items()))
        if self.widths:
            lines.append(f"  sizes in the source: {describe_sizes(self.widths, self.heights)}")
        lines.append("  " + describe_classes(self.class_counts))
        if self.rejected:
            counts = ", ".join(f"{count} {kind}" for kind, count in Counter(self.reasons).most_common())
            lines.append(f"  {len(self.rejected)} rejected: {counts}")
            lines += [f"    {name}: {reason}" for name, reason in self.rejected[:SHOWN]]
        if self.skipped:
            lines.append(f"  skipped: {describe_skipped(self.skipped)}")
        lines += [f"  have a look: {self.training_set / PREVIEW_NAME}", f"  next: {self.next_command}"]
        return "\n".join(lines)


def describe_sizes(widths: Mapping[int, int], heights: Mapping[int, int]) -> str:
    """Return the smallest, middle and largest width x height, each side on its own."""
    sides = [_three(widths), _three(heights)]
    smallest, middle, largest = (f"{width}x{height}" for width, height in zip(*sides, strict=True))
    return f"{smallest} px" if smallest == largest else f"{smallest} to {largest} px, the median {middle}"


def _three(counts: Mapping[int, int]) -> tuple[int, int, int]:
    """Return the least, the (lower) median and the greatest of counted values."""
    values, half, before = sorted(counts), (sum(counts.values()) + 1) // 2, 0
    for value in values:
        before += counts[value]
        if before >= half:
            return values[0], value, values[-1]
    raise AssertionError("nothing was counted")


def describe_classes(counts: Mapping[str, int]) -> str:
    """Return the classes and how many images each has."""
    if not counts:
        return "no classes (loose images)"
    shown = [f"{printable(name)} {count}" for name, count in list(counts.items())[:_CLASSES_SHOWN]]
    more = [f"and {len(counts) - _CLASSES_SHOWN} more"] if len(counts) > _CLASSES_SHOWN else []
    return f"{len(counts)} classes: {', '.join(shown + more)}"


def describe_skipped(skipped: Mapping[str, int]) -> str:
    """Return what was no image, and how often."""
    return ", ".join(f"{count} {printable(what)}" for what, count in skipped.items())
