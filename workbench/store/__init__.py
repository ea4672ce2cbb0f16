"""What was computed, kept by content: artifacts and items, and the session that makes them exist."""
