"""One reader for each form of file that people bring. Each names file, line and what is allowed where it cannot read on."""
