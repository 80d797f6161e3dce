"""The real images of a run on their way to D: opened, read, moved over, and what went wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from gandist.adversarial.game import Real
from gandist.config import Config
from gandist.data.image_set import Reading
from gandist.data.images import open_images
from gandist.data.loader import Batch, batches, check_divides, describe_reading
from gandist.data.reals import RealImages
from gandist.errors import UserError
from gandist.latents.pictures import Show, as_they_are, show_by
from gandist.models.build import stacked
from gandist.runtime.distributed import Ranks


class Feed:
    """One rank's share of the real images.

    Args:
        config: of the run.
        ranks: who shares each batch.
        device: where D is.
        allow_pipe: run the command that a recipe names as the source of its shards.

    Raises:
        ConfigError: the batch cannot be shared evenly, or the images cannot be read in this way.
        DataError: the images are not there, are damaged, or do not fit the recipe.

    """

    def __init__(self, config: Config, ranks: Ranks, device: torch.device, *, allow_pipe: bool = False) -> None:
        check_divides(config.update.batch_images, ranks.world)
        self.config, self.ranks, self.device = config, ranks, device
        self.share_images = config.update.batch_images // ranks.world
        self.images = open_images(config.data, config.run.seed, config.execution.cache, allow_pipe=allow_pipe)
        self.remarks = self.images.remarks(self._reading())
        self.show = self._show()
        self._reals = RealImages(
            self.images,
            device,
            seed=config.run.seed,
            batch_images=config.update.batch_images,
            first_row=ranks.rank * self.share_images,
            stacked=stacked(config.model),
            channels_last=config.execution.channels_last,
        )
        self._bad_images = self._damaged_shards = 0  # that this rank met since it started
        self._untold: list[str] = []  # what this rank has to say in events.log, which rank 0 writes

    def _reading(self) -> Reading:
        execution, batch_images = self.config.execution, self.config.update.batch_images
        ahead = execution.workers * execution.prefetch_batches
        return describe_reading(batch_images, self.ranks.rank, self.ranks.world, start=0, ahead_batches=ahead)

    def _show(self) -> Show:
        """Return how images become pictures, and say what is to be known of latents; rank 0 alone has the decoder."""
        space, decoder = self.images.latents, self.config.data.decoder
        if space is not None and self.config.data.hflip:
            self.remarks += (
                "data.hflip mirrors latents, which are then not those of mirrored images: "
                "gandist encode --mirror writes these.",
            )
        if space is not None and decoder is None:
            self.remarks += (
                "Samples show three channels of the latents; --data.decoder with their autoencoder "
                f"({space.autoencoder}) shows pictures.",
            )
        shown = self.ranks.on_main(lambda: show_by(space, decoder, self.device), UserError)
        return as_they_are if shown is None else shown

    def begin(self, position: int) -> Iterator[Batch]:
        """Return the batches from a position of the data on, without end."""
        config = self.config
        return batches(
            self.images,
            batch_images=config.update.batch_images,
            rank=self.ranks.rank,
            world=self.ranks.world,
            start=position,
            workers=config.execution.workers,
            prefetch_batches=config.execution.prefetch_batches,
            pin_memory=self.device.type == "cuda",
            hflip=config.data.hflip,
            seed=config.run.seed,
        )

    def heed(self, reals: Sequence[Batch]) -> None:
        """Count the images and shards that could not be read, and keep what was said of them until it is told."""
        for batch in reals:
            self._bad_images += batch.bad_images
            self._damaged_shards += batch.damaged_shards
            self._untold += batch.notes

    def to_device(self, batch: Batch) -> Real:
        """Move a batch over, as D sees it."""
        x = self._reals.to_x(batch)
        c = batch.labels.to(self.device, non_blocking=True) if self.config.model.conditional else None
        return Real(x, c)

    def troubles(self, tell: Callable[[str], None]) -> dict[str, float]:
        """Tell what all ranks have to say of their data; return their counts since they started, where not zero."""
        for note in self.ranks.to_main(self._untold):
            tell(note)
        self._untold = []
        counts = torch.tensor([self._bad_images, self._damaged_shards], dtype=torch.float32, device=self.device)
        totals = (self.ranks.mean(counts) * self.ranks.world).round().tolist()
        named = zip(("data/bad_images", "data/damaged_shards"), totals, strict=True)
        return {name: total for name, total in named if total}
