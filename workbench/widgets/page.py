"""What every page has: a run to choose, its parts as HTML, an address that says what is shown, and errors in the page."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import ipywidgets as widgets

from workbench.errors import InputError
from workbench.results.run import Run
from workbench.views.html import text
from workbench.views.notebook import styled
from workbench.widgets.address import Address
from workbench.widgets.choosing import asked_for, run_choices, runs_folder, wanted_run

log = logging.getLogger(__name__)


class Page(widgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """A run to choose and what is shown of it. Whatever goes wrong is said in the page.

    Attributes:
        run: the run that is shown; None while there is none.
        said: what the page says, as HTML.
    """

    def __init__(self, run: Run | None = None, runs: str | Path = "") -> None:
        """Shows a run, else the one that the page's address names, else the newest.

        Args:
            run: the run; without one, there is a list to choose from.
            runs: folder of all runs; see `workbench.widgets.choosing.runs_folder`.
        """
        self.run, self.wanted, self._runs, self._busy = run, asked_for(), runs_folder(runs), False
        self.choose_run = dropdown("run")
        self._body, self._error, self._address = widgets.HTML(), widgets.HTML(), Address()
        self._controls = widgets.Box(self.controls(), layout=widgets.Layout(flex_flow="row wrap", overflow="visible"))
        super().__init__([self._controls, self._error, *self.parts(), self._address])
        self.add_class("wb-view")
        self.guarded(self._start)()
        for control in self.controls():
            control.observe(self.guarded(self._open if control is self.choose_run else self.show), names="value")

    # --- What a page says of itself ------------------------------------------------------------------------------

    def controls(self) -> list[Any]:
        """What can be chosen, the run first."""
        return [self.choose_run]

    def parts(self) -> list[Any]:
        """What stands below the controls."""
        return [self._body]

    def opened(self, run: Run) -> None:
        """Prepares the controls for another run."""

    def html(self, run: Run) -> str:
        """What is said of the run."""
        raise NotImplementedError

    def state(self) -> dict[str, str]:
        """What the address says besides the run."""
        return {}

    # --- What all of them do -------------------------------------------------------------------------------------

    @property
    def said(self) -> str:
        """What the page says, as HTML: its body, or what went wrong."""
        return str(self._error.value or self._body.value)

    def __repr__(self) -> str:
        return f"{type(self).__name__} of {self.run}"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The widget, and for a page without widgets what it is."""
        bundle: dict[str, Any] = super()._repr_mimebundle_(**kwargs)
        return bundle | {"text/plain": repr(self)}

    def _start(self) -> None:
        if self.run is None:
            offer(self.choose_run, run_choices(self._runs, self.wanted.get("run", "")))
            if self.wanted.get("run"):
                self.choose_run.value = wanted_run(self._runs, self.wanted["run"])
        else:
            self.choose_run.layout.display = "none"
        self._open()

    def _open(self) -> None:
        if self.choose_run.value is not None:
            self.run = Run.open(self.choose_run.value)
        if self.run is not None:
            self.opened(self.run)
        self.show()

    def show(self) -> None:
        """Shows what is chosen."""
        if self.run is None:
            return
        self._body.value = styled(self.html(self.run))
        named = {"run": f"{self.run.folder.parent.name}/{self.run.folder.name}"}
        self._address.address = urlencode(named | {name: value for name, value in self.state().items() if value})
        self._error.value = ""

    def guarded(self, act: Callable[[], None]) -> Callable[..., None]:
        """An action that shows its error in the page, and does not set off another one meanwhile.

        Args:
            act: the action.
        """

        def guarded(_: object = None) -> None:
            if self._busy:
                return
            self._busy = True
            try:
                act()
            except Exception as error:
                log.exception("the page cannot be shown")
                self._body.value = ""
                self._error.value = styled(error_html(error))
            finally:
                self._busy = False

        return guarded


def error_html(error: Exception) -> str:
    """An error as a box: what the user can mend in its own words, anything else with its type."""
    said = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
    return f"<div class=wb-box role=alert style='white-space: pre-wrap'>{text(said)}</div>"


def footer(run: Run) -> str:
    """Where what a page shows comes from."""
    documents = run.manifest["dataset"].get("sizes", {}).get("documents")
    counted = f", {documents:,} documents" if documents else ""
    processor = run.manifest["machine"].get("processor")
    made = f", made on {escape(str(processor))}" if processor else ""
    return f"<p class=wb-quiet>Run {text(run.folder.name)}{counted}{made}. This page computed nothing.</p>"


def dropdown(name: str) -> widgets.Dropdown:
    """A list to choose from, with its name.

    Args:
        name: of what is chosen.
    """
    layout = widgets.Layout(width="auto", max_width="100%", margin="2px 24px 2px 0")
    return widgets.Dropdown(description=name, layout=layout, style={"description_width": "auto"})


def offer(choice: widgets.Dropdown, options: Sequence[tuple[str, object]]) -> None:
    """New options; what was chosen stays chosen where it is still offered, otherwise it is the first.

    Args:
        choice: the list.
        options: text and value of each.
    """
    kept = choice.value
    choice.options = options
    values = [value for _, value in options]
    choice.value = kept if kept in values else values[0] if values else None
