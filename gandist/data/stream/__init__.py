"""Shards without an index, read as they come: for recipes that name tar files. Import from the modules."""
