"""One question -> answer, sources, provenance, timings: the promoted configuration, by the functions that measured it."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from math import inf, isinf
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from workbench.component import digest, library_version
from workbench.data.conversation import History, read_history
from workbench.data.dataset import Place, Query
from workbench.data.readers.text import check_writable, composed
from workbench.errors import InputError
from workbench.experiment.bundled import bundle_at, bundle_of
from workbench.experiment.config import read_settings
from workbench.experiment.experiment import Experiment
from workbench.experiment.planner import passages_of
from workbench.machine import NO_MACHINE, Machine, cpu_name, independence
from workbench.models.answering import Generation
from workbench.models.chat import Message
from workbench.models.probe import beyond_chance
from workbench.models.served import SILENT
from workbench.results.records import AnswerRecord, PlaceRecord
from workbench.results.run import Run
from workbench.retrieval.ranking import Ranked
from workbench.stages.answers import NO_PASSAGES, Answers, ClosedAnswers, OpenAnswers, Prompted, SelectiveAnswers
from workbench.stages.questions import Rewriting
from workbench.stages.rankings import RankingStage
from workbench.store.progress import Progress
from workbench.store.telling import for_people
from workbench.version import __version__

SHOWN = 5  # passages of a reply where no answer decides it


@dataclass(frozen=True)
class Source:
    """A passage shown to the generator: its rank from 1, place, score, title and text."""

    rank: int
    place: Place
    score: float
    title: str
    text: str


@dataclass(frozen=True)
class Reply:
    """An answer with all that says where it came from.

    Attributes:
        question: as asked; the provenance says how it was rewritten.
        answer: as the template reads it; empty: the generator abstained. None: the experiment only ranks passages.
        reply: what the generator wrote.
        status: ``ok``, ``writing`` before the answer is whole, or why there is none.
        sources: the passages shown, best first.
        provenance: run, configuration, keys of index, ranking, threshold and adapter, why passages were shown or not, digest
            of the prompt.
        seconds: time for ``retrieval``, ``generation`` and in ``total``; for ``rewriting`` where questions are.
        tokens: of the ``prompt`` and of the ``answer``.
        cut: passages that did not fit into the generator's context; they are not among the sources.
    """

    question: str
    answer: str | None
    reply: str
    status: str
    sources: tuple[Source, ...]
    provenance: dict[str, Any]
    seconds: dict[str, float]
    tokens: dict[str, int]
    cut: int = 0

    def as_json(self) -> dict[str, Any]:
        """The reply as plain values; places as ``doc_id``, ``start``, ``end``."""
        values = asdict(self)
        values["sources"] = sources_json(self.sources)
        values["seconds"] = {name: round(value, 4) for name, value in self.seconds.items()}
        return values


def sources_json(sources: Sequence[Source]) -> list[dict[str, Any]]:
    """Passages as plain values, their places as ``doc_id``, ``start``, ``end``."""
    return [{"rank": s.rank, **s.place._asdict(), "score": round(s.score, 6), "title": s.title, "text": s.text} for s in sources]


def reply_of(values: dict[str, Any]) -> Reply:
    """A reply from the plain values that `Reply.as_json` gives, which may lack the seconds."""
    sources = tuple(
        Source(one["rank"], Place(one["doc_id"], one["start"], one["end"]), one["score"], one["title"], one["text"])
        for one in values["sources"]
    )
    return Reply(**values | {"sources": sources, "seconds": values.get("seconds", {})})


class Asked(NamedTuple):
    """A question, and what was said before it, as `workbench.data.conversation.read_history` reads it."""

    question: str
    history: Sequence[Any] = ()


class Replayed(NamedTuple):
    """What a replay compares: places of the passages shown, digest of the prompt, reply, answer as read in it, status."""

    passages: list[PlaceRecord]
    prompt: str | None
    reply: str
    answer: str | None
    status: str


class Replay(NamedTuple):
    """A measured answer computed again.

    Attributes:
        query_id: the query.
        question: its text.
        same: whether all that is compared is equal; an answer of a server may differ as often as chance lets it.
        differing: names of the fields of `Replayed` that are not.
        recorded: what the run holds.
        replayed: what was computed now.
        chance: of a server's answers, how many differed when the same prompts were asked again; None where they were computed
            here, or were asked once.
    """

    query_id: str
    question: str
    same: bool
    differing: list[str]
    recorded: Replayed
    replayed: Replayed
    chance: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The replay as plain values."""
        return self._asdict() | {"recorded": self.recorded._asdict(), "replayed": self.replayed._asdict()}


class Generating(Protocol):
    """Who writes the answers of a pipeline in the place of the generator in its memory."""

    def growing(self, prompts: Sequence[Sequence[Message]], wanted: Callable[[int], float]) -> Iterator[tuple[int, Generation]]:
        """See `Pipeline.generated`."""


class Pipeline:
    """A measured configuration that answers single questions.

    Rankings, prompts and answers are those of the run, to the byte: the same stages compute them on the same artifacts.

    Attributes:
        generating: who writes the answers; None: the generator, in this process's memory.
    """

    generating: Generating | None = None

    def __init__(self, experiment: Experiment, run: Run, configuration: str) -> None:
        self.run = run
        self.experiment = experiment
        self.session = experiment.session
        chosen = next((c for c in experiment.configurations if c.id == configuration), None)
        if chosen is None:
            raise InputError(
                f"run {run.folder}: its configuration {configuration} is not among those its config.yaml gives now; "
                f"weights, components or data have changed since. Run the experiment again"
            )
        self.stages = experiment.planner.stages(chosen, run.select[0])
        self.configuration = chosen
        self._check_machine()
        self._check_artifacts()

    def __getstate__(self) -> dict[str, Any]:
        """What answers, to be sent to another process: without the session and what was measured, which are of this one."""
        _ = self._measured_on  # while the questions are there
        stages = replace(self.stages, ranking_scores=None, answer_scores=None, repeated=None, trained=())
        kept = {name: value for name, value in vars(self).items() if name not in ("session", "experiment", "identity")}
        return kept | {"stages": stages}

    @classmethod
    def open(
        cls,
        run: str | Path | Run,
        configuration: str | None = None,
        progress: Progress | None = None,
        dataset: Path | None = None,
        machine: Machine | None = None,
    ) -> Pipeline:
        """The pipeline of a run's configuration: the one named, else the promoted one, else the best.

        Args:
            run: a finished run or its folder, or that of an unpacked bundle (`workbench.serving.bundle`).
            configuration: id, beginning of one, or label.
            progress: where the computing of missing artifacts is reported.
            dataset: where the run's data lie now; default: where they were.
            machine: what models compute on; default: this machine. `NO_MACHINE`: none do, servers answer.

        Raises:
            InputError: no finished run, an unknown configuration, or data or components that are no longer those measured.
        """
        if isinstance(run, (str, Path)) and (bundle := bundle_at(run)):
            run, configuration = bundle.run, configuration or bundle.configuration
        run = run if isinstance(run, Run) else Run.open(run)
        promoted = run.promoted
        wanted = run.find(configuration) if configuration else promoted["configuration"] if promoted else run.best
        return cls(experiment_of(run, dataset, progress, machine=machine), run, wanted)

    def _check_machine(self) -> None:
        """Refuses to answer on no machine in particular where a model would have to compute."""
        if self.session.machine is not NO_MACHINE or not (here := self.stages.computed_here()):
            return
        select, planner = self.run.select[0], self.experiment.planner
        fitting = [c.label for c in self.experiment.configurations if not planner.stages(c, select).computed_here()]
        raise InputError(
            f"{self.configuration.label} of run {self.run.folder} cannot answer on a processor that nobody knows: models compute "
            f"its {', '.join(here)}, and their bits depend on the processor. Allowed: configurations that rank without a model, "
            f"as BM25 does, and whose generator is behind a server (`endpoint`); of this run: {_few(fitting) or 'none'}. Serve "
            f"others on a machine of your own, with `workbench serve`"
        )

    def _check_artifacts(self) -> None:
        """Refuses to answer from other artifacts than those measured: a component, library or machine has changed."""
        row = next(row for row in self.run.configurations if row.configuration == self.configuration.id)
        then, now = row.keys, {name: stage.key for name, stage in self.stages.artifacts().items()}
        names = sorted(then.keys() | now.keys())
        if changed := [name for name in names if then.get(name) != now.get(name)]:
            raise InputError(_not_here(self.run, self.arithmetic, changed, [name for name in names if name not in changed]))

    @property
    def ranking(self) -> RankingStage | None:
        """The stage that ranks, reranking included; None where passages are never shown."""
        return self.stages.ranking

    @property
    def answering(self) -> Answers | None:
        """The stage that answers, or None in an experiment that only ranks."""
        return self.stages.answers

    @cached_property
    def arithmetic(self) -> str | None:
        """The machine's kind of arithmetic; None where no answer depends on it, since only servers compute with models."""
        return self.session.machine.arithmetic if self.stages.computed_here() else None

    @cached_property
    def identity(self) -> str:
        """Digest of all that decides an answer: configuration, artifacts, weights, arithmetic, and this package's version."""
        keys = {name: stage.key for name, stage in self.stages.artifacts().items()}
        generator = self.answering.writer.generator.definition() if self.answering else None
        return digest([self.configuration.id, keys, generator, self.arithmetic, __version__])

    def warm(self) -> None:
        """Opens indexes and models, so that the first question does not wait for them."""
        self.ask("What is this?")

    def ask(self, question: str, history: Sequence[Any] = ()) -> Reply:
        """Answers one question.

        Args:
            question: the question.
            history: what was said before it, oldest first, as `workbench.data.conversation.read_history` reads it. None: the
                question is used as it is.

        Raises:
            InputError: an empty question; a history that is none; or one for a configuration that does not rewrite questions.
        """
        return self.answers([Asked(question, history)])[0]

    def stream(self, question: str, history: Sequence[Any] = ()) -> Iterator[Reply]:
        """Answers one question while the answer is written; takes and raises what `ask` does.

        Yields:
            Replies whose texts grow by whole words, with the status ``writing``; the last is the one that `ask` returns.
        """
        for _, reply in self.growing([Asked(question, history)]):
            yield reply

    def answers(self, asked: Sequence[Asked]) -> list[Reply]:
        """Answers questions together; each answer is the one that its question gets alone.

        Raises:
            InputError: one of the questions cannot be asked, as with `ask`.
        """
        found = dict(self.growing(asked))
        return [found[i] for i in range(len(asked))]

    def growing(
        self, asked: Sequence[Asked], wanted: Callable[[int], float] = lambda question: inf
    ) -> Iterator[tuple[int, Reply]]:
        """Answers questions together while the answers are written.

        Args:
            asked: the questions.
            wanted: asked again and again for how many seconds the answer to the question at a position is still waited for; 0:
                nobody waits.

        Yields:
            Pairs of position in `asked` and reply: as `stream` gives them, of all questions in turn. The last of a position is
            its answer; a question that is not waited for any more gets none.

        Raises:
            InputError: one of the questions cannot be asked, as with `ask`.
        """
        read = [self._read(one) for one in asked]
        started = time.perf_counter()
        rewriter = self.stages.questions
        rewritings = rewriter.rewritten(read, self.session) if rewriter else [Rewriting(text, "as asked") for _, text in read]
        understood = time.perf_counter()
        rows = self.ranked([rewriting.question for rewriting in rewritings])
        ranked = time.perf_counter()
        seconds = {"rewriting": understood - started, "retrieval": ranked - understood}
        said = [{"rewriting": one._asdict() | {"measured_on": self._measured_on}} if rewriter else {} for one in rewritings]
        if self.answering is None:
            for i, row in enumerate(rows):
                where = self.provenance() | said[i]
                times = seconds | {"generation": 0.0, "total": ranked - started}
                yield i, Reply(asked[i].question, None, "", "ok", self._sources(row, SHOWN), where, times, {})
            return
        prompts = [
            self.answering.prompted("", one.question, row, self.session) for one, row in zip(rewritings, rows, strict=True)
        ]
        known = [self.provenance() | one | self._gated(row) for one, row in zip(said, rows, strict=True)]
        sources = [self._sources(row, len(prompt.passages)) for prompt, row in zip(prompts, rows, strict=True)]
        for i, generation in self.generated([prompt.messages for prompt in prompts], wanted):
            answer = self.answering.answer(prompts[i], generation)
            done = time.perf_counter()
            yield (
                i,
                Reply(
                    asked[i].question,
                    answer.answer,
                    answer.reply,
                    answer.status,
                    sources[i],
                    known[i] | {"prompt": answer.prompt} | ({"served": generation.served} if generation.served else {}),
                    seconds | {"generation": done - ranked, "total": done - started},
                    {"prompt": answer.prompt_tokens, "answer": answer.new_tokens},
                    answer.cut,
                ),
            )

    def generated(
        self, prompts: Sequence[Sequence[Message]], wanted: Callable[[int], float] = lambda prompt: inf
    ) -> Iterator[tuple[int, Generation]]:
        """What is written for prompts that are answered together, while it is written.

        Args:
            prompts: conversations that end with the user's turn.
            wanted: asked again and again for how many seconds the answer at a position is still waited for; 0: nobody waits.

        Returns:
            Pairs of position in `prompts` and beginning, with the status ``writing``; the last of a position is whole.

        Raises:
            InputError: an experiment that only ranks.
        """
        if self.answering is None:
            raise InputError(f"{self.configuration.label} only ranks passages: there is no generator")
        if self.generating:
            return self.generating.growing(prompts, wanted)
        return self.answering.writer.opened(self.session).growing(prompts, lambda i: wanted(i) > 0)

    def prompt(self, asked: Asked) -> tuple[Prompted, tuple[Source, ...]]:
        """The prompt that the generator would be shown for a question, and the passages in it.

        Raises:
            InputError: as with `ask`, or an experiment that only ranks.
        """
        if self.answering is None:
            raise InputError(f"{self.configuration.label} only ranks passages: there is no prompt")
        read, rewriter = self._read(asked), self.stages.questions
        question = rewriter.rewritten([read], self.session)[0].question if rewriter else read[1]
        row = self.ranked([question])[0]
        prompt = self.answering.prompted("", question, row, self.session)
        return prompt, self._sources(row, len(prompt.passages))

    def check(self, asked: Asked) -> None:
        """Refuses what `ask` would refuse, without computing anything.

        Raises:
            InputError: as with `ask`.
        """
        self._read(asked)

    def _read(self, asked: Asked) -> tuple[History, str]:
        question, turns = _checked(asked.question), read_history(asked.history, "history")
        if turns and not self.stages.questions:
            raise InputError(
                f"{self.configuration.label} does not rewrite questions, so the history of {len(turns)} turns would be ignored; "
                f"ask without it, or measure a configuration with the axis rewriting (see components.rewriters)"
            )
        return turns, question

    def ranked(self, questions: Sequence[str]) -> list[Ranked]:
        """Passages and scores of questions; none where passages are never shown."""
        return self.ranking.rank(questions, self.session) if self.ranking else [NO_PASSAGES] * len(questions)

    @property
    def shown(self) -> int:
        """Passages shown to the generator, at most; without one, to whoever asks."""
        answers = self.answering.open if isinstance(self.answering, SelectiveAnswers) else self.answering
        return answers.shown if isinstance(answers, OpenAnswers) else SHOWN

    def search(self, question: str, k: int) -> tuple[Source, ...]:
        """The k best passages for a question, without an answer; fewer where the ranking ends before.

        Raises:
            InputError: an empty question.
        """
        return self._sources(self.ranked([_checked(question)])[0], k)

    def _sources(self, row: Ranked, shown: int) -> tuple[Source, ...]:
        if not shown or not self.ranking:
            return ()
        passages = self.session.read(passages_of(self.ranking))
        best = zip(row[0][:shown].tolist(), row[1][:shown].tolist(), strict=True)
        return tuple(Source(rank, passages.place(n), score, *passages.shown(n)) for rank, (n, score) in enumerate(best, 1))

    @cached_property
    def _measured_on(self) -> int:
        """Questions of the report split that have a history, so that their rewriting was measured."""
        return sum(bool(query.history) for query in self.session.dataset.split(self.run.report_split))

    def _gated(self, row: Ranked) -> dict[str, Any]:
        """Why passages were shown or not; nothing where they always are."""
        if isinstance(self.answering, ClosedAnswers):
            return {"retrieval": {"when": "never", "shown": False}}
        if not isinstance(self.answering, SelectiveAnswers):
            return {}
        threshold = self.answering.threshold
        # JSON knows no infinity: null is no ranking to be sure of, and a threshold that all rankings pass
        sureness, value = (None if isinf(x) else x for x in (threshold.gate.sureness(row[1]), threshold.value(self.session)))
        shown = threshold.shows(row, self.session)
        return {"retrieval": {"when": threshold.gate.when, "sureness": sureness, "threshold": value, "shown": shown}}

    def provenance(self) -> dict[str, Any]:
        """Where answers come from: `identity`, run, configuration, and the keys of the artifacts used."""
        # those of the run: what this process computed with so far differs from process to process
        notes = [note for note in self.run.manifest["notes"] if independence.is_note(note)] if self.arithmetic else []
        return {
            "identity": self.identity,
            "run": self.run.folder.name,
            "experiment": self.run.manifest["experiment"],
            "configuration": self.configuration.id,
            "label": self.configuration.label,
            "artifacts": {name: stage.key for name, stage in self.stages.artifacts().items()},
            "weights": self.answering.writer.generator.definition()["weights"] if self.answering else None,
            "arithmetic": self.arithmetic,
        } | ({"notes": notes} if notes else {})

    def shown_as_recorded(self, query_id: str) -> list[str]:
        """Builds the prompt of a measured answer again, and asks nobody for the answer.

        Returns:
            Which of ``passages`` and ``prompt`` are not those of the run.

        Raises:
            InputError: the run has no answer of this configuration to that query.
        """
        line, query = self._recorded(query_id)
        prompt, sources = self.prompt(Asked(query.text, query.history if self.stages.questions else ()))
        now = {"passages": [_place(source.place) for source in sources], "prompt": digest(prompt.messages)}
        then = {"passages": line["passages"], "prompt": line["prompt"]}
        return [name for name in now if now[name] != then[name]]

    def replay(self, query_id: str) -> Replay:
        """Computes a measured answer again, from the question, and says whether it is the same.

        Raises:
            InputError: the run has no answer of this configuration to that query.
        """
        return self.replays([query_id])[0]

    def replays(self, query_ids: Sequence[str]) -> list[Replay]:
        """Computes measured answers again, together, and says of each whether it is the same.

        Raises:
            InputError: the run has no answer of this configuration to one of the queries.
        """
        recorded = [self._recorded(query_id) for query_id in query_ids]
        asked = [Asked(query.text, query.history if self.stages.questions else ()) for _, query in recorded]
        return [self._replayed(*one, reply) for one, reply in zip(recorded, self.answers(asked), strict=True)]

    def _replayed(self, line: AnswerRecord, query: Query, reply: Reply) -> Replay:
        places = [_place(source.place) for source in reply.sources]
        now = Replayed(places, reply.provenance.get("prompt"), reply.reply, reply.answer, reply.status)
        then = Replayed(line["passages"], line["prompt"], line["reply"], line["answer"], line["status"])
        differing = [name for name in Replayed._fields if getattr(now, name) != getattr(then, name)]
        if self.answering is None or not self.answering.writer.served:
            return Replay(query.id, query.text, not differing, differing, then, now)
        same, chance = self._within_chance(differing, now)
        return Replay(query.id, query.text, same, differing, then, now, chance)

    def _within_chance(self, differing: Sequence[str], now: Replayed) -> tuple[bool, str | None]:
        """Whether passages and prompt are equal, and a server's answer differs no more than the noise floor; and that floor."""
        exact = not {"passages", "prompt"} & set(differing) and now.status != SILENT
        floor = self.run.manifest["repeated"].get(self.configuration["generator"])
        if floor is None:
            return exact, None
        known = len(floor["differing"])
        odd = beyond_chance(known, floor["answers"], bool(differing), 1)
        return exact and not odd, f"{known} of {floor['answers']} answers of the server differed when it was asked again"

    def _recorded(self, query_id: str) -> tuple[AnswerRecord, Query]:
        lines = [line for line in self.run.answers if line["configuration"] == self.configuration.id]
        found = next((line for line in lines if line["query_id"] == query_id), None)
        if found is None:
            who = f"{self.configuration.id} ({self.configuration.label})"
            those = _few([line["query_id"] for line in lines]) or "none, as of every run that only ranks passages"
            raise InputError(f"run {self.run.folder} holds no answer of {who} to query {query_id!r}; it has those to {those}")
        query = next(q for q in self.session.dataset.split(found["split"]) if q.id == query_id)
        return found, query


def _place(place: Place) -> PlaceRecord:
    return {"doc_id": place.doc_id, "start": place.start, "end": place.end}


def _not_here(run: Run, arithmetic: str | None, changed: Sequence[str], same: Sequence[str]) -> str:
    """Why a run's artifacts are not those this machine would compute, which ones are, and what to do."""
    manifest = run.manifest
    then, now = manifest["machine"]["arithmetic"], arithmetic
    reasons = []
    if now and then != now:
        reasons.append(
            f"it was measured on {manifest['machine']['processor']} ({then}), and this machine, {cpu_name()} ({now}), "
            f"computes other bits"
        )
    versions = {name: (was, library_version(name)) for name, was in manifest["libraries"].items()}
    if updated := [f"{name} {was} -> {here}" for name, (was, here) in versions.items() if was != here]:
        reasons.append(f"libraries have changed ({', '.join(updated)})")
    if not reasons:
        reasons.append("components or data have changed since")
    again = f"workbench run {shlex.quote(str(run.folder / 'config.yaml'))} --runs {shlex.quote(str(run.runs))}"
    return (
        f"run {run.folder} cannot answer here as it was measured: {'; '.join(reasons)}. To be computed again here: "
        f"{', '.join(changed)}; the same here: {', '.join(same) or 'nothing'}. Run the experiment again, which takes over what "
        f"is the same: {again}; or ask and serve where it was measured"
    )


def _few(names: Sequence[str]) -> str:
    names = sorted(set(names))
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def experiment_of(
    run: Run,
    dataset: Path | None = None,
    progress: Progress | None = None,
    overrides: Sequence[str] = (),
    runs: Path | None = None,
    machine: Machine | None = None,
) -> Experiment:
    """The experiment of a finished run.

    Args:
        run: the run.
        dataset: where its data lie now: a folder in BEIR layout, or of texts; default: where they were.
        progress: where to report.
        overrides: ``key.path=value`` texts that replace single settings of the run; relative paths in them count from the
            current folder, those of the run are absolute.
        runs: folder of runs that it computes into; default: the one that the run lies in, so that its store is used.
        machine: what models compute on; default: the one that the settings describe.

    Raises:
        InputError: the data are not there, or no longer those the run measured; or an override that makes another experiment of
            it.
    """
    for override in overrides:
        _check_same_questions(override)
    bundle = bundle_of(run)
    if bundle and not dataset:
        settings = read_settings(run.folder / "config.yaml", overrides, Path(), bundle.moved)
        experiment = Experiment(settings, runs or run.runs, progress or for_people(), bundle.dataset, machine)
        _check_dataset(experiment, run)
        return experiment
    settings = read_settings(run.folder / "config.yaml", overrides, Path())
    data = settings.dataset.moved(dataset) if dataset else settings.dataset
    if missing := data.absent():
        named = "" if dataset else "; where its data have moved, name their folder: --dataset PATH"
        raise InputError(f"run {run.folder}: {missing} is not there{named}")
    moved = settings.model_copy(update={"dataset": data})
    experiment = Experiment(moved, runs or run.runs, progress or for_people(), machine=machine)
    _check_dataset(experiment, run)
    return experiment


def _check_same_questions(override: str) -> None:
    """Refuses a setting with which the run's questions would not be asked again."""
    section = override.partition("=")[0].split(".")[0]
    if section in ("dataset", "experiment"):
        raise InputError(
            f"--set {override!r}: a run is computed again as the same experiment on the same data; allowed: all sections but "
            f"dataset and experiment. Data that have moved are named with --dataset; for other data, or another name, use "
            f"`workbench run`"
        )


def _check_dataset(experiment: Experiment, run: Run) -> None:
    """Refuses data that are no longer those the run measured."""
    now, then = experiment.session.dataset, run.manifest["dataset"]
    measured = [name for name in (*run.select[:1], run.report_split) if name in then["queries"]]
    held = [
        ("documents", now.documents_digest, then["documents"]),
        *((f"questions of {name}", now.queries_digest(name), then["queries"][name]) for name in measured if name in now.splits),
        *((f"answers of {name}", now.answers_digest(name), then["judgements"][name]) for name in measured if name in now.splits),
        *((f"questions of {name}", "none", then["queries"][name]) for name in measured if name not in now.splits),
    ]
    for what, one, other in held:
        if one != other:
            raise InputError(
                f"run {run.folder}: the {what} of {then['name']} have changed since "
                f"({digest([other])[:8]} -> {digest([one])[:8]}); run the experiment again"
            )


def _checked(question: str) -> str:
    """A question in Unicode's normal form C, as questions of a dataset are stored."""
    if not question.strip():
        raise InputError("the question is empty; ask something")
    check_writable(question, "the question")
    return composed(question)
