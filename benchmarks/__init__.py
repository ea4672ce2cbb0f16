"""Side-by-side measurements; `python -m benchmarks [NAME]...` runs them and writes benchmarks/results/."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
