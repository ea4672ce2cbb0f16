"""Voila with an index of runs and reports that need no kernel, and cures for what bites in it."""

from __future__ import annotations

from pathlib import Path
from queue import Empty
from typing import Any

from jupyter_client.channels import AsyncZMQSocketChannel
from tornado.web import HTTPError, RedirectHandler, RequestHandler
from traitlets.config import Config
from voila.app import Voila

from workbench.errors import InputError
from workbench.results.run import Run
from workbench.views.html import box, page
from workbench.views.index import index
from workbench.views.report import report
from workbench.widgets.choosing import wanted_run

IDLE_SECONDS = 300  # after which a kernel without a page ends
LOOK_SECONDS = 30  # between two looks at what is idle
_get_msg = AsyncZMQSocketChannel.get_msg


async def _get_in_slices(self: AsyncZMQSocketChannel, timeout: float | None = None) -> dict[str, Any]:
    """Waits for a message a second at a time: about 3 of 100 pages never get the one they wait for in one go."""
    while timeout is None:
        try:
            return await _get_msg(self, timeout=1.0)
        except Empty:
            continue
    return await _get_msg(self, timeout=timeout)


class _Page(RequestHandler):
    """A page that is made when it is asked for."""

    def initialize(self, runs: Path) -> None:
        self.runs = runs

    def get(self) -> None:
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        try:
            self.write(self.html())
        except InputError as error:
            self.set_status(404)
            self.write(page("Not there", f"<h1>Not there</h1>{box(str(error))}<p><a href='.'>All runs</a></p>", {}))

    def html(self) -> str:
        raise NotImplementedError


class IndexPage(_Page):
    """All runs."""

    def html(self) -> str:
        """The index."""
        return index(self.runs)


class ReportPage(_Page):
    """The report of one run."""

    def html(self) -> str:
        """The report that ``workbench report`` writes."""
        return report(Run.open(wanted_run(self.runs, self.get_argument("run", ""))))


class Missing(RequestHandler):
    """Whatever else is asked for."""

    def get(self, *_: str) -> None:
        """Refuses."""
        raise HTTPError(404)


class Dashboards(Voila):  # type: ignore[misc]  # Voila has no types
    """Voila whose front page lists runs."""

    name = "voila"  # so that Voila's own settings are read
    runs: Path

    def init_handlers(self) -> list[Any]:
        """Voila's addresses, with ours before its list of files."""
        ours = {"runs": self.runs}
        own = [
            (r"/", IndexPage, ours),
            (r"/report", ReportPage, ours),
            (r"/voila/tree.*", RedirectHandler, {"url": "/"}),
            (r"/voila/files/.*", Missing),
        ]
        return [*own, *super().init_handlers()]


def settings(port: int) -> Config:
    """How Voila runs: on this machine alone and on no other port, with our template, ending the kernels that no page uses."""
    c = Config()
    c.Voila.ip, c.Voila.port, c.Voila.port_retries, c.Voila.open_browser = "127.0.0.1", port, 0, False
    # Without it the page's last call, which ends its kernel, is answered 403.
    c.Voila.tornado_settings = {"disable_check_xsrf": True}
    c.VoilaConfiguration.template = "workbench"
    c.MappingKernelManager.cull_idle_timeout = IDLE_SECONDS
    c.MappingKernelManager.cull_interval = LOOK_SECONDS
    c.MappingKernelManager.cull_connected = False
    c.KernelRestarter.restart_limit = 0  # a new kernel would know nothing of the page; the page says that it is dead
    return c


def serve(folder: Path, port: int, runs: Path) -> None:
    """Serves until interrupted.

    Args:
        folder: of the notebooks.
        port: on this machine.
        runs: folder of all runs.
    """
    AsyncZMQSocketChannel.get_msg = _get_in_slices  # type: ignore[method-assign]
    app = Dashboards(config=settings(port))
    app.runs = runs
    app.initialize([str(folder)])
    app.start()
