"""From an experiment's file to a run's folder: what is compared, which stages it needs, in which order they are computed."""
