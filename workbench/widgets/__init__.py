"""Pages and tools of ipywidgets around the views: what a run found, its questions, its trainings. They compute no score."""

from workbench.widgets.pages import TrainingPage, VerdictPage
from workbench.widgets.questions import QuestionsPage

__all__ = ["QuestionsPage", "TrainingPage", "VerdictPage"]
