"""Writing: graph (client), partition (worker), checkpoint (pure decisions)."""
