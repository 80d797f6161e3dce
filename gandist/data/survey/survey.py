"""Makes the index of shards that somebody else wrote: strict about damage, lenient about names.

1. The shards are found, and the first image in them decides what all should be like.
2. Every shard is looked through, in several processes.
3. If all are whole, and hardly an image is unfit, the labels become classes and the index is written.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gandist.config import CacheConfig
from gandist.data.decode import quietly
from gandist.data.remote.address import shown
from gandist.data.remote.cache import Cache, open_cache
from gandist.data.shards.index import Index
from gandist.data.shards.index_files import IMAGE_EXTENSIONS
from gandist.data.shards.labels import LabelError, check_label_source, folder_of
from gandist.data.shards.scan import samples
from gandist.data.shards.tar import quoted
from gandist.data.survey.classes import number_classes, read_class_names
from gandist.data.survey.locate import Lot, locate
from gandist.data.survey.look import Look, UnfitError, look
from gandist.data.survey.probe import Findings, Question, image_field
from gandist.data.survey.publish import publish
from gandist.data.survey.report import REJECTED_SHOWN, Summary, damaged, rejected_entries, too_many_rejected
from gandist.data.survey.sweep import here, sweep
from gandist.errors import ConfigError, DataError, did_you_mean

_RESOLUTIONS = range(4, 4097)


@dataclass(frozen=True)
class _First:
    """The first image of the set that can be trained on, and what lies beside it."""

    where: str
    key: str
    fields: frozenset[str]
    image: Look


def survey(
    shards: Sequence[str],
    *,
    out: Path | None = None,
    label: str = "auto",
    image: str | None = None,
    resolution: int | None = None,
    class_names: Path | None = None,
    verify: bool = False,
    salvage: bool = False,
    max_rejected: int = 0,
    workers: int | None = None,
    cache: CacheConfig | None = None,
    allow_http: bool = False,
) -> Summary:
    """Index shards that somebody else made; the shards stay as they are.

    Args:
        shards: folders, files, urls, with stars and braces.
        out: folder for the index; by default the one that all shards lie below.
        label: where labels are (:mod:`gandist.data.shards.labels`); ``auto`` takes ``cls``, or class folders, or none.
        image: the field of a sample that holds its image, where several could.
        resolution: height and width of all images; by default that of the first one.
        class_names: a file with one name a line.
        verify: decode every image.
        salvage: take what comes before the damage in a damaged shard.
        max_rejected: go on without unfit images, up to so many.
        workers: processes that look through shards; one for each core when None, 0 for none.
        cache: where shards from afar are kept meanwhile.
        allow_http: accept shards over plain http.

    Raises:
        ConfigError: an option is wrong, or the labels do not fit the class names.
        DataError: shards are damaged, too many images are unfit, or another index is there already.
        MachineError: a worker died, or the machine has no room.

    """
    begin = time.monotonic()
    _check_options(label, image, resolution, max_rejected, workers)
    names = read_class_names(class_names.expanduser()) if class_names is not None else None
    lot = locate(shards, out, allow_http=allow_http)
    kept = open_cache(cache or CacheConfig(), allow_http=allow_http) if lot.remote else None
    image = image.lower() if image is not None else None
    first = _first_image(lot, image, kept)
    source = _auto_label(first) if label == "auto" else label
    question = Question(
        image, source, label == "auto" and source == "folder", _resolution(first, resolution), first.image.channels,
        verify, salvage, max_rejected + REJECTED_SHOWN,
    )  # fmt: skip
    found = sweep(lot, question, kept, workers)
    index, imageless, skipped = _concluded(found, question, names, lot, max_rejected=max_rejected, auto=label == "auto")
    new = publish(index, lot.out)
    salvaged = tuple(each.salvaged for each in found if each.salvaged is not None)
    return Summary(lot, index, new, imageless, skipped, salvaged, time.monotonic() - begin)


def _check_options(
    label: str, image: str | None, resolution: int | None, max_rejected: int, workers: int | None
) -> None:
    if label != "auto":
        check_label_source(label)
    if image is not None and (ending := image.lower().rpartition(".")[2]) not in IMAGE_EXTENSIONS:
        raise ConfigError(
            f"--image {image}: is no kind of image.{did_you_mean(ending, IMAGE_EXTENSIONS)} "
            f"There are: {', '.join(IMAGE_EXTENSIONS)}, also after other words, like input.jpg."
        )
    if resolution is not None and resolution not in _RESOLUTIONS:
        raise ConfigError(f"--resolution {resolution}: must be from {_RESOLUTIONS[0]} to {_RESOLUTIONS[-1]}.")
    if max_rejected < 0:
        raise ConfigError(f"--max-rejected {max_rejected}: must be at least 0.")
    if workers is not None and not 0 <= workers <= 1024:
        raise ConfigError(f"--workers {workers}: must be from 0 to 1024.")


# --- the first image decides -------------------------------------------------------------------------------


def _first_image(lot: Lot, wanted: str | None, cache: Cache | None) -> _First:
    faults: list[DataError] = []
    seen = Counter[str]()
    for url in lot.urls:
        try:
            if (first := _first_image_of(lot.address(url), wanted, cache, seen)) is not None:
                return first
        except DataError as error:
            faults.append(error)
    if faults:
        raise damaged(faults, len(lot.urls))
    there = ", ".join(f"{count} .{name[:20]}" for name, count in seen.most_common(8)) or "no samples"
    raise DataError(
        f"{shown(lot.root)}: no image that can be used was found in {len(lot.urls)} shard(s)"
        + (f" under the field {wanted!r} (--image)" if wanted is not None else "")
        + f", of {', '.join(IMAGE_EXTENSIONS)}. They hold {there}."
    )


def _first_image_of(address: str, wanted: str | None, cache: Cache | None, seen: Counter[str]) -> _First | None:
    """Return the first usable image of a shard, or None if it has none; ``seen`` counts the fields before it."""
    called = shown(address)
    with quietly(), here(address, cache) as path, path.open("rb", buffering=0) as file:
        for key, fields in samples(path, called):
            try:
                field = image_field(fields, wanted)
            except ValueError as error:
                raise DataError(f"{called}: sample {quoted(key)} {error}.") from None
            if len(seen) < 1000:
                seen.update(list(fields))  # a mapping would be taken for counts
            if field is None:
                continue
            member = fields[field]
            try:
                found = look(lambda limit, at=member.offset: os.pread(file.fileno(), limit, at), member.size)  # type: ignore[misc]
            except UnfitError:
                continue
            return _First(f"{called}: byte {member.offset}: {quoted(key)}", key, frozenset(fields), found)
    return None


def _auto_label(first: _First) -> str:
    if "cls" in first.fields:
        return "cls"
    try:
        folder_of(first.key)
    except LabelError:
        return "none"
    return "folder"


def _resolution(first: _First, wanted: int | None) -> int:
    if wanted is not None:
        return wanted
    width, height = first.image.width, first.image.height
    if width != height or width not in _RESOLUTIONS:
        what = "not square" if width != height else f"outside {_RESOLUTIONS[0]} to {_RESOLUTIONS[-1]}"
        raise DataError(
            f"{first.where}: the first image is {width}x{height} px, {what}. Make all images alike with "
            "'gandist prepare SHARDS DESTINATION --resolution R', or say which ones to take with --resolution R "
            "and how many others may be left out with --max-rejected N."
        )
    return width


# --- the index ---------------------------------------------------------------------------------------------


def _concluded(
    found: Sequence[Findings],
    question: Question,
    names: Sequence[str] | None,
    lot: Lot,
    *,
    max_rejected: int,
    auto: bool,
) -> tuple[Index, tuple[int, tuple[str, ...]], Counter[str]]:
    """Return the index; samples without image, and some of their keys; and the members that were skipped, by kind."""
    skipped = sum((each.skipped for each in found), Counter[str]())
    if auto and question.label != "cls" and skipped[".cls members"]:
        raise DataError("Some samples have a cls member and the first has none. Choose --label cls or --label none.")
    coloured = any(each.coloured for each in found)
    if coloured and (grey := [each for each in found if each.raw_grey]):
        raise DataError(f"{grey[0].shard.url}: holds raw arrays of one channel, though other images are coloured.")
    if sum(each.kinds.total() for each in found) > max_rejected:
        raise too_many_rejected(found, max_rejected, question.resolution)
    if not any(len(each.offset) for each in found):
        raise DataError(f"{shown(lot.root)}: no image is left to train on. No index was written.")
    if question.label_optional and not _class_folders(found):
        found = [_without_labels(each) for each in found]
    label, class_names = number_classes(found, names)
    index = Index(
        shards=tuple(each.shard for each in found),
        resolution=question.resolution,
        channels=3 if coloured else 1,
        image_ext=tuple(sorted(frozenset().union(*(each.endings for each in found)))),
        class_names=class_names,
        source=_title(lot.urls),
        label_source=question.label if class_names else None,
        transform={"made_by": "somebody else"},
        rejected=rejected_entries(found),
        offset=np.concatenate([each.offset for each in found]),
        size=np.concatenate([each.size for each in found]),
        label=label,
    )
    keys = [key for each in found for key in each.imageless][:3]
    return index, (sum(each.imageless_count for each in found), tuple(keys)), skipped


def _class_folders(found: Sequence[Findings]) -> bool:
    """Return whether the folders of the keys look like classes: every image lies in one, and there are several."""
    return len({name for each in found for name in each.names}) > 1 and all((each.label >= 0).all() for each in found)


def _without_labels(each: Findings) -> Findings:
    return replace(each, label=np.full_like(each.label, -1), names=())


def _title(urls: Sequence[str]) -> str:
    return f"shard {urls[0]}" if len(urls) == 1 else f"shards {urls[0]} to {urls[-1]}"
