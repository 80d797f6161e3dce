"""What one round costs: its arithmetic, its time, and the bytes it sends between processes."""
