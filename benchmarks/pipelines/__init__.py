"""What it costs to bring images to a trainer: decoding, reading, handing over, resuming, preparing."""
