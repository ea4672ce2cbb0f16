"""RAG Workbench: compare retrieval-augmented generation pipelines with the statistics a referee would ask for.

from workbench import Experiment

experiment = Experiment.load("configs/quickstart.yaml")
experiment.index()              # passages, embeddings, indexes, rankings
experiment.finetune()           # LoRA adapters
run = experiment.compare()      # answers, scores, comparisons: a run folder
run.promote()                   # the configuration to serve
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
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


def _shown_by(module: str, function: str) -> Callable[[Any], str]:
    """A function of a module that is imported when the first object shows itself."""

    def show(shown: Any) -> str:
        return str(getattr(import_module(module), function)(shown))

    return show


def _compare(run: Any, a: str, b: str) -> object:
    from workbench.widgets import QuestionsPage

    return QuestionsPage(run, a, b)


display.offer("compare", _compare)
display.register("Experiment", _shown_by("workbench.experiment.notebook_tables", "experiment_html"))
display.register("Search", _shown_by("workbench.experiment.notebook_tables", "search_html"))
for _name, _function in (
    ("Run", "run_html"),
    ("Questions", "questions_html"),
    ("Comparisons", "comparisons_html"),
    ("Compared", "compared_html"),
):
    display.register(_name, _shown_by("workbench.views.notebook", _function))
