"""Several machines compute an experiment, by Ray; imported only where that was asked for."""
