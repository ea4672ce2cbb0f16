"""The service: a page for people and an API for programs, both answered by one pipeline.

`build` makes the application; `serve` lets nobody in before measured answers came out the same again.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import InputError
from workbench.serving.packages import require, require_extra

if TYPE_CHECKING:
    from workbench.pipeline import Pipeline
    from workbench.serving.batching import Workers
    from workbench.serving.middleware import Guard
    from workbench.serving.records.database import Database
    from workbench.serving.redis_server import RedisServer
    from workbench.serving.settings import ServiceSettings
    from workbench.store.progress import Progress

EVERY_ADDRESS = ("0.0.0.0", "::")
TABLE = "answers.sqlite"  # in the folder of the cache

log = logging.getLogger(__name__)


def build(
    pipeline: Pipeline,
    settings: ServiceSettings | None = None,
    host: str = "127.0.0.1",
    reopen: Callable[[str], Pipeline] | None = None,
    records: Database | None = None,
    others: Callable[[str], Pipeline] | None = None,
    redis: RedisServer | None = None,
    workers: Workers | None = None,
) -> Guard:
    """The application.

    Args:
        pipeline: what answers.
        settings: of the service; default: the defaults, without a cache on disk.
        host: address that it listens on, by which it may be called.
        reopen: the pipeline of another configuration of the run, so that another promotion is served as soon as it is made; None:
            it is not.
        records: where requests, votes and conversations are kept, and who is known; None: nowhere, and nobody.
        others: the pipeline of another configuration of the run, with which the page compares; None: it does not.
        redis: what replicas know together; None: this is the only one.
        workers: who computes; None: a thread of this process.

    Returns:
        An application of ASGI.

    Raises:
        MissingExtraError: Gradio, FastAPI or uvicorn is not installed.
        InputError: a fallback that cannot be used, or a secret of tokens that is too short.
    """
    require_extra()
    import gradio
    from fastapi_offline import FastAPIOffline

    from workbench.serving.api import add_routes, refused
    from workbench.serving.asking import MEMORY_BYTES, Service
    from workbench.serving.cache import DiskCache
    from workbench.serving.middleware import Guard
    from workbench.serving.page.page import CSS, page, theme
    from workbench.serving.promotion import watching
    from workbench.serving.recording import Recording
    from workbench.serving.settings import Caching, ServiceSettings
    from workbench.serving.who.access import Access, is_loopback

    settings = settings or ServiceSettings(cache=Caching(disk_mb=0.0))
    pipeline.session.keep_in_memory(MEMORY_BYTES)
    disk = _disk(pipeline, settings, DiskCache, redis)
    asking = Recording(Service(pipeline, settings.fallback, workers), settings, disk, records, redis)

    @asynccontextmanager
    async def alive(app: Any) -> AsyncIterator[None]:
        async with asking.service.workers.connected(), watching(asking, settings, reopen), asking.looking_after():
            yield

    app = FastAPIOffline(title="RAG Workbench", docs_url="/docs", redoc_url=None, lifespan=alive, version=_version())
    add_routes(app, asking)
    mounted = gradio.mount_gradio_app(
        app,
        page(asking, others),
        path="/",
        theme=theme(),
        css=CSS.read_text(encoding="utf-8"),
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        show_error=False,
        max_file_size="1kb",  # nothing is uploaded here
    )
    access = Access(mounted, asking.directory, settings.who.open == "loopback" and is_loopback(host))
    return Guard(access, asking, _names(host, settings.serve.hosts), refused)


def _names(host: str, named: tuple[str, ...]) -> tuple[str, ...]:
    """Names by which the service may be called; any where it listens on every address and no names are given."""
    from workbench.serving.middleware import LOOPBACK

    if host in EVERY_ADDRESS and not named:
        return ("*",)
    return (*LOOPBACK, f"[{host}]" if ":" in host else host, *named)


def _version() -> str:
    from workbench.version import __version__

    return __version__


def _disk(pipeline: Pipeline, settings: ServiceSettings, kind: Any, redis: RedisServer | None) -> Any:
    """The table of answers; None where there is to be none, where Redis holds them, or where its folder cannot be written.

    Args:
        pipeline: what answers.
        settings: of the service.
        kind: of the table.
        redis: what replicas know together.

    Raises:
        InputError: no texts are to be kept here, and those of an earlier service cannot be removed.
    """
    from workbench.serving.records.erasing import empty_cache

    cache, folder = settings.cache, folder_of(settings, pipeline.run.runs)
    if not settings.keeps_texts:  # answers are texts of people
        empty_cache(folder / TABLE)
        if redis:
            from workbench.serving.redis_cache import empty

            empty(redis)
        return None
    if redis:  # whoever is forgotten later is not looked for in a table that nobody uses any more
        empty_cache(folder / TABLE)
        return None
    if not cache.disk_mb:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        log.warning("answers are kept in memory alone: %s cannot be written (%s)", folder, error.strerror)
        return None
    return kind(folder / TABLE, int(cache.disk_mb * 1e6), cache.days)


def folder_of(settings: ServiceSettings, runs: Path) -> Path:
    """The folder of a service's files."""
    return settings.cache.folder or runs / ".service"


def open_records(settings: ServiceSettings, runs: Path) -> Database:
    """The records of a service.

    Args:
        settings: of the service.
        runs: folder of runs.

    Raises:
        MissingExtraError: SQLAlchemy is not installed.
        InputError: the file, or the database that the environment names, cannot be used.
    """
    require("sqlalchemy", "alembic", "argon2")
    from workbench.serving.records import postgres
    from workbench.serving.records.database import FILE, Database

    return postgres.from_environment() or Database(folder_of(settings, runs) / FILE)


def _runs(run: str | Path) -> Path:
    """Folder of the runs beside a run, or in a bundle."""
    from workbench.experiment.bundled import bundle_at
    from workbench.results.run import Run

    packed = bundle_at(run)
    return Run.open(packed.run if packed else run).runs


def _records(settings: ServiceSettings, runs: Path, host: str) -> Database | None:
    """The records, or None where their file cannot be used and nobody needs a key.

    Raises:
        InputError: whoever reaches the address could ask, or the records cannot be used.
    """
    from workbench.serving.records import postgres
    from workbench.serving.records.people import anybody_may_come
    from workbench.serving.who.access import is_loopback

    is_open = settings.who.open == "loopback" and is_loopback(host)
    try:
        records = open_records(settings, runs)
        with records.reading() as connection:
            known = settings.who.issuer is not None or anybody_may_come(connection)
    except InputError as error:
        if not is_open or os.environ.get(postgres.VARIABLE):
            raise
        log.warning("no records are kept: %s", error)
        return None
    if not is_open and not known:
        records.close()
        where = "who.open is never" if is_loopback(host) else f"{host} can be reached from other machines"
        raise InputError(
            f"not served: {where}, and nobody has a key. Make one with `workbench users add NAME` and `workbench keys add NAME`, "
            f"or name an issuer of tokens under who.issuer of the service's settings"
            + ("" if is_loopback(host) else "; or serve this machine alone, without --host")
        )
    return records


def serve(
    run: str | Path,
    configuration: str | None = None,
    port: int = 7860,
    host: str = "127.0.0.1",
    progress: Progress | None = None,
    dataset: Path | None = None,
    settings: Path | None = None,
    check: bool = False,
    workers: str | None = None,
    most_workers: int | None = None,
) -> None:
    """Serves a run's configuration until interrupted, if it still answers as it was measured.

    Args:
        run: folder of a finished run, or of an unpacked bundle.
        configuration: id, beginning of one, or label; default: the promoted one, else the best. Without it, another promotion of
            a run is served as soon as it is made.
        port: to listen on; 0: any that is free.
        host: address to listen on; on any but this machine's own, a key or a log-in is needed.
        progress: where to report; default: standard error.
        dataset: where the run's data lie now; default: where they were.
        settings: file of the service's settings; default: the defaults.
        check: only compute measured answers again, and more of them; nothing is served.
        workers: ``ray`` or ``ray:HEAD:PORT``: actors of a cluster answer; None: this process, or the workers behind a broker that
            the environment names.
        most_workers: actors at once; None: as many as there are processors.

    Raises:
        MissingExtraError: Gradio, FastAPI or uvicorn is not installed.
        InputError: no such run, configuration or settings, a port that cannot be listened on, or an address that others reach
            while nobody has a key.
        StageFailedError: the gate; see `workbench.serving.gate`.
    """
    require_extra()
    from workbench.experiment.bundled import bundle_at
    from workbench.pipeline import Pipeline
    from workbench.serving import logs
    from workbench.serving.asking import MEMORY_BYTES
    from workbench.serving.elsewhere import computing
    from workbench.serving.gate import CHECKED, gate
    from workbench.serving.redis_server import from_environment
    from workbench.serving.server import Server
    from workbench.serving.settings import read_service
    from workbench.store.progress import Progress
    from workbench.store.telling import for_people

    progress, known = progress or for_people(), read_service(settings)
    with (
        computing(known, workers, most_workers) as who,
        bound(host, port) as listener,
    ):  # before the models are loaded, which takes longer
        redis = None if check else from_environment()
        records = None if check else _records(known, _runs(run), host)
        pipeline = Pipeline.open(run, configuration, progress, dataset)
        pipeline.session.keep_in_memory(MEMORY_BYTES)
        if who.here or check:
            progress.say(gate(pipeline, CHECKED if check else known.serve.gate))
            if check:
                return
            pipeline.warm()
        pipeline.session.progress = Progress()  # single questions need no bars; what the store lacked has shown its own
        others = None if bundle_at(run) else lambda chosen: Pipeline.open(run, chosen, Progress(), dataset)
        app = build(pipeline, known, host, None if configuration else others, records, others, redis, who)
        listener.listen()
        shown = f"[{host}]" if ":" in host else host
        progress.say(f"serving {pipeline.configuration.label} at http://{shown}:{listener.getsockname()[1]} (Ctrl+C stops it)")
        logs.configure(known.logs.form, known.logs.level)
        Server(app, known.serve.grace).run(sockets=[listener])


def bound(host: str, port: int) -> socket.socket:
    """A socket that holds an address, not listening yet.

    Raises:
        InputError: the address is taken, not this machine's, or no address.
    """
    if not 0 <= port <= 65_535:
        raise InputError(f"port {port} is not between 0 and 65,535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot listen on {host}, port {port} ({reason}); choose another with --port or --host") from error
    return listener
