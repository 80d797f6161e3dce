"""From the labels of all shards to class numbers and their names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gandist.data.shards.labels import LABEL_LIMIT, NAME_LIMIT, class_names_of
from gandist.data.shards.tar import quoted
from gandist.data.survey.probe import Findings
from gandist.errors import ConfigError, DataError, did_you_mean

_FILE_LIMIT_BYTES = 64 << 20

Labels = NDArray[np.int32]


def read_class_names(path: Path) -> tuple[str, ...]:
    """Return the lines of a file of class names: the first is class 0.

    Raises:
        ConfigError: it cannot be read, or a name is empty, too long, or there twice.

    """
    try:
        with path.open("rb") as file:
            raw = file.read(_FILE_LIMIT_BYTES + 1)
        lines = raw.decode("utf-8-sig").rstrip().splitlines()
    except OSError as error:
        raise ConfigError(f"--class-names {path}: cannot be read ({error.strerror or error}).") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"--class-names {path}: is not a text in UTF-8 (byte {error.start}).") from None
    if len(raw) > _FILE_LIMIT_BYTES or not lines:
        raise ConfigError(f"--class-names {path}: holds {len(raw)} bytes where one name a line belongs.")
    names = [line.strip() for line in lines]
    first: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        if not name or len(name) > NAME_LIMIT:
            raise ConfigError(f"--class-names {path}: line {number} is {quoted(name)}, which is no name.")
        if first.setdefault(name, number) != number:
            raise ConfigError(f"--class-names {path}: {quoted(name)} is in line {first[name]} and in line {number}.")
    return tuple(names)


def number_classes(found: Sequence[Findings], given: Sequence[str] | None) -> tuple[Labels, tuple[str, ...]]:
    """Return the class number of every accepted image, -1 for none, and the name of every class.

    Args:
        found: what the shards hold.
        given: the user's names; by default numbers are called ``0``, ``1``, ... and names are sorted.

    Raises:
        ConfigError: the given names do not cover the labels.
        DataError: some labels are numbers and some are names, or there are too many names.

    """
    names = {name for each in found for name in each.names}
    numbered = any(each.numbered for each in found)
    if names and numbered:
        raise DataError(
            f"Some labels are numbers, others are names such as {quoted(min(names))}; they cannot be mixed."
        )
    if names:
        return _named(found, names, given)
    labels = np.concatenate([each.label for each in found])
    if not numbered:
        if given is not None:
            raise ConfigError("--class-names was given, but the images get no labels. Say where they are with --label.")
        return labels, ()
    highest = int(labels.max())
    if given is not None and len(given) <= highest:
        raise ConfigError(f"--class-names holds {len(given)} names, but there are labels up to {highest}.")
    return labels, tuple(given) if given is not None else tuple(str(number) for number in range(highest + 1))


def _named(found: Sequence[Findings], names: set[str], given: Sequence[str] | None) -> tuple[Labels, tuple[str, ...]]:
    if len(names) > LABEL_LIMIT:
        raise DataError(f"There are {len(names)} different class names; at most {LABEL_LIMIT} can be classes.")
    ordered = class_names_of(names) if given is None else list(given)
    if unknown := sorted(names - set(ordered)):
        raise ConfigError(f"--class-names lacks {quoted(unknown[0])}.{did_you_mean(unknown[0], ordered)}")
    number = {name: i for i, name in enumerate(ordered)}
    numbers = [np.array([number[name] for name in each.names], dtype=np.int32) for each in found]
    return np.concatenate([own[each.label] for own, each in zip(numbers, found, strict=True)]), tuple(ordered)
