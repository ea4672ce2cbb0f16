"""RAG Workbench: compare retrieval-augmented generation pipelines with the statistics a referee would ask for.

from workbench import Experiment

experiment = Experiment.load("configs/quickstart.yaml")
experiment.index()              # passages, embeddings, indexes, rankings
experiment.finetune()           # LoRA adapters
run = experiment.compare()      # answers, scores, comparisons: a run folder
run.promote()                   # the configuration to serve
"""

from __future__ import annotations

from typing import Any

from workbench import products

products.use_reproducible_mkl()  # before torch multiplies for the first time

__version__ = "0.1.0"
__all__ = ["Experiment", "Run"]


def __getattr__(name: str) -> Any:
    """`Experiment` and `Run`, imported at first use so that `import workbench` stays quick."""
    if name == "Experiment":
        from workbench.experiment.run import Experiment

        return Experiment
    if name == "Run":
        from workbench.experiment.folder import Run

        return Run
    raise AttributeError(f"module 'workbench' has no attribute {name!r}")
