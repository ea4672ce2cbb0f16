"""A real RabbitMQ on this machine for tests, with a folder and ports of its own, whose processes are ended by their ids."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from conftest import program
from ray_nodes import free_port

SECONDS = 90  # for a start, on a busy machine
SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  # the one in the path changes to a user of its own


class Rabbit:
    """A broker of one node, and what Erlang needs beside it."""

    def __init__(self, folder: Path) -> None:
        server = program("rabbitmq-server", "rabbitmq-server")
        self.command = str(SERVER) if SERVER.exists() else server
        self.folder, self.port, names = folder, free_port(), free_port()
        config = folder / "rabbitmq.conf"
        config.write_text(f"listeners.tcp.default = 127.0.0.1:{self.port}\n")
        (folder / "plugins").write_text("[].\n")
        self.variables = {
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "PATH": os.environ["PATH"] + ":/usr/sbin",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(names),
            "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_CONFIG_FILE": str(config),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none",
        }
        found = shutil.which("epmd") or program("epmd", "erlang-base")
        self.names = subprocess.Popen([found, "-port", str(names), "-address", "127.0.0.1"], env=self.variables)
        self.server: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def start(self) -> None:
        """Starts the broker, on the data that it had before."""
        with (self.folder / "said").open("ab") as said:
            self.server = subprocess.Popen(
                [self.command], env=self.variables, stdout=said, stderr=said, stdin=subprocess.DEVNULL, start_new_session=True
            )
        end = time.monotonic() + SECONDS
        while not self._greets():
            assert self.server.poll() is None and time.monotonic() < end, (self.folder / "said").read_text()
            time.sleep(0.2)

    def kill(self) -> None:
        """Ends the broker without a word, as a lost machine would be."""
        if self.server is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.server.pid, signal.SIGKILL)
            self.server.wait()
            self.server = None

    def end(self) -> None:
        self.kill()
        self.names.kill()
        self.names.wait()

    def _greets(self) -> bool:
        """Whether it speaks AMQP already: it greets only whom it can serve."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                connection.settimeout(2)
                connection.sendall(b"AMQP\x00\x00\x09\x01")
                return bool(connection.recv(1))
        except OSError:
            return False
