"""Files of many formats -> documents: one parser a file, each in a file of its own."""
