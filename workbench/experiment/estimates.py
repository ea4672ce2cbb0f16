"""What a plan will cost: the work of its stages, at the rates this machine showed before."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import NamedTuple

from workbench.experiment.planner import PlannedStage
from workbench.machine import peak_gb, precisions, record
from workbench.models import integers
from workbench.models.served import EndpointGenerator
from workbench.results.words import count
from workbench.stages.answers import Answers
from workbench.stages.served import examination
from workbench.store.items import Counts
from workbench.store.session import Session, Timing
from workbench.store.stage import Stage
from workbench.times import duration

RATES = "rates.json"
PEAK = "peak_gb"  # its entry of the largest memory used
SERVED = "served"  # work of servers, whose speed is not this machine's
KEPT = 9  # runs whose speeds are kept of each kind of work; the median of them is expected
# work of a run from which on its speed is kept: less of it takes no longer than loading a model
ENOUGH = {"embedding": 200, "pairs": 200}
ENOUGH_TOKENS = 2_000
NEXT_TO_NOTHING = 0.05  # seconds of a stage whose work has no rate
# share of a stage's items that no other stage of its pool computes: of 4 rankings of the quickstart a second one showed the
# model 57 of 100 questions with passages that the others had not shown it
NEW_TO_A_POOL = 0.6

IN_INTEGERS = "generation in int8"
# seconds per unit on two cores of an AMD EPYC with bfloat16, until this machine has shown its own
FIRST_RATES = {
    "embedding": 0.02,
    "pairs": 0.006,
    "training": 0.0033,
    "generation": 0.0013,
    IN_INTEGERS: 0.0006,
    SERVED: 0.0002,
    "reranker": 0.0004,
    "embedder": 0.0004,
}
NAMES = {  # for people
    "embedding": "embedding texts",
    "pairs": "re-ranking",
    "training": "fine-tuning",
    "generation": "answering",
    IN_INTEGERS: "answering in 8-bit integers",
    SERVED: "answers of servers",
    "reranker": "training rerankers",
    "embedder": "training embedders",
}
TRAININGS = ("training", "reranker", "embedder")
# timings whose unit is a token -> kind of work
BY_TOKENS = {
    "generation": "generation",
    IN_INTEGERS: IN_INTEGERS,
    SERVED: SERVED,
    "adapter": "training",
    "reranker": "reranker",
    "embedder": "embedder",
}
# share of the first rates that does not go by the speed of products: on a processor whose products were 3.6 times as slow, a
# token of training took 1.9 times as long
OTHER_WORK = {"training": 0.64}
# speed of the products of `machine.precisions` where these were measured, in 10^9 operations a second
REFERENCE = {"inference": 270.0, "training": 345.0}


@dataclass(frozen=True)
class Cost:
    """What computing a stage takes: tokens of models, seconds at the known rate, and money where servers state a price."""

    tokens: int
    seconds: float
    money: float = 0.0


class StageCosts(NamedTuple):
    """The distinct stages of one name in a plan, and what computing the missing ones takes.

    Attributes:
        stage: the name.
        distinct: how many there are.
        uses: by configurations, counted over all of them.
        found: how many the store holds.
        missing: how many have to be computed.
        tokens: that models read and write for the missing ones, at most.
        seconds: about how long the missing ones take; answers to the same prompts are written once.
        money: that servers take for them at the stated prices, at most; 0 where none is stated.
    """

    stage: str
    distinct: int
    uses: int
    found: int
    missing: int
    tokens: int
    seconds: float
    money: float


class TotalCosts(NamedTuple):
    """The sums of a plan.

    Attributes:
        missing: stages to be computed.
        tokens: that models read and write, at most.
        seconds: about how long it takes.
        money: that servers take at the stated prices, at most; 0 where none is stated.
        memory_gb: peak memory of earlier runs into this store; None before the first.
        currency: of the money; empty where no price is stated.
        basis: which speeds the seconds were computed from, as a sentence; empty where nothing takes time.
    """

    missing: int
    tokens: int
    seconds: float
    money: float
    memory_gb: float | None
    currency: str = ""
    basis: str = ""

    def sentence(self, searched: bool) -> str:
        """Stages, tokens and seconds in words.

        Args:
            searched: whether a search chooses what is measured, so that it costs less than the whole plan.
        """
        time = f"about {duration(self.seconds)}" + (" at most, since the search leaves configurations out" if searched else "")
        money = f" and {self.money:,.4g} {self.currency}" if self.currency else ""
        return f"{count(self.missing, 'stage')}, at most {self.tokens:,} tokens{money}, {time}"


class PlannedCosts(NamedTuple):
    """What a plan costs: by the names of its stages, and in total."""

    stages: list[StageCosts]
    total: TotalCosts


class Estimator:
    """Estimates of stages; keeps what this machine showed in the store."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.path = session.store.folder / RATES
        self.rates = self._read()

    def cost(self, stage: Stage[object]) -> Cost:
        """Of a stage alone, an upper bound; see `Work`."""
        work = stage.work(self.session)
        return Cost(work.tokens, work.units * self._rate(work.kind) if work.kind else NEXT_TO_NOTHING, work.money)

    def costs(self, planned: Sequence[PlannedStage], currency: str = "") -> PlannedCosts:
        """What computing the missing stages of a plan takes, by the name of the stage; `currency` is that of prices."""
        by_name: dict[str, list[PlannedStage]] = {}
        for one in planned:
            by_name.setdefault(one.stage.name, []).append(one)
        stages = [self._costs(name, those) for name, those in by_name.items()]
        rows = [*stages, *self._examinations(planned)]
        tokens, seconds, money = (sum(figures) for figures in zip(*(row[5:] for row in rows), strict=True))
        missing = sum(row.missing for row in stages)
        basis = self._basis({one.stage.work(self.session).kind for one in planned if not one.found} - {""})
        total = TotalCosts(int(missing), int(tokens), float(seconds), float(money), self.memory_gb(), currency, basis)
        return PlannedCosts(rows, total)

    def _basis(self, kinds: set[str]) -> str:
        """Which speeds are expected of kinds of work: those that runs here showed, or the built-in ones."""
        seen = {kind: len(self._shown(kind)) for kind in sorted(kinds)}
        built_in = [NAMES[kind] for kind, n in seen.items() if not n]
        learned = [f"{NAMES[kind]} ({n} run{'' if n == 1 else 's'})" for kind, n in seen.items() if n]
        said = [f"the median speed of earlier runs here in {', '.join(learned)}"] if learned else []
        said += [f"built-in speeds, scaled to this machine's, in {', '.join(built_in)}"] if built_in else []
        return f"Times are estimated from {' and from '.join(said)}." if said else ""

    def _examinations(self, planned: Sequence[PlannedStage]) -> list[StageCosts]:
        """A row for examining the servers that are to answer, which is done once in a session; none where nothing is asked."""
        servers: dict[str, tuple[EndpointGenerator, float]] = {}
        for one in planned:
            if isinstance(one.stage, Answers) and one.stage.writer.served and not one.found:
                tokens = one.stage.prompt_tokens(self.session)
                settings, before = one.stage.writer.generator, servers.get(one.stage.writer.namespace)
                if isinstance(settings, EndpointGenerator) and (before is None or before[1] < tokens):
                    servers[one.stage.writer.namespace] = settings, tokens
        found = [examination(*server) for server in servers.values()]
        n, money = len(found), sum(money for _, money in found)
        return [StageCosts("probes", n, n, 0, n, sum(tokens for tokens, _ in found), 0.0, money)] if found else []

    def _costs(self, name: str, stages: Sequence[PlannedStage]) -> StageCosts:
        costs, pools = [], {one.stage.work(self.session).pool for one in stages if one.found}
        for one in stages:
            if not one.found:
                cost, pool = self.cost(one.stage), one.stage.work(self.session).pool
                costs.append(replace(cost, seconds=cost.seconds * NEW_TO_A_POOL) if pool and pool in pools else cost)
                pools.add(pool)
        uses, found = sum(one.uses for one in stages), len(stages) - len(costs)
        tokens, seconds = sum(cost.tokens for cost in costs), sum(cost.seconds for cost in costs)
        return StageCosts(name, len(stages), uses, found, len(costs), tokens, seconds, sum(cost.money for cost in costs))

    def learn(self, timings: Iterable[Timing], counts: dict[str, Counts]) -> None:
        """Keeps the rates a run showed, for the next plan; too little work of a kind shows none.

        Other programs may have slowed a run down, so the median of the last runs is expected.
        """
        shown: dict[str, tuple[float, float]] = {}
        for timing in timings:
            kind = BY_TOKENS.get(timing.stage)
            if kind and timing.tokens:
                seconds, units = shown.get(kind, (0.0, 0.0))
                shown[kind] = (seconds + timing.seconds, units + timing.tokens)
        for stage, kind, items in (("embeddings", "embedding", "embeddings"), ("reranking", "pairs", "pairs")):
            seconds = sum(t.seconds for t in timings if t.stage == stage)
            if counts[items].computed and seconds:
                shown[kind] = (seconds, counts[items].computed)
        for kind, (seconds, units) in shown.items():
            if units >= ENOUGH.get(kind, ENOUGH_TOKENS):
                self.rates[self._name(kind)] = [*self._shown(kind), seconds / units][-KEPT:]
        self.rates[PEAK] = [max(self.memory_gb() or 0.0, peak_gb())]
        temporary = self.path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(self.rates, indent=1, sort_keys=True))
        temporary.rename(self.path)

    def memory_gb(self) -> float | None:
        """Peak memory of the largest run into this store, in GB; None before the first."""
        return max(self.rates.get(PEAK, ()), default=None)

    def _rate(self, kind: str) -> float:
        """Seconds a unit takes."""
        shown = self._shown(kind)
        if shown:
            return median(shown)
        if kind == IN_INTEGERS and not self._exact_integers():
            return self._rate("generation")
        fixed = OTHER_WORK.get(kind, 0.0)
        return FIRST_RATES[kind] * (fixed + (1 - fixed) * self._slower(kind))

    def _exact_integers(self) -> bool:
        """Whether products of 8-bit integers are computed as such here; else they are in float32."""
        if self.session.machine.device != "cpu":
            return True
        return bool(record.kept("products of integers are exact", integers.exact))

    def _shown(self, kind: str) -> list[float]:
        """What the last runs showed, in seconds a unit."""
        return self.rates.get(self._name(kind), [])

    def _slower(self, kind: str) -> float:
        """How many times as long as where the first rates were measured the same work takes here, by the speed of products."""
        if kind == SERVED:
            return 1.0
        machine, use = self.session.machine, "training" if kind in TRAININGS else "inference"
        precision = machine.for_training().precision if use == "training" else machine.precision
        return REFERENCE[use] / precisions.speed(machine.device, use, precision)

    def _name(self, kind: str) -> str:
        machine = self.session.machine
        if kind == SERVED:
            return kind
        return f"{(machine.for_training() if kind in TRAININGS else machine).arithmetic} {kind}"

    def _read(self) -> dict[str, list[float]]:
        """The rates kept, a single one of an earlier version as that of one run.

        A damaged file is renamed, which is said, and the rates begin anew.
        """
        try:
            found = json.loads(self.path.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            return self._damaged(str(error))
        if isinstance(found, dict):
            rates = {name: given if isinstance(given, list) else [given] for name, given in found.items()}
            if all(isinstance(rate, int | float) and rate >= 0 for shown in rates.values() for rate in shown):
                return rates
        return self._damaged("it is no object of numbers")

    def _damaged(self, reason: str) -> dict[str, list[float]]:
        kept = self.path.with_suffix(".damaged")
        self.path.replace(kept)
        self.session.progress.say(
            f"{self.path}, the speeds that this machine showed, is damaged ({reason}); it is kept as {kept.name}, and estimates "
            f"begin again with the built-in speeds"
        )
        return {}
