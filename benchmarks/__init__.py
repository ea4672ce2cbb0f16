"""Side-by-side measurements; `python -m benchmarks [NAME]...` runs them and writes benchmarks/results/."""
