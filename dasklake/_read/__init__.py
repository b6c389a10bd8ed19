"""Reading: graph (client), partition (worker), plan (pure decisions)."""
