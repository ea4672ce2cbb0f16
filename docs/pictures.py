"""`python docs/pictures.py RUN`: writes the README's pictures of a run, in light and dark, into docs/pictures.

RUN is the folder of a finished and promoted run whose store is there. Needs a Chromium.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workbench.results.run import Run
from workbench.views.card import card
from workbench.views.html import page

ROOT = Path(__file__).parents[1]
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
WIDTH = 900
QUESTION = "What exception is raised when a dictionary key is missing?"


@contextmanager
def served(*command: str) -> Iterator[str]:
    """A command of the workbench that serves, on a free port of this machine; its address once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "workbench.cli", *command, "--port", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(timeout=60)


def pictures(run: Run, folder: Path) -> list[Path]:
    """Writes them: the card, the page of questions and the demo, each light and dark.

    Args:
        run: finished and promoted, with its store.
        folder: they go here.
    """
    from playwright.sync_api import Page, sync_playwright

    folder.mkdir(parents=True, exist_ok=True)
    written = []

    def both(tab: Page, name: str, selector: str, height: int) -> None:
        for scheme in ("light", "dark"):
            tab.emulate_media(color_scheme=scheme)
            tab.wait_for_timeout(500)
            path = folder / f"{name}-{scheme}.png"
            box = tab.locator(selector).first.bounding_box()
            assert box, selector
            clip = {"x": 0, "y": max(0, box["y"] - 8), "width": WIDTH, "height": min(height, box["height"] + 16)}
            tab.screenshot(path=str(path), clip=clip, full_page=True)
            written.append(path)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        tab = browser.new_page(viewport={"width": WIDTH, "height": 900})
        tab.set_content(page("Verdict", card(run), {}))
        both(tab, "verdict", ".wb-card", 600)
        with served("dashboard", "--runs", str(run.runs)) as address:
            name = f"{run.folder.parent.name}/{run.folder.name}"
            tab.goto(f"{address}voila/render/questions.ipynb?run={name}&show=gained", wait_until="commit")
            tab.get_by_label("question", exact=True).wait_for(timeout=60_000)
            both(tab, "questions", ".wb-view", 860)
        with served("serve", str(run.folder)) as address:
            tab.goto(address)  # the page keeps a connection open, so the network is never idle
            tab.get_by_role("textbox").first.fill(QUESTION)
            tab.get_by_role("button", name="Ask").first.click()
            tab.wait_for_timeout(8_000)
            both(tab, "demo", "main", 760)
        browser.close()
    return written


if __name__ == "__main__":
    for one in pictures(Run.open(sys.argv[1]), ROOT / "docs" / "pictures"):
        sys.stdout.write(f"{one}\n")
