"""What servers were seen to do while they answered, and what their answers cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from math import fsum

from workbench.experiment.planner import ConfigurationStages
from workbench.models.served import EndpointGenerator
from workbench.results.records import ServedRecord, SpentRecord
from workbench.results.rows import ComparisonRow, CostRow
from workbench.stages import served
from workbench.stages.answers import Answers
from workbench.store.session import Session


class Observed:
    """What is read from the store of the servers that answered in a run; nothing is asked."""

    def __init__(self, session: Session, measured: Sequence[ConfigurationStages]) -> None:
        self.session = session
        self.measured = measured
        self.models = {
            (one.configuration.id, one.split): self._models(one) for one in measured if one.answers and one.answers.writer.served
        }

    def _models(self, one: ConfigurationStages) -> Counter[str]:
        """Name that a server gave itself -> answers of a configuration on a split."""
        found: Counter[str] = Counter()
        for answers in one.all_answers():
            prompts = [prompt.text for prompt in answers.prompts(self.session)]
            for generation in answers.writer.written(prompts, self.session):
                if generation.served and (model := generation.served.get("model")):
                    found[model] += 1
        return found

    def records(self) -> dict[str, ServedRecord]:
        """Generator -> what is known of its server."""
        found: dict[str, ServedRecord] = {}
        for one in self.measured:
            if one.answers is None or not isinstance(generator := one.answers.writer.generator, EndpointGenerator):
                continue
            name, namespace = one.configuration["generator"], one.answers.writer.namespace
            drift = served.drifted(namespace, self.session)
            record = found.setdefault(
                name,
                {
                    "model": generator.model,
                    "probe": served.probed(namespace, self.session),
                    "models": {},
                    "canaries": {"asked": drift.canaries, "floor": drift.floor, "changed": drift.changed} if drift else None,
                },
            )
            for model, count in self.models[one.configuration.id, one.split].items():
                record["models"][model] = record["models"].get(model, 0) + count
        return dict(sorted(found.items()))

    def notes(self) -> list[str]:
        """A caution for each generator as which several models answered."""
        return [
            f"CAUTION: as generator {name!r} two models or more answered ({', '.join(sorted(record['models']))}). Configurations "
            f"whose answers are of different models, or of several, are not compared; name a revision and ask again"
            for name, record in self.records().items()
            if len(record["models"]) > 1
        ]

    def comparable(self, row: ComparisonRow) -> bool:
        """Whether the answers of two configurations are each of one model, and of the same where the generator is the same."""
        generators = {one.configuration.id: one.configuration["generator"] for one in self.measured}
        a, b = (self.models.get((c, row.split)) for c in (row.a, row.b))
        if max(len(a or ()), len(b or ())) > 1:
            return False
        return a is None or b is None or generators[row.a] != generators[row.b] or set(a) == set(b)

    @property
    def mixed(self) -> set[str]:
        """Splits on which answers of one configuration are of several models, or those of one generator are."""
        by_generator: dict[tuple[str, str], set[str]] = {}
        for one in self.measured:
            if models := self.models.get((one.configuration.id, one.split)):
                by_generator.setdefault((one.configuration["generator"], one.split), set()).update(models)
        return {split for (_, split), several in by_generator.items() if len(several) > 1}


def spent(session: Session) -> dict[str, dict[str, SpentRecord]]:
    """What this session took of servers: model -> purpose -> requests, tokens and money."""
    found: dict[str, dict[str, SpentRecord]] = {}
    for (model, purpose), one in sorted(session.spending.spent.items()):
        found.setdefault(model, {})[purpose] = {
            "requests": one.requests,
            "prompt_tokens": one.prompt_tokens,
            "new_tokens": one.new_tokens,
            "money": round(one.money, 9),
        }
    return found


def costs(measured: Sequence[ConfigurationStages], session: Session) -> Iterator[CostRow]:
    """Mean tokens of an answer, and what it costs where a price is stated, whether it was asked now or before."""
    for one in sorted(measured, key=lambda m: (m.configuration.id, m.split)):
        rows = [row for answers in one.all_answers() for row in session.read(answers)]
        if one.answers is None or not rows:
            continue
        generator = one.answers.writer.generator
        price = generator.price if isinstance(generator, EndpointGenerator) else None
        n = len(rows)
        read, written = fsum(row.prompt_tokens for row in rows) / n, fsum(row.new_tokens for row in rows) / n
        money = price.of(read, written) if price else None
        yield CostRow(one.configuration.id, one.split, n, read, written, money, price.currency if price else "")


def unanswered(stage: Answers, session: Session) -> set[str]:
    """Ids of the questions of an answers stage that the store has no answer to."""
    if session.has(stage):
        return set()
    prompts = stage.prompts(session)
    missing = set(session.store.items.missing(stage.writer.namespace, [prompt.text for prompt in prompts]))
    return {prompt.query_id for prompt in prompts if prompt.text in missing}
