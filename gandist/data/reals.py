"""From a batch as it was read to what D sees."""

from __future__ import annotations

import torch
from torch import Tensor

from gandist.data.image_set import ImageSet
from gandist.data.loader import Batch
from gandist.data.stream.images import StreamedImages
from gandist.latents.whitening import Whitening
from gandist.models.noise import RowNoise
from gandist.runtime import rng


class RealImages:
    """Turns batches of one set into what D sees: bytes become numbers in [-1, 1], other numbers stay as they are.

    Of an autoencoder's moments a new sample is drawn each time; its noise is a pure function of the seed and of the
    image's position in the run.

    Args:
        images: the set that the batches are read from.
        device: where D is.
        seed: of the run.
        batch_images: size of the global batch.
        first_row: of the global batch that this rank has.
        stacked: images of each row that D takes, which all are the real one here.
        channels_last: keep the images height first in memory, as they arrive.

    """

    def __init__(
        self, images: ImageSet | StreamedImages, device: torch.device,
        *, seed: int, batch_images: int, first_row: int, stacked: int, channels_last: bool,
    ) -> None:  # fmt: skip
        self._numbers: torch.dtype = getattr(torch, images.numbers)
        self._whitening = None if images.latents is None else Whitening(images.latents, device)
        self._device, self._stacked, self._channels_last = device, stacked, channels_last
        self._seed, self._batch_images, self._first_row = seed, batch_images, first_row

    def to_x(self, batch: Batch) -> Tensor:
        """Return this rank's real images of one D step on the device, shape (rows, channels, height, width)."""
        raw = batch.images.to(self._device, non_blocking=True)
        x = raw.view(self._numbers).permute(0, 3, 1, 2).float()
        if self._numbers == torch.uint8:
            x = x.div_(127.5).sub_(1)
        if self._whitening is not None:
            rows = RowNoise(
                rng.generator(self._seed, "posterior", batch.position), self._batch_images, self._first_row, len(x)
            )
            noise = rows.normal(x.shape[1] // 2, *x.shape[2:])
            x = self._whitening.sample(x, noise.to(self._device, non_blocking=True))
        if self._stacked > 1:
            x = x.repeat(1, self._stacked, 1, 1)
        return x if self._channels_last else x.contiguous()
