"""What runs at the moment: each experiment under way keeps a small file in the folder ``.running`` of its folder of runs."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import NamedTuple

from workbench import hardware
from workbench.data.readers import json_lines
from workbench.data.readers.text import whole
from workbench.errors import InputError
from workbench.results.lines import RunningRecord
from workbench.times import duration

RUNNING = ".running"
ENDED = "ended without finishing"


class Running(NamedTuple):
    """An experiment under way, or one whose process is gone."""

    path: Path
    record: RunningRecord

    @property
    def ended(self) -> bool:
        """Whether it ended without finishing: it says so, or its process is gone, which is not known of other machines."""
        return bool(self.record.ended) or (self.record.host == socket.gethostname() and not hardware.alive(self.record.pid))

    def __str__(self) -> str:
        one = self.record
        if self.ended:
            why = f" ({one.ended})" if one.ended else ""
            return f"{one.experiment}: {ENDED}, while {one.stage or 'preparing'}{why}"
        doing = f"{one.stage}, {one.done:,} of {one.total:,}" if one.stage else "preparing"
        return f"{one.experiment}: {doing}, at most about {duration(one.left)} left"


def running(runs: str | Path) -> list[Running]:
    """Experiments under way in a folder of runs, and those that ended without finishing, the oldest first.

    Args:
        runs: folder of all runs; there may be none yet.

    Raises:
        InputError: a file is damaged.
    """
    found = []
    for path in sorted((Path(runs) / RUNNING).glob("*.json")):
        try:
            text = whole(path)
        except InputError:
            if path.exists():
                raise
            continue  # it has ended since
        found.append(Running(path, json_lines.record(json_lines.parsed(text, str(path)), RunningRecord, str(path))))
    return found
