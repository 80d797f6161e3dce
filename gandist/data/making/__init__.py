"""From pictures to indexed shards: what `gandist prepare` does. Import from the modules."""
