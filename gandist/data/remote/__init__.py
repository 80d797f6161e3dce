"""Shards from afar: addresses, fetching, a cache on this node, what comes next. Import from the modules."""
