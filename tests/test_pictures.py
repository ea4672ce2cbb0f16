"""The README's pictures can be made from any promoted run, in light and dark."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
from conftest import ROOT, Finished
from PIL import Image
from test_dashboard import NEEDS_BROWSER

from workbench.results.run import Run


@NEEDS_BROWSER
@pytest.mark.slow
def test_pictures_of_card_questions_and_demo_are_made(toy: Finished, tmp_path: Path, offline: dict[str, str]) -> None:
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "docs" / "pictures.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.MonkeyPatch.context() as patched:
        for name, value in offline.items():
            patched.setitem(os.environ, name, value)
        written = module.pictures(Run.open(toy.run), tmp_path)
    assert [path.name for path in written] == [
        f"{name}-{scheme}.png" for name in ("verdict", "questions", "demo") for scheme in ("light", "dark")
    ]
    for light, dark in zip(written[::2], written[1::2], strict=True):
        brightness = [Image.open(path).convert("L").resize((1, 1)).getpixel((0, 0)) for path in (light, dark)]
        assert brightness[0] > 170 and brightness[1] < 85
        assert (ROOT / "docs" / "pictures" / light.name).is_file() and light.stat().st_size > 20_000
