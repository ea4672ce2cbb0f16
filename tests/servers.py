"""Servers of Debian's packages, each on a free port of this machine, with a folder of its own, ended by its process id."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conftest import program

POSTGRES = "postgres"  # the user that runs PostgreSQL where the tests run as root, whom it refuses


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def waits_until(true: Callable[[], Any], seconds: float = 60) -> float:
    """Waits until something is so; the seconds that it took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() < began + seconds, "it never came"
        time.sleep(0.02)
    return time.monotonic() - began


class Process:
    """A server's process, which can be started, killed, and started again on the same port and folder."""

    def __init__(self, command: list[str], log: Path, listening: Callable[[], bool], **options: Any) -> None:
        self.command, self.log, self.listening, self.options = command, log, listening, options
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Starts it; the seconds until it listens."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(self.command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, **self.options)
        self.process = process

        def there() -> bool:
            assert process.poll() is None, self.log.read_text(errors="replace")[-4000:]
            return self.listening()

        return waits_until(there, 120)

    def tell(self, which: signal.Signals) -> None:
        """Sends it a signal, if it runs."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(which)

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends it, and waits for its end."""
        self.tell(how)
        if self.process:
            self.process.wait(timeout=60)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


class Redis(Process):
    """A Redis server that keeps nothing on the disk."""

    def __init__(self, folder: Path) -> None:
        binary, self.port = program("redis-server", "redis-server"), free_port()
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        super().__init__([binary, *options], folder / "redis.log", lambda: _listens(self.port))


class Postgres(Process):
    """A PostgreSQL server with an empty database."""

    def __init__(self, folder: Path) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        binary = Path(found[-1] if found else program("postgres", "postgresql"))
        self.port, self.folder = free_port(), folder / "postgres"
        self.folder.mkdir(mode=0o700)
        self.user: dict[str, Any] = {}
        if os.geteuid() == 0:
            known = pwd.getpwnam(POSTGRES)
            self.user = {"user": known.pw_uid, "group": known.pw_gid, "extra_groups": []}
            shutil.chown(self.folder, known.pw_uid, known.pw_gid)
            for parent in self.folder.parents:
                if parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o001:
                    parent.chmod(parent.stat().st_mode | 0o011)
        data = self.folder / "data"
        made = [binary.with_name("initdb"), "--pgdata", data, "--auth", "trust", "--username", "records", "--encoding", "UTF8"]
        made += ["--locale", "C.UTF-8", "--no-sync"]
        subprocess.run(list(map(str, made)), check=True, capture_output=True, cwd=self.folder, timeout=120, **self.user)
        self.url = f"postgresql+psycopg://records@127.0.0.1:{self.port}/postgres"
        options = ["-D", str(data), "-p", str(self.port), "-h", "127.0.0.1", "-k", str(self.folder)]
        ready = [str(binary.with_name("pg_isready")), "-h", "127.0.0.1", "-p", str(self.port)]
        answers = lambda: subprocess.run(ready, capture_output=True, check=False, timeout=20).returncode == 0  # noqa: E731
        super().__init__([str(binary), *options], folder / "postgres.log", answers, cwd=self.folder, **self.user)

    def end(self, how: signal.Signals = signal.SIGINT) -> None:
        """Ends it at once, with its connections; SIGQUIT: as after a crash."""
        super().end(how)


@contextmanager
def started(kind: Callable[[Path], Any], folder: Path) -> Iterator[Any]:
    """A server that is ended, whatever happens."""
    server = kind(folder)
    try:
        server.start()
        yield server
    finally:
        server.end()
