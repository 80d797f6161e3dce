"""Makes shards of latents from shards of images."""
