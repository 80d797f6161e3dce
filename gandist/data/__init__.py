"""The real images: prepare them into indexed shards, order them, read them. Import from the modules."""
