"""From shards that somebody else made to an index: what `gandist index` does. Import from the modules."""
