"""Dense retrieval: its indexes, FAISS' and those of vector stores that people already run, and what searches them."""
