"""`workbench work RUN`, in a process that a question with the word `KILLS` ends, as a fault in a library would."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from workbench.pipeline import Asked, Pipeline
from workbench.serving.working import work

KILLS = "kills"


class Killing(Pipeline):
    """A pipeline whose process ends at some questions."""

    def growing(self, asked: Sequence[Asked], *wanted: Any) -> Iterator[tuple[int, Any]]:
        """As `Pipeline.growing`, if it comes to that."""
        if any(KILLS in one.question for one in asked):
            os.kill(os.getpid(), signal.SIGKILL)
        yield from super().growing(asked, *wanted)


if __name__ == "__main__":
    import workbench.serving.working

    workbench.serving.working.Pipeline = Killing  # type: ignore[misc]
    work(sys.argv[1])
