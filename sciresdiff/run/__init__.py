"""Running many pieces of work: journal, manifest, shards, engines, locks, signals, memory."""
