"""Rows of the tables of a run: a class for each file, whose fields are its columns in their order.

A value that is missing is None and an empty cell. Means, differences and intervals are in the metric's own unit; intervals
have the level 95 %; p-values are two-sided.

Tables of tested differences hold two intervals and two adjustments. What is concluded, and shown, is ``family``, ``p``,
``p_adjusted``, ``low``, ``high`` and ``supported`` (see `workbench.evaluation.families`), with ``n_needed``. The others are what
earlier versions wrote, kept for those who read them: ``ci_low`` and ``ci_high`` (a t interval of this difference alone) and
``p_holm`` (Holm's adjustment over the rows of the table). Fields with a default are missing in tables of earlier versions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol


class ConfigurationRow(NamedTuple):
    """One row of configurations.csv.

    Attributes:
        configuration: id: the digest of its resolved settings, the same in every run.
        label: the values of the axes that vary, for people.
        values: axis -> value, one column for each axis, in the order of the axes.
        prompt_mismatch: whether its adapter was trained with another prompt, or with another number of passages.
        keys: name of an artifact -> its key in the store; one cell, as JSON.
    """

    configuration: str
    label: str
    values: Mapping[str, str]
    prompt_mismatch: bool
    keys: Mapping[str, str]


class ResultRow(NamedTuple):
    """One row of results.csv: what one configuration scored on one query by one metric.

    Attributes:
        configuration: id.
        split: the query's.
        query_id: the query.
        metric: its name.
        value: the score; None where it failed.
        status: ``ok``, or what failed.
    """

    configuration: str
    split: str
    query_id: str
    metric: str
    value: float | None
    status: str


class SeedRow(NamedTuple):
    """One row of seeds.csv: as `ResultRow`, with one of several seeds."""

    configuration: str
    split: str
    seed: int
    query_id: str
    metric: str
    value: float | None
    status: str


class LeaderboardRow(NamedTuple):
    """One row of leaderboard.csv: one configuration on one split by one metric.

    Attributes:
        configuration: id.
        split: the split.
        metric: the metric.
        mean: over the queries; a failure counts as the metric's worst value.
        n: number of queries.
        failed: how many of them failed.
        ci_low: lower end of the 95 % interval of the mean; None where there are too few queries.
        ci_high: its upper end.
        best: the mean if every failure had scored the metric's best value.
    """

    configuration: str
    split: str
    metric: str
    mean: float
    n: int
    failed: int
    ci_low: float | None
    ci_high: float | None
    best: float


class CostRow(NamedTuple):
    """One row of costs.csv: what an answer of a configuration takes, on the mean over a split.

    Attributes:
        configuration: id.
        split: the split.
        n: number of answers.
        prompt_tokens: read for an answer.
        new_tokens: written for an answer.
        money: for an answer, at the stated price; None where none is stated.
        currency: of the money; empty where no price is stated.
    """

    configuration: str
    split: str
    n: int
    prompt_tokens: float
    new_tokens: float
    money: float | None
    currency: str


class Tested(Protocol):
    """What the rows of tested differences share: comparisons, effects, interactions and finalists."""

    @property
    def metric(self) -> str:
        """Name of the metric."""

    @property
    def n(self) -> int:
        """Number of queries."""

    @property
    def difference(self) -> float:
        """Mean difference over the queries."""

    @property
    def ci_low(self) -> float | None:
        """Lower end of its 95 % interval; None where there are too few queries."""

    @property
    def ci_high(self) -> float | None:
        """Upper end of it."""

    @property
    def p(self) -> float | None:
        """P-value of the difference, by sign flips."""

    @property
    def p_holm(self) -> float | None:
        """The p-value adjusted by Holm's method over the family of the table."""

    @property
    def smallest_detectable(self) -> float | None:
        """The true difference that 8 in 10 such samples would find at the level .05."""

    @property
    def family(self) -> str:
        """The family of tests it belongs to; empty in a table of an earlier version, which has no verdict."""

    @property
    def p_adjusted(self) -> float | None:
        """The p-value adjusted over that family."""

    @property
    def low(self) -> float | None:
        """Lower end of the interval that is this test inverted; None where there are too few groups, or too unequal ones."""

    @property
    def high(self) -> float | None:
        """Upper end of it."""

    @property
    def supported(self) -> str:
        """``yes`` where the data show a difference, the interval then leaves out zero, else ``no``."""

    @property
    def n_needed(self) -> int | float | None:
        """Queries that would show such a difference in this family with 80 % power; infinite where no number would."""


class ComparisonRow(NamedTuple):
    """One row of comparisons.csv: configuration a less configuration b, a < b; see `Tested`."""

    a: str
    b: str
    split: str
    metric: str
    n: int
    difference: float
    ci_low: float | None
    ci_high: float | None
    p: float | None
    p_holm: float | None
    smallest_detectable: float | None
    family: str = ""
    p_adjusted: float | None = None
    low: float | None = None
    high: float | None = None
    supported: str = ""
    n_needed: int | float | None = None

    def turned(self) -> ComparisonRow:
        """The same, seen from its other side: b less a."""
        ends = (None if end is None else -end for end in (self.ci_high, self.ci_low, self.high, self.low))
        ci_low, ci_high, low, high = ends
        turned = self._replace(a=self.b, b=self.a, difference=-self.difference)
        return turned._replace(ci_low=ci_low, ci_high=ci_high, low=low, high=high)


class EffectRow(NamedTuple):
    """One row of effects.csv: value a of an axis less value b, averaged over `cells` combinations of the other axes."""

    axis: str
    a: str
    b: str
    split: str
    metric: str
    n: int
    cells: int
    difference: float
    ci_low: float | None
    ci_high: float | None
    p: float | None
    p_holm: float | None
    smallest_detectable: float | None
    family: str = ""
    p_adjusted: float | None = None
    low: float | None = None
    high: float | None = None
    supported: str = ""
    n_needed: int | float | None = None


class InteractionRow(NamedTuple):
    """One row of interactions.csv: a less b at the value `given_a` of another axis, less the same at `given_b`."""

    axis: str
    a: str
    b: str
    given: str
    given_a: str
    given_b: str
    split: str
    metric: str
    cells: int
    n: int
    difference: float
    ci_low: float | None
    ci_high: float | None
    p: float | None
    p_holm: float | None
    smallest_detectable: float | None
    family: str = ""
    p_adjusted: float | None = None
    low: float | None = None
    high: float | None = None
    supported: str = ""
    n_needed: int | float | None = None


class SliceRow(NamedTuple):
    """One row of slices.csv: one configuration on the questions of one value of a column, and its difference to another there.

    Attributes:
        split: the split.
        column: of the questions, as ``metrics.slices`` names it.
        value: of the column; ``(none)`` for questions that lack it.
        metric: the metric.
        configuration: id.
        against: id of the configuration that `difference` subtracts; empty where the configuration was not compared, and what
            belongs to a comparison is then missing.
        n: number of queries of the slice that the metric measures.
        groups: how many independent groups they form.
        small: ``yes`` where these are fewer than six, so that the slice can show nothing; else ``no``.
        failed: how many of the queries failed.
        mean: over the queries, as in the leaderboard.
        ci_low: lower end of the 95 % interval of the mean; None where there are too few queries.
        ci_high: its upper end.
        difference: mean of `configuration` less that of `against`.
        family: of tests; all comparisons on all slices by a metric on a split are one.
        p: of this difference alone.
        p_adjusted: over the family.
        low: lower end of the interval that is this test inverted.
        high: its upper end.
        supported: ``yes`` where the data show a difference, else ``no``.
        n_needed: queries of this slice that would show such a difference.
    """

    split: str
    column: str
    value: str
    metric: str
    configuration: str
    against: str
    n: int
    groups: int
    small: str
    failed: int
    mean: float
    ci_low: float | None
    ci_high: float | None
    difference: float | None
    family: str
    p: float | None
    p_adjusted: float | None
    low: float | None
    high: float | None
    supported: str
    n_needed: int | float | None

    @property
    def tested(self) -> ComparisonRow | None:
        """The comparison as a row of comparisons.csv, for its verdict; None where there is none."""
        if self.difference is None:
            return None
        head = self.configuration, self.against, self.split, self.metric, self.n, self.difference
        tested = self.family, self.p_adjusted, self.low, self.high, self.supported, self.n_needed
        return ComparisonRow(*head, None, None, self.p, None, None, *tested)


class FinalistRow(NamedTuple):
    """One row of finalists.csv: a configuration less the baseline on the report split; see `Tested`."""

    configuration: str
    baseline: str
    split: str
    metric: str
    n: int
    difference: float
    ci_low: float | None
    ci_high: float | None
    p: float | None
    p_holm: float | None
    smallest_detectable: float | None
    n_needed: int | float | None
    family: str = ""
    p_adjusted: float | None = None
    low: float | None = None
    high: float | None = None
    supported: str = ""


class SelectionRow(NamedTuple):
    """The row of selection.csv: by how much choosing the winner flattered it.

    Attributes:
        configuration: the winner.
        baseline: what it is held against.
        metric: the metric that chose it.
        candidates: how many configurations it was chosen from.
        select_margin: its mean less the baseline's where it was chosen.
        report_margin: the same on the report split; None where one of them was not measured there.
        optimism: the first margin less the second.
        ci_low: lower end of the optimism's 95 % interval.
        ci_high: its upper end.
        predicted_optimism: what random halves of the selection split predict.
    """

    configuration: str
    baseline: str
    metric: str
    candidates: int
    select_margin: float
    report_margin: float | None
    optimism: float | None
    ci_low: float | None
    ci_high: float | None
    predicted_optimism: float | None


class QueryRow(NamedTuple):
    """One row of queries.csv; queries of one group (a document, a conversation) depend on each other."""

    split: str
    query_id: str
    group: str
    question: str


class RetrievalRow(NamedTuple):
    """One row of retrieval.csv: how many questions a configuration answered without passages.

    Attributes:
        configuration: id.
        split: the split.
        seed: of the adapter; None where there is none.
        questions: how many were asked.
        without_passages: how many of them were answered without passages.
        retrieval: ``always``, ``never``, or the label of the gate that decides.
        threshold: how sure the ranking must be for its passages to be shown; None where nothing is learned.
        key: of the stage that learned the threshold; empty where there is none.
    """

    configuration: str
    split: str
    seed: int | None
    questions: int
    without_passages: int
    retrieval: str
    threshold: float | None
    key: str


class TimingRow(NamedTuple):
    """One row of timings.csv: what computing a stage, or a batch of items, took in this run.

    Attributes:
        stage: its name.
        key: its key; of items, their namespace.
        uses: configurations that use the stage; None for items.
        computed: 1, since what was found takes no time.
        seconds: of computing.
        tokens: that models read and wrote.
        items: answers or pairs computed in these seconds; None for a stage.
        seconds_per_item: `seconds` / `items`.
    """

    stage: str
    key: str
    uses: int | None
    computed: int
    seconds: float
    tokens: int
    items: int | None
    seconds_per_item: float | None


class TrainingRow(NamedTuple):
    """One row of training.csv: the losses of one training after one step, in nats per answer token.

    Attributes:
        adapter: the generator that it tunes, a value of the axis ``generator``.
        seed: of the training.
        step: number of the optimiser step, from 1; 0 is before the first.
        loss: mean over the step's examples; None before the first.
        held_back: mean over the examples held back; None where it was not measured after this step.
    """

    adapter: str
    seed: int
    step: int
    loss: float | None
    held_back: float | None


class LatencyRow(NamedTuple):
    """One row of latency.csv: what one configuration takes for single requests; seconds, and tokens of prompt and answer.

    Attributes:
        configuration: id.
        requests: how many were timed.
        p50: median seconds, with its 95 % bootstrap interval.
        p50_low: lower end.
        p50_high: upper end.
        p95: seconds within which 95 % of the requests were answered, with its 95 % bootstrap interval.
        p95_low: lower end.
        p95_high: upper end.
        tokens: mean tokens read and written, with its 95 % interval.
        tokens_low: lower end.
        tokens_high: upper end.
        prompt_tokens: mean tokens read.
        answer_tokens: mean tokens written.
        answers_per_second: when questions are answered together.
        load: of the machine while it was measured, per processor core.
        processor: its name.
    """

    configuration: str
    requests: int
    p50: float
    p50_low: float | None
    p50_high: float | None
    p95: float
    p95_low: float | None
    p95_high: float | None
    tokens: float
    tokens_low: float | None
    tokens_high: float | None
    prompt_tokens: float
    answer_tokens: float
    answers_per_second: float
    load: float
    processor: str


class IndexRow(NamedTuple):
    """One row of indexes.csv: one dense index held against exact search.

    Attributes:
        kind: what it is, such as `flat` or `hnsw`; of an index that chooses, what it chose.
        settings: those that differ from the defaults of its kind.
        embedder: what made the vectors, by its name in the experiment's file.
        vectors: how many it holds.
        queries: how many were asked.
        recall_at_10: share of the 10 passages that exact search ranks first which the index ranks among its first 10.
        recall_at_100: the same of 100.
        backend: what searched.
        build_seconds: of building it.
        bytes_per_vector: on disk.
        queries_per_second: asked together.
        seconds_for_one: of one query alone.
        reason: why this kind was chosen; empty where the file names it.
        key: beginning of its key in the store.
    """

    kind: str
    settings: str
    embedder: str
    vectors: int
    queries: int
    recall_at_10: float
    recall_at_100: float
    backend: str
    build_seconds: float
    bytes_per_vector: float
    queries_per_second: float
    seconds_for_one: float
    reason: str
    key: str


class SystemRow(NamedTuple):
    """One way to answer the same prompts: base, adapter or merged weights; mean of a metric as in the leaderboard."""

    system: str
    split: str
    metric: str
    mean: float
    ci_low: float | None
    ci_high: float | None
    n: int
