"""The order of the real images: its cost, how ranks share it, how well it mixes."""
