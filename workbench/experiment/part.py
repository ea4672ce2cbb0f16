"""One part of an experiment's work, as a job of an array of batch jobs computes it.

A job computes its part of the items and trainings that can be computed now. What reads all items of a stage waits until the
stores of all jobs were merged, so an array is run in rounds: embeddings, then what ranks by them, then what answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from workbench.experiment.planner import ConfigurationStages
from workbench.experiment.search import Searcher
from workbench.experiment.sweep import LATE, Sweep
from workbench.results.words import count
from workbench.stages.answers import Answers
from workbench.stages.indexes import Embeddings
from workbench.stages.reranking import Reranked
from workbench.stages.training import Adapter, TrainedOnRankings
from workbench.store.part import LeftError, Part
from workbench.store.session import Session
from workbench.store.stage import Stage

KINDS = {"embeddings": "embedding", "pairs": "pair score", "answers": "answer"}  # of items, as people call one of them


@dataclass(frozen=True)
class Left:
    """What is not in the store after a part was computed.

    Attributes:
        items: kind -> items that other jobs compute.
        trainings: that other jobs compute.
        parts: numbers of the parts that have something left to compute.
        waiting: stages that need these.
        planned: stages in all.
        searched: whether the rest follows from a search, which only a whole run does.
    """

    items: dict[str, int]
    trainings: int
    parts: list[int]
    waiting: int
    planned: int
    searched: bool

    def sentences(self, part: Part, session: Session) -> list[str]:
        """What was computed, what is left, and what comes next, for people.

        Args:
            part: that was computed.
            session: that computed it.
        """
        computed = [count(session.counts()[kind].computed, word) for kind, word in KINDS.items()]
        said = [f"part {part} computed {', '.join(computed)} and {count(len(session.computed), 'stage')}"]
        others = [count(n, KINDS[kind]) for kind, n in self.items.items() if n]
        others += [count(self.trainings, "training")] if self.trainings else []
        if others:
            parts = f"{'part' if len(self.parts) == 1 else 'parts'} {', '.join(map(str, self.parts))}"
            said.append(
                f"left to the other jobs: {', '.join(others)}, of {parts} of {part.of}; "
                f"{self.waiting} of {self.planned} stages wait for them"
            )
            said.append(
                "next: when all jobs have ended, merge their stores (workbench store merge OTHER) and run the same jobs again"
                if session.computed or any(counts.computed for counts in session.counts().values())
                else f"nothing could be computed here: the jobs of {parts} have failed or not ended, had another experiment file "
                f"or another number of parts, or their stores were not merged"
            )
        else:
            search = ", but the answers of the search, which it computes itself," if self.searched else ""
            said.append(f"nothing{search} is left to the other jobs: the same command without --only finishes the run")
        return said


class PartSweep(Sweep):
    """Computes what belongs to a part, and passes over what needs more."""

    def ensure(self, stages: Iterable[Stage[object]]) -> None:
        """Computes the stages that can be computed now, in their order."""
        for stage in stages:
            if isinstance(stage, Embeddings):
                self._embed(stage)
            with suppress(LeftError):
                self.session.ensure(stage)

    def answer(self, stages: Iterable[Stage[object]]) -> None:
        """Computes the answers among stages whose prompts can be written now."""
        super().answer([stage for stage in stages if isinstance(stage, Answers) and self._ready(stage)])

    def score_together(self, stages: Sequence[Reranked]) -> None:
        """Scores this part of the pairs of stages whose rankings are there."""
        ready = [stage for stage in stages if self._ready(stage)]
        if ready:
            with suppress(LeftError):
                super().score_together(ready)

    def write_together(self, stages: Sequence[Answers], prompts: Sequence[str]) -> None:
        """Answers this part of the prompts of stages with one writer."""
        with suppress(LeftError):
            super().write_together(stages, prompts)

    def _embed(self, stage: Embeddings) -> None:
        """Embeds this part of all passages, however many are read at once."""
        if self.session.has(stage) or not self._ready(stage):
            return
        for _, texts in stage.texts(self.session):
            with suppress(LeftError):
                stage.encoder.vectors(texts, self.session)

    def _ready(self, stage: Stage[object]) -> bool:
        """Whether all that a stage reads is there, or could be computed now."""
        try:
            for one in stage.inputs():
                self.session.ensure(one)
        except LeftError:
            return False
        return True


def compute_part(sweep: PartSweep, part: Part) -> Left:
    """Computes one part of what can be computed now.

    Where a search chooses what is measured, that is all that comes before answers: its path is known only to a whole run.

    Args:
        sweep: of the experiment.
        part: which.
    """
    searched = sweep.settings.search.strategy != "grid"
    stages = sweep.need(_known(sweep))
    owners = _owners(stages, part.of)
    sweep.session.part = replace(part, elsewhere=frozenset(key for key, number in owners.items() if number != part.number))
    _measure(sweep, stages, searched)
    known = _known(sweep)
    if further := [stage for stage in sweep.need(known) if stage not in stages]:  # the finalists follow from the last scores
        stages += further
        _measure(sweep, further, searched)
    wanted = [stage for stage in stages if not (searched and isinstance(stage, LATE))]
    missing = [stage for stage in wanted if not sweep.session.has(stage)]
    trainings = [owners[stage.key] for stage in missing if stage.key in sweep.session.part.elsewhere]
    items = {kind: len(left) for kind, left in sorted(sweep.session.left.items())}
    parts = {*trainings, *(number for left in sweep.session.left.values() for number in left.values())}
    return Left(items, len(trainings), sorted(parts), len(missing) - len(trainings), len(wanted), searched)


def _measure(sweep: PartSweep, stages: Sequence[Stage[object]], searched: bool) -> None:
    missing = [stage for stage in stages if not sweep.session.has(stage)]
    sweep.before_answers(missing)
    if not searched:
        sweep.answer(missing)
        sweep.ensure(missing)


def _known(sweep: PartSweep) -> list[ConfigurationStages]:
    """The configurations that a run measures, as far as that is known: the finalists follow from all scores of the selection."""
    planner, settings = sweep.planner, sweep.settings
    selected = list(sweep.selected_on)
    if settings.search.strategy != "grid":
        return selected
    if settings.report.of == "all":
        return [*selected, *(planner.stages(one, settings.dataset.report) for one in sweep.space.configurations)]
    if not all(sweep.session.has(stage) for one in selected for stage in one.stages()):
        return selected
    finalists = Searcher(sweep).expected_finalists()
    return [*selected, *(planner.stages(one, settings.dataset.report) for one in finalists)]


def _owners(stages: Sequence[Stage[object]], parts: int) -> dict[str, int]:
    """Keys of the trainings among stages -> number of the part that computes each: each part takes every so manyth of them."""
    keys = sorted(stage.key for stage in stages if isinstance(stage, (Adapter, TrainedOnRankings)))
    return {key: i % parts + 1 for i, key in enumerate(keys)}
