"""Vector stores that people already run, as indexes of dense retrieval; one in one file."""
