"""A run as a notebook shows it, in an output of its own: the style touches nothing around it."""

from __future__ import annotations

from workbench.results.run import Run
from workbench.views.card import card
from workbench.views.html import css
from workbench.views.tables import setups


def run_html(run: Run) -> str:
    """The verdict and all setups."""
    return f"<style>{css()}</style><div class=wb>{card(run, level=2)}<h3>All setups</h3>{setups(run)}</div>"
