"""What the JSON and YAML files of a run hold, and the lines of answers.jsonl, as types."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from workbench.provenance import Code


class SettingsRecord(TypedDict, total=False):
    """What is read again of a run's config.yaml.

    `names` maps values of axes to plain words; `metrics` holds `matters` among others; `components` the settings of each
    component by family and name.
    """

    names: dict[str, str]
    metrics: dict[str, object]
    components: dict[str, dict[str, dict[str, object]]]


class SelectRecord(TypedDict):
    """Where and by what the winner is chosen: split and metric."""

    split: str
    metric: str


class SearchRecord(TypedDict):
    """How configurations were searched; see `workbench.experiment.config.Search`."""

    strategy: str
    order: str


class ReportRecord(TypedDict):
    """The split figures are reported from, and of which configurations: ``finalists`` or ``all``."""

    split: str
    of: str


class CutRecord(TypedDict):
    """Prompts that were too long for a generator, and how many passages were left out of them."""

    prompts: int
    passages: int


class RepeatedRecord(TypedDict):
    """How many answers were generated again, and the ids of the queries whose answers differed."""

    answers: int
    differing: list[str]


class ProbedRecord(TypedDict):
    """What a server was found to accept and to say; see `workbench.models.probe.ProbeRecord`."""

    model: str
    fingerprint: str
    system: bool
    parameters: list[str]
    usage: bool
    context: int | None
    whole: int | None


class CanariesRecord(TypedDict):
    """Fixed prompts asked again: how many, how many were answered otherwise at once the first time, and how many since."""

    asked: int
    floor: int
    changed: int


class ServedRecord(TypedDict):
    """What is known of the server of a generator.

    `model` is the name asked for, `models` are those that the server says have answered, with how many answers; `canaries` is
    None where they were asked in one session only.
    """

    model: str
    probe: ProbedRecord | None
    models: dict[str, int]
    canaries: CanariesRecord | None


class SpentRecord(TypedDict):
    """What a server was asked in a session for one purpose."""

    requests: int
    prompt_tokens: int
    new_tokens: int
    money: float


class UnreadRecord(TypedDict):
    """What an embedder left out: texts longer than the tokens it `reads`, their left-out tokens, tokens of the longest.

    `reads` is None for an embedder that reads texts of any length.
    """

    reads: int | None
    texts: int
    tokens: int
    longest: int


class TruncationRecord(TypedDict):
    """What an embedder did not read of the passages of a chunking; `truncation` is None where its server does not say."""

    embedder: str
    chunking: str
    passages: int
    truncation: UnreadRecord | None


class DatasetRecord(TypedDict):
    """What was asked and searched: digests of documents, and by split of queries and judgements; sizes; notes of loading."""

    name: str
    documents: str
    queries: dict[str, str]
    judgements: dict[str, str]
    sizes: dict[str, int]
    notes: list[str]


class MachineRecord(TypedDict):
    """What computed the run.

    `products` are the seconds of the products that models make, by use and precision: what ``precision: auto`` goes by.
    """

    arithmetic: str
    reason: str
    training: str
    products: dict[str, dict[str, list[float]]]
    vectors: dict[str, str]
    fallbacks: list[str]
    processor: str
    python: str
    system: str


class NodeRecord(TypedDict):
    """What one node of a cluster computed: its processors and threads, items by kind and whole stages, and why it was refused."""

    processors: int
    threads: int
    computed: dict[str, int]
    refused: str | None


class Manifest(TypedDict):
    """manifest.json, which closes a run.

    `format` is raised when files of a run change their meaning; `command` started the process that wrote the run.
    `nodes` are those of a cluster that computed; runs of earlier versions have none.
    """

    format: int
    experiment: str
    code: Code
    command: str
    started: str
    finished: str
    select: SelectRecord
    search: SearchRecord
    report: ReportRecord
    baseline: str
    seed: int
    seeds: int
    failures: dict[str, int]
    cut: dict[str, CutRecord]
    notes: list[str]
    truncation: list[TruncationRecord]
    repeated: dict[str, RepeatedRecord]
    served: dict[str, ServedRecord]
    spent: dict[str, dict[str, SpentRecord]]
    dataset: DatasetRecord
    machine: MachineRecord
    nodes: NotRequired[dict[str, NodeRecord]]
    libraries: dict[str, str]
    files: dict[str, str]


class PlannedRecord(TypedDict):
    """One stage of plan.json: whether the plan found it, and whether the run computed it."""

    stage: str
    key: str
    uses: int
    found: bool
    computed: bool


class CountsRecord(TypedDict):
    """Items of one kind: distinct ones asked for, those found, those computed."""

    distinct: int
    found: int
    computed: int


class TotalsRecord(TypedDict):
    """Stages of a plan: how many were planned, found and computed."""

    planned: int
    found: int
    computed: int


class PlanRecord(TypedDict):
    """plan.json."""

    stages: list[PlannedRecord]
    items: dict[str, CountsRecord]
    totals: TotalsRecord
    seconds: dict[str, float]


class PlaceRecord(TypedDict):
    """A passage: its document and the characters of its text, from `start` to before `end`."""

    doc_id: str
    start: int
    end: int


def passage_id(place: PlaceRecord) -> str:
    """How files name a passage: its place, which is the same in every chunking that cuts it out, such as ``a.txt:0-120``."""
    return f"{place['doc_id']}:{place['start']}-{place['end']}"


class AnswerRecord(TypedDict):
    """One line of answers.jsonl: an answer of a configuration, with one seed where something was trained."""

    configuration: str
    split: str
    seed: int | None
    query_id: str
    prompt: str
    reply: str
    answer: str
    passages: list[PlaceRecord]
    status: str
    prompt_tokens: int
    new_tokens: int
    cut: int


class ChosenRecord(TypedDict):
    """How a promoted configuration was chosen: ``best mean`` or ``name``, and the split and metric that choose."""

    by: str
    split: str
    metric: str


class FigureRecord(TypedDict):
    """A figure of the report split: mean, 95 % interval, number of queries and how many of them failed."""

    split: str
    mean: float
    ci_low: float | None
    ci_high: float | None
    n: int
    failed: int


class Promotion(TypedDict):
    """promoted.yaml: the configuration to serve, what it is, and its figures by metric."""

    configuration: str
    label: str
    values: dict[str, str | int]
    prompt_mismatch: bool
    chosen: ChosenRecord
    figures: dict[str, FigureRecord]
    run: str
