"""How runs learn: a Fréchet distance of each checkpoint to the real images, in a network that is pinned."""
