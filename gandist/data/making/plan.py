"""Which images of a source are taken, in which order, and into which part: a pure function of source and options."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gandist.data.making.source import Source
from gandist.data.making.write import Part, printable
from gandist.data.order import Ints, perm
from gandist.errors import ConfigError, DataError, did_you_mean

TRAIN, VALIDATION = "train", "validation"


def choose(
    source: Source, classes: Sequence[str] | None, max_images: int | None, seed: int
) -> tuple[Ints, Ints, tuple[str, ...]]:
    """Return the images to take, in the order to write them, their labels, and the names of the classes."""
    names, labels = source.class_names, source.labels
    if classes is not None:
        if not names:
            raise DataError(f"{source.title}: its images have no classes, so --classes cannot choose among them.")
        for name in classes:
            if name not in names:
                known = ", ".join(printable(name) for name in names[:20])
                raise DataError(f"{source.title}: has no class {name!r}; it has {known}.{did_you_mean(name, names)}")
        taken = [number for number, name in enumerate(names) if name in classes]
        renumbered = np.full(len(names) + 1, -1, dtype=np.int64)  # the last entry is for label -1
        renumbered[taken] = np.arange(len(taken))
        labels, names = renumbered[labels], tuple(names[number] for number in taken)
    candidates = np.arange(len(labels)) if classes is None else np.flatnonzero(labels >= 0)
    if not len(candidates):
        raise DataError(f"{source.title}: holds no image of the classes {', '.join(classes or ())}.")
    chosen = candidates[perm(len(candidates), seed)][:max_images]
    return chosen, labels[chosen], names


def divide(chosen: Ints, labels: Ints, validation: float | None) -> tuple[Part, ...]:
    """Return the parts of the chosen images: one without a name, or train and validation.

    The validation part is the beginning of the shuffle, so it stays the same when more images are taken.

    Raises:
        ConfigError: ``validation`` is no number of images and no share, or leaves nothing to train on.

    """
    if validation is None:
        return (Part("", chosen, labels),)
    held_out = round(validation * len(chosen)) if validation < 1 else int(validation)
    held_out = max(1, held_out)
    if held_out >= len(chosen):
        raise ConfigError(f"--validation {validation:g}: of {len(chosen)} images none is left to train on.")
    return (
        Part(TRAIN, chosen[held_out:], labels[held_out:]),
        Part(VALIDATION, chosen[:held_out], labels[:held_out]),
    )


def check_validation(validation: float | None) -> None:
    """Raise :class:`ConfigError` unless it is a share below 1 or a whole number of images."""
    if validation is None or 0 < validation < 1 or (validation >= 1 and validation % 1 == 0):
        return
    raise ConfigError(f"--validation {validation:g}: give a number of images, or a share between 0 and 1.")
