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
from workbench.results import display
from workbench.version import __version__

products.use_reproducible_mkl()  # before torch multiplies for the first time

__all__ = ["Experiment", "Run", "__version__"]


def __getattr__(name: str) -> Any:
    """`Experiment` and `Run`, imported at first use so that `import workbench` stays quick."""
    if name == "Experiment":
        from workbench.experiment.experiment import Experiment

        return Experiment
    if name == "Run":
        from workbench.results.run import Run

        return Run
    raise AttributeError(f"module 'workbench' has no attribute {name!r}")


def _experiment_html(experiment: Any) -> str:
    from workbench.experiment.notebook_tables import plan_html

    return plan_html(experiment)


def _run_html(run: Any) -> str:
    from workbench.views.notebook import run_html

    return run_html(run)


display.register("Experiment", _experiment_html)
display.register("Run", _run_html)
