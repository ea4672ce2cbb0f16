"""Rerankers: ranking -> better ranking. One class in one file; the file's name is the `kind` in a configuration."""
