"""Commands on the people of a service: who is known, who has a key, who is forgotten."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.data.readers.text import counted
from workbench.errors import InputError

if TYPE_CHECKING:
    from workbench.serving.records.database import Database
    from workbench.serving.records.erasing import Erased
    from workbench.serving.redis_server import RedisServer

users_app = typer.Typer(no_args_is_help=True, help="Who is known to the service.")
keys_app = typer.Typer(no_args_is_help=True, help="Keys of the service's API.")
records_app = typer.Typer(no_args_is_help=True, help="Where the service keeps its records.")
feedback_app = typer.Typer(no_args_is_help=True, help="What people said of answers.")

NameArgument = Annotated[str, typer.Argument(help="Name of the user.")]
RunsOption = Annotated[Path, typer.Option("--runs", help="Folder of all runs.")]
SettingsOption = Annotated[Path | None, typer.Option(help="YAML file of the service's settings; see docs/serving.md.")]
RUNS = Path("runs")


@users_app.command("add")
def users_add(
    name: NameArgument,
    password: Annotated[bool, typer.Option("--password", help="Ask for a password, with which they log in to the page.")] = False,
    runs: RunsOption = RUNS,
    settings: SettingsOption = None,
) -> None:
    """Add a user; `workbench keys add` makes them a key."""
    from workbench.serving.records import people

    with _records(settings, runs) as records:
        kept = _hash_of_typed() if password else None
        with records.writing() as connection:
            people.add_user(connection, name, kept)
    typer.echo(f"added {name}")


@users_app.command("password")
def users_password(name: NameArgument, runs: RunsOption = RUNS, settings: SettingsOption = None) -> None:
    """Give a user a password, or another one; whoever is logged in with the one before is logged out."""
    from workbench.serving.records import people

    with _records(settings, runs) as records:
        with records.reading() as connection:
            user = people.named(connection, name)
        kept = _hash_of_typed()
        with records.writing() as connection:
            people.set_password(connection, user, kept)
    typer.echo(f"{name} has another password")


@users_app.command("list")
def users_list(runs: RunsOption = RUNS, settings: SettingsOption = None) -> None:
    """List the users: name, since when, how many valid keys, and how else they come in."""
    from workbench.serving.records import people

    with _records(settings, runs) as records, records.reading() as connection:
        found = people.list_users(connection)
        valid = [key.user for key in people.list_keys(connection) if key.revoked is None]
    for user in found:
        number = valid.count(user.id)
        ways = [f"{number} key{'' if number == 1 else 's'}", *(["password"] if user.has_password else [])]
        ways += [f"{user.issuer} {user.subject}"] if user.issuer else []
        typer.echo(f"{user.name:24} {_date(user.created)}  {', '.join(ways)}")
    if not found:
        typer.echo("no users; `workbench users add NAME` adds one")


@users_app.command("forget")
def users_forget(
    name: Annotated[str, typer.Argument(help="Name of the user; of another issuer's: ISSUER SUBJECT, as the list shows.")],
    runs: RunsOption = RUNS,
    settings: SettingsOption = None,
) -> None:
    """Remove a user with all their texts, votes and keys from records, cache and exported files; it cannot be undone."""
    from workbench.serving import redis_server
    from workbench.serving.app import TABLE, folder_of
    from workbench.serving.records import erasing, people
    from workbench.serving.settings import read_service

    redis = redis_server.from_environment()
    with _records(settings, runs) as records:
        cache = folder_of(read_service(settings), runs) / TABLE
        try:
            with records.reading() as connection:
                user = people.named(connection, name)
        except InputError:
            if not records.is_shared:  # whose tables nobody could use meanwhile
                erasing.scrub_all(records, cache)  # an earlier attempt may have been kept from it
            raise
        erased = erasing.forget(records, user, cache)
    if redis:
        _forget_in_redis(redis, erased.asked)
    _tell(name, erased, runs)


def _forget_in_redis(server: RedisServer, asked: list[str]) -> None:
    """Removes answers from Redis."""
    from workbench.serving import redis_cache

    try:
        redis_cache.remove(server.client, asked)
    except server.errors as error:
        typer.echo(f"answers could not be removed from Redis at {server.name} ({error}); a running service does it", err=True)


def _tell(name: str, erased: Erased, runs: Path) -> None:
    typer.echo(f"forgot {name}: {erased.requests} requests, {len(erased.asked)} of their questions nobody else had asked")
    for path, lines in erased.files.items():
        if lines is None:
            typer.echo(f"{path} is not there any more; if it was moved or copied, remove their questions there", err=True)
        else:
            typer.echo(f"{path}: removed {counted(lines, 'question')}")
    for folder, number in _measured_on(erased.questions, runs).items():
        typer.echo(f"{folder} was measured on {number} of their questions, which are in it: remove the folder too", err=True)


def _measured_on(questions: frozenset[str], runs: Path) -> dict[Path, int]:
    """Runs that were measured on exported questions, and on how many of them."""
    from workbench.results.run import finished

    found = {}
    for folder in finished(runs) if questions else []:
        with (folder / "queries.csv").open(encoding="utf-8", newline="") as file:
            found[folder] = len(questions & {row["query_id"] for row in csv.DictReader(file)})
    return {folder: number for folder, number in found.items() if number}


@keys_app.command("add")
def keys_add(
    name: NameArgument,
    per_minute: Annotated[int | None, typer.Option(min=1, help="Questions in a minute; default: the service's setting.")] = None,
    tokens_per_day: Annotated[
        int | None, typer.Option(min=1, help="Tokens of prompts and answers in a day of UTC; default: the service's setting.")
    ] = None,
    runs: RunsOption = RUNS,
    settings: SettingsOption = None,
) -> None:
    """Make a user a key. It is shown once: only its digest is kept."""
    from workbench.serving.records import people

    with _records(settings, runs) as records, records.writing() as connection:
        user = people.named(connection, name)
        key = people.add_key(connection, user.id, per_minute, tokens_per_day)
    typer.echo(key)
    typer.echo("this is the only time that the key is shown; send it as `Authorization: Bearer KEY`", err=True)


@keys_app.command("list")
def keys_list(runs: RunsOption = RUNS, settings: SettingsOption = None) -> None:
    """List the keys: beginning, user, when each was made and last used, its own limits, and whether it was revoked."""
    from workbench.serving.records import people

    with _records(settings, runs) as records, records.reading() as connection:
        found = people.list_keys(connection)
    for key in found:
        limits = {"a minute": key.per_minute, "tokens a day": key.tokens_per_day}
        said = [f"{number:,} {unit}" for unit, number in limits.items() if number is not None]
        used = f"used {_date(key.last_used)}" if key.last_used else "never used"
        said += [f"revoked {_date(key.revoked)}"] if key.revoked else []
        typer.echo(f"{people.KEY_START}{key.prefix}  {key.name:24} {_date(key.created)}  {', '.join([used, *said])}")
    if not found:
        typer.echo("no keys; `workbench keys add NAME` makes one")


@keys_app.command("revoke")
def keys_revoke(
    key: Annotated[str, typer.Argument(help="The beginning of the key, as `workbench keys list` shows it.")],
    runs: RunsOption = RUNS,
    settings: SettingsOption = None,
) -> None:
    """Make a key invalid; a running service refuses it within a second."""
    from workbench.serving.records import people

    with _records(settings, runs) as records, records.writing() as connection:
        found = people.revoke(connection, key)
    typer.echo(f"{people.KEY_START}{found.prefix} of {found.name} is revoked")


@feedback_app.command("export")
def feedback_export(
    run: Annotated[Path, typer.Argument(help="Folder of the run that was served.")],
    out: Annotated[Path, typer.Option(help="The file of questions.")] = Path("feedback.jsonl"),
    split: Annotated[
        str | None, typer.Option(help="train, dev or test: of all questions; default: half of them dev, half test.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also questions whose answer was found bad and not corrected, with answers: null.")
    ] = False,
    settings: SettingsOption = None,
) -> None:
    """Write the questions that people voted on as questions for the next experiment."""
    from workbench.data.dataset import SPLITS
    from workbench.results.run import Run
    from workbench.serving.records.exporting import export

    if split is not None and split not in SPLITS:
        raise InputError(f"--split received {split!r}; allowed: {', '.join(SPLITS)}")
    opened = Run.open(run)
    with _records(settings, opened.runs) as records:
        found = export(records, opened.folder.name, out, split, everything)
    typer.echo(f"{counted(found.questions, 'question')} in {out}, marked `source: feedback`")
    if found.without_evidence:
        stand = counted(found.without_evidence, "answer", "stands", "stand")
        typer.echo(f"{stand} in no passage that was shown: the evidence is null there")
    if found.uncorrected:
        way = "`answers: null` is to be replaced" if everything else "left out here; --all writes them without an answer"
        bad = counted(found.uncorrected, "question", "was", "were")
        typer.echo(f"{bad} answered badly, and nobody said what is right; {way}")


@records_app.command("copy")
def records_copy(runs: RunsOption = RUNS, settings: SettingsOption = None) -> None:
    """Copy the records of a stopped service's file into the empty database that WORKBENCH_DATABASE_URL names."""
    from workbench.serving.app import folder_of
    from workbench.serving.packages import require
    from workbench.serving.settings import read_service

    require("sqlalchemy", "alembic", "argon2")
    from workbench.serving.records import copying, postgres
    from workbench.serving.records.database import FILE, Database

    path = folder_of(read_service(settings), runs) / FILE
    if not path.is_file():
        raise InputError(f"there are no records in {path}; name the folder of runs with --runs, or the service's settings")
    target = postgres.from_environment()
    if target is None:
        raise InputError(f"{postgres.VARIABLE} names no database; allowed: {postgres.FORM}")
    with closing(target), closing(Database(path)) as source:
        from sqlalchemy.exc import DBAPIError

        try:
            found = copying.copy(source, target)
        except DBAPIError as error:
            raise InputError(
                f"the records were not copied from {path} to {target.name} ({error.orig}); both are as before"
            ) from error
    told = ", ".join(f"{rows:,} {name}" for name, rows in found.items() if rows)
    typer.echo(f"copied {told or 'no records'} to {target.name}; {path} is as it was")


@contextmanager
def _records(settings: Path | None, runs: Path) -> Iterator[Database]:
    """The records of a service; closed afterwards.

    Raises:
        InputError: the file cannot be used; nothing is changed.
    """
    from workbench.serving.app import open_records
    from workbench.serving.settings import read_service

    with closing(open_records(read_service(settings), runs)) as records:
        from sqlalchemy.exc import DBAPIError

        try:
            yield records
        except DBAPIError as error:
            raise records.unusable(error) from error


def _hash_of_typed() -> str:
    """The hash of a password that is typed twice, or that stands in the first line of standard input."""
    from workbench.serving.who.passwords import hashed

    if not sys.stdin.isatty():
        return hashed(sys.stdin.readline().rstrip("\r\n"))
    typed = typer.prompt("Password", hide_input=True)
    if typer.prompt("Once more", hide_input=True) != typed:
        raise InputError("the two passwords are not the same; nothing was changed")
    return hashed(typed)


def _date(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(at))
