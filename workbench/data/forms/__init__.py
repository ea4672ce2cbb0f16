"""One reader for each published form of question sets; a set is recognised by its columns, and `known` lists all of them."""
