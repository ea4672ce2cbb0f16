"""`Experiment`: from a YAML file to a finished run folder, step by step.

The notebooks and the command line call the same three steps: `index`, `finetune`, `compare`. A step computes what the
store lacks and reads the rest, so calling one again, or in another process, costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from workbench.data.dataset import Dataset
from workbench.errors import BudgetError, StageFailedError
from workbench.experiment.asking import Search, search
from workbench.experiment.config import ExperimentSettings, read_settings
from workbench.experiment.configuration import Configuration, Space
from workbench.experiment.estimates import Estimator, PlannedCosts
from workbench.experiment.part import Left, PartSweep, compute_part
from workbench.experiment.partial import write_partial
from workbench.experiment.planner import ConfigurationStages, PlannedStage, Planner, plan
from workbench.experiment.running import Announcement
from workbench.experiment.search import Searcher
from workbench.experiment.sweep import Sweep
from workbench.experiment.writer import RunWriter, new_folder
from workbench.machine import Machine
from workbench.models.patience import RefusedError
from workbench.results.display import Displayed
from workbench.results.run import Run
from workbench.stages.answers import Answers
from workbench.stages.indexes import DenseIndex, TextIndex
from workbench.stages.training import Adapter
from workbench.store.part import Part
from workbench.store.progress import Progress
from workbench.store.session import Session
from workbench.store.store import Store
from workbench.store.telling import for_people


class Experiment(Displayed):
    """An experiment's file, its dataset, and the store it computes into.

    Attributes:
        settings: the file.
        runs: folder of all runs.
        space: its configurations.
        planner: their stages.
        session: computes stages.
        sweep: the order in which they are computed.
        announcement: tells other processes what is under way.
    """

    def __init__(
        self,
        settings: ExperimentSettings,
        runs: Path,
        progress: Progress | None = None,
        dataset: Dataset | None = None,
        machine: Machine | None = None,
    ) -> None:
        """An experiment that is ready to compute.

        Args:
            settings: the file.
            runs: folder of all runs.
            progress: where to report; default: nowhere.
            dataset: read already; default: what the settings name is read.
            machine: to compute on; default: the one that the settings describe.
        """
        self.settings = settings
        self.runs = Path(runs)
        dataset = dataset or settings.dataset.load(settings.metrics.slices or ())
        machine = machine or settings.machine.resolve()
        self.space = Space(settings, dataset, Path())
        self.planner = Planner(self.space, machine)
        self.session = Session(Store(self.runs / ".store"), dataset, machine, progress)
        self.session.spending = self.space.spending()
        self.sweep = Sweep(self.planner, self.session)
        self.announcement = Announcement(self.runs, settings.experiment, self.session.progress)

    @classmethod
    def load(
        cls, path: str | Path, runs: str | Path = "runs", overrides: Sequence[str] = (), progress: Progress | None = None
    ) -> Experiment:
        """An experiment from its YAML file.

        Args:
            path: the file.
            runs: folder of all runs; the store lies in its ``.store``.
            overrides: ``key.path=value`` texts that replace single values of the file.
            progress: where to report; default: bars on a terminal, else lines on standard error.

        Raises:
            InputError: whatever in file or dataset is misspelt, contradictory, missing or unknown.
        """
        return cls(read_settings(Path(path), overrides), Path(runs), progress or for_people())

    def __repr__(self) -> str:
        return (
            f"Experiment {self.settings.experiment!r}: {len(self.configurations)} configurations on {self.session.dataset.name}"
        )

    @property
    def configurations(self) -> list[Configuration]:
        """All configurations, sorted by id."""
        return self.space.configurations

    @property
    def notes(self) -> tuple[str, ...]:
        """What loading the dataset dropped or missed, and what trainings leave out."""
        return self.space.notes

    @property
    def selected_on(self) -> list[ConfigurationStages]:
        """Stages of all configurations on the selection split."""
        return self.sweep.selected_on

    def plan(self) -> list[PlannedStage]:
        """Distinct stages of the selection, each after those it reads; what the report needs follows from its outcome."""
        return plan(self.selected_on, self.session.has)

    def search(self, question: str, best: int = 5) -> Search:
        """One question put to every distinct ranking of the experiment, which a notebook shows side by side.

        Args:
            question: any text; of one that the dataset asks, each ranking says where it lost the evidence.
            best: passages of each ranking that are shown.

        Raises:
            InputError: an empty question, or an experiment whose configurations rank nothing.
        """
        return search(self.session, self.selected_on, sorted(self.session.dataset.splits), question, best)

    @property
    def searched(self) -> bool:
        """Whether a search chooses which configurations are measured on all questions."""
        return self.settings.search.strategy != "grid"

    @property
    def tunes(self) -> bool:
        """Whether the generator of some configuration is fine-tuned."""
        return any(isinstance(one.stage, Adapter) for one in self.plan())

    def planned_costs(self) -> PlannedCosts:
        """The plan by stage name, with what computing the missing ones costs, and the totals.

        Before the selection is measured the finalists are not known, so their report is counted as that of the first
        configurations: as many stages, about the same cost.
        """
        report = self.settings.dataset.report
        reported = [self.planner.stages(c, report) for c in Searcher(self.sweep).expected_finalists()]
        return self.estimator.costs(plan([*self.selected_on, *reported], self.session.has), self.space.currency)

    @cached_property
    def estimator(self) -> Estimator:
        """Knows the rates this machine showed."""
        return Estimator(self.session)

    def index(self) -> list[TextIndex | DenseIndex]:
        """Cuts, embeds, indexes and ranks; returns the stages of the indexes."""
        with self._step():
            return [stage for stage in self.sweep.index() if isinstance(stage, (TextIndex, DenseIndex))]

    def finetune(self) -> list[Adapter]:
        """Trains every adapter the configurations use; returns their stages."""
        with self._step():
            return self.sweep.finetune()

    def compute_part(self, part: Part) -> Left:
        """Computes one part of what can be computed now, where other jobs compute the other parts; writes no run.

        Args:
            part: which.

        Returns:
            What is left to the other jobs.
        """
        with self._step():
            return compute_part(PartSweep(self.planner, self.session), part)

    def compare(self, folder: str | Path | None = None) -> Run:
        """Answers, scores and compares all configurations; writes a run.

        Args:
            folder: of a finished run of this experiment, which is then opened and nothing computed; default: a new run.
        """
        if folder:
            return Run.open(folder)
        started, data = datetime.now(UTC), self.settings.dataset
        with self._step():
            columns = data.further_columns(
                {q.id for split in (data.select, data.report) for q in self.session.dataset.split(split)}
            )
            try:
                found = Searcher(self.sweep).search()
            except (BudgetError, StageFailedError, RefusedError, KeyboardInterrupt) as error:
                self._keep_answered(started, error)
                raise
            folder = new_folder(self.runs / self.settings.experiment, started, self.settings)
            if not self.session.crew:  # how fast a cluster was says nothing of this machine
                self.estimator.learn(self.session.timings, self.session.counts())
            RunWriter(self.sweep, folder, started, columns).write(found)
        return Run.open(folder)

    def _keep_answered(self, started: datetime, error: BaseException) -> None:
        """Writes what is known where servers were being asked, and says where it is."""
        reason = str(error) or "interrupted"
        folder = write_partial(self.sweep, self.runs, started, reason)
        if folder:
            self.session.progress.say(
                f"stopped: {reason}. Tables of the questions that all configurations have answered are in {folder}; the same "
                f"command goes on from here"
            )

    def _reach_servers(self) -> None:
        """Refuses, before anything is computed, where a server that is to answer has no key or its client is not installed.

        Raises:
            InputError: it says which.
        """
        for one in self.plan():
            if isinstance(one.stage, Answers) and one.stage.writer.served and not one.found:
                one.stage.writer.opened(self.session)

    def _step(self) -> AbstractContextManager[None]:
        """A step, which other processes see while it is under way.

        What the plan says before anything is computed is kept, to be held against what it took.

        Raises:
            InputError: nothing can be computed, since the store cannot be written.
        """
        self.session.store.refuse_read_only()
        if self.sweep.estimated_seconds is None:
            self._reach_servers()
            self.sweep.estimated_seconds = self.planned_costs().total.seconds
        return self.announcement.step(self.sweep.estimated_seconds)
