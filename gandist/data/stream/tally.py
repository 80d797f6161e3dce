"""What one consumer of a stream found wrong: counted, told, and the end of the run when it is too much."""

from __future__ import annotations

from gandist.data.image_set import Report
from gandist.errors import DataError

DAMAGED_SHARE = 0.1
"""A run ends when more of the shards that a consumer opened are damaged."""

JUDGED_SHARDS = 10
"""The share is judged once so many have been opened; before that a run ends when all are damaged."""

TOLERATED_IMAGES = 10
"""So many bad images are no reason to judge their share, unless the user tolerates none."""

_NOTES = 5  # of each kind; the counts go on


class Tally:
    """Counts shards and images, good and bad.

    Args:
        shards: how many the stream has.
        bad_images: the share of images that may be bad.

    """

    def __init__(self, shards: int, bad_images: float) -> None:
        self._shards, self._share = shards, bad_images
        self._opened = self._damaged = self._seen = self._bad = self._barren = 0
        self._told: set[str] = set()
        self._counts = {"bad images": 0, "damaged shards": 0}
        self._new_images = self._new_shards = 0
        self._new_notes: list[str] = []

    def good_image(self) -> None:
        """Count an image that can be used."""
        self._seen += 1

    def bad_image(self, shard: str, key: str, why: str) -> None:
        """Count an image that cannot be used.

        Raises:
            DataError: there are too many.

        """
        self._seen += 1
        self._bad += 1
        self._new_images += 1
        said = f"{shard}: sample {key!r} {why}"
        self._tell("bad images", f"Bad image: {said}. Another one takes its place.", "data/bad_images")
        if self._bad > max(TOLERATED_IMAGES if self._share else 0, self._share * self._seen):
            raise DataError(
                f"{said}. It is bad image {self._bad} of {self._seen}; --data.bad_images {self._share:g} is the share "
                "that is tolerated."
            )

    def read_shard(self, images: int) -> None:
        """Count a whole shard, which held so many images to use.

        Raises:
            DataError: none of the shards holds any.

        """
        self._opened += 1
        self._barren = 0 if images else self._barren + 1
        if self._barren >= self._shards:
            raise DataError(
                f"data.shards: {self._barren} shards, one after another, hold no image to train on. Check what is in "
                "them, and data.classes."
            )

    def damaged_shard(self, shard: str, why: str) -> None:
        """Count a shard that cannot be used.

        Raises:
            DataError: there are too many.

        """
        self._opened += 1
        self._damaged += 1
        self._new_shards += 1
        said = f"{shard}: {why.rstrip('.')}"
        self._tell("damaged shards", f"Damaged shard: {said}. Nothing of it is used.", "data/damaged_shards")
        all_damaged = self._damaged == self._opened >= min(self._shards, JUDGED_SHARDS)
        too_many = self._opened >= JUDGED_SHARDS and self._damaged > DAMAGED_SHARE * self._opened
        if all_damaged or too_many:
            raise DataError(
                f"{said}. It is damaged shard {self._damaged} of {self._opened} that were opened; at most 1 in "
                f"{1 / DAMAGED_SHARE:g} is tolerated. `gandist index` with these shards names all that is damaged."
            )

    def report(self) -> Report:
        """Return what happened since the last call."""
        report = Report(self._new_images, tuple(self._new_notes), self._new_shards)
        self._new_images, self._new_shards, self._new_notes = 0, 0, []
        return report

    def _tell(self, kind: str, note: str, counter: str) -> None:
        """Leave a note, once for each thing, until enough has been said of its kind."""
        if note in self._told or self._counts[kind] > _NOTES:
            return
        self._told.add(note)
        self._counts[kind] += 1
        if self._counts[kind] > _NOTES:
            note = f"More {kind} are not told one by one; {counter} counts them."
        self._new_notes.append(note)
