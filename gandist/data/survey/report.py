"""What `gandist index` says: what it found, what is wrong, and what to do next."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gandist.data.remote.address import scheme_of, shown
from gandist.data.shards.index import Index
from gandist.data.shards.tar import DamageError, quoted
from gandist.data.survey.locate import Lot
from gandist.data.survey.probe import Findings, Rejected
from gandist.errors import DataError

_DAMAGED_SHOWN = 20
REJECTED_SHOWN = 10
_CLASSES_SHOWN = 20


@dataclass(frozen=True, eq=False)
class Summary:
    """What :func:`~gandist.data.survey.survey.survey` did; ``str()`` of it is for people.

    Attributes:
        lot: the shards and where they are.
        index: what was found.
        new: whether the index was written; False where the same one was there already.
        imageless: samples without image, and the keys of the first few.
        skipped: members that are neither image nor label, by kind.
        salvaged: the damage in shards of which only the beginning was taken.
        seconds: it took.

    """

    lot: Lot
    index: Index
    new: bool
    imageless: tuple[int, tuple[str, ...]]
    skipped: Mapping[str, int]
    salvaged: tuple[str, ...]
    seconds: float

    @property
    def next_command(self) -> str:
        """The command that trains on the shards."""
        words = ["gandist", "train", "--data.shards", shlex.quote(str(self.lot.out))]
        words += ["--data.root", shlex.quote(self.lot.root)] if self.lot.apart else []
        words += ["--data.allow_http", "true"] if scheme_of(self.lot.root) == "http" else []
        words += ["--data.resolution", str(self.index.resolution), "--data.channels", str(self.index.channels)]
        return " ".join(words)

    def __str__(self) -> str:
        """Describe the result in a few lines."""
        index, size = self.index, sum(shard.bytes for shard in self.index.shards) / 2**20
        lines = [
            f"{self.lot.out}: {index.samples} images of {index.resolution}x{index.resolution}x{index.channels} in "
            f"{len(index.shards)} shard(s), {size:.1f} MiB, below {shown(self.lot.root)}, in {self.seconds:.1f} s"
        ]
        lines += [f"  SALVAGED, the rest of the shard is lost: {damage}" for damage in self.salvaged]
        lines.append(_classes(index, self.skipped))
        if rejected := [entry for entry in index.rejected if entry["key"]]:
            lines.append(f"  {len(rejected)} rejected:")
            lines += [
                f"    {entry['shard']}: {quoted(entry['key'])} {entry['why']}" for entry in rejected[:REJECTED_SHOWN]
            ]
        count, keys = self.imageless
        if count:
            lines.append(
                f"  {count} samples without image, skipped: {', '.join(map(quoted, keys))}{_more(count, keys)}"
            )
        if self.skipped:
            kinds = Counter(self.skipped).most_common(8)
            skipped = ", ".join(f"{number} {_plain(kind)}" for kind, number in kinds)
            lines.append(f"  not read: {skipped}{_more(len(self.skipped), kinds)}")
        if not self.new:
            lines.append("  the index was there already, and is the same")
        return "\n".join([*lines, f"  next: {self.next_command}"])


def damaged(faults: Sequence[DataError], shards: int) -> DataError:
    """Return the error that names the shards that cannot be indexed."""
    lines = [f"{len(faults)} of {shards} shard(s) cannot be indexed; no index was written."]
    lines += [f"  {fault}" for fault in faults[:_DAMAGED_SHOWN]]
    if len(faults) > _DAMAGED_SHOWN:
        lines.append(f"  and {len(faults) - _DAMAGED_SHOWN} more")
    if any(isinstance(fault, DamageError) for fault in faults):
        lines.append("Copy damaged shards again from where they came, or take what comes before with --salvage.")
    return DataError("\n".join(lines))


def too_many_rejected(found: Sequence[Findings], allowed: int, resolution: int) -> DataError:
    """Return the error that more images cannot be used than may be rejected."""
    kinds = sum((each.kinds for each in found), Counter[str]())
    total, samples = kinds.total(), sum(len(each.offset) for each in found)
    first = [rejected for each in found for rejected in each.rejected][:REJECTED_SHOWN]
    reasons = ", ".join(f"{count} {_plain(kind)}" for kind, count in kinds.most_common())
    lines = [
        f"{total} of {total + samples} images cannot be trained on as they lie; {allowed} may be rejected. "
        "No index was written.",
        *(f"  {_line(rejected)}" for rejected in first),
        f"By reason: {reasons}.",
        f"Make all images alike with: gandist prepare SHARDS DESTINATION --resolution {resolution}",
        f"or go on without them: --max-rejected {total}",
    ]
    return DataError("\n".join(lines))


def rejected_entries(found: Sequence[Findings]) -> tuple[Mapping[str, str], ...]:
    """Return what the index keeps of what was left out: rejected images, and the damage of salvaged shards."""
    entries: list[Mapping[str, str]] = []
    for each in found:
        entries += [{"shard": one.url, "key": one.key, "why": one.why} for one in each.rejected]
        if each.salvaged is not None:
            why = f"salvaged up to here: {each.salvaged}"
            entries.append({"shard": each.shard.url, "key": "", "why": why})
    return tuple(entries)


def _line(rejected: Rejected) -> str:
    return f"{rejected.url}: byte {rejected.byte}: {quoted(rejected.key)} {rejected.why}"


def _classes(index: Index, skipped: Mapping[str, int]) -> str:
    if not index.class_names:
        hint = "; --label json:KEY reads them from the json of each sample" if ".json members" in skipped else ""
        return f"  no labels{hint}"
    pairs = list(zip(index.class_names, index.class_counts, strict=True))
    names = ", ".join(f"{_plain(name)} {count}" for name, count in pairs[:_CLASSES_SHOWN])
    empty = sum(count == 0 for count in index.class_counts)
    without = f" ({empty} of them without any image)" if empty else ""
    return (
        f"  {len(pairs)} classes from {index.label_source}{without}: {names}{_more(len(pairs), pairs[:_CLASSES_SHOWN])}"
    )


def _more(total: int, listed: Sequence[object]) -> str:
    return f", and {total - len(listed)} more" if total > len(listed) else ""


def _plain(name: str) -> str:
    return name if name.isprintable() else quoted(name)
