"""What a finished run found, as HTML: pure functions from a run, which compute no score and load no model."""
