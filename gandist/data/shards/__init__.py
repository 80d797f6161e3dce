"""Shards as they lie: a strict walk, the index, reading pieces of them. Import from the modules."""
