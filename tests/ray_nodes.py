"""A real Ray cluster on this machine for tests, whose processes are ended by their ids."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
ATTEMPTS = 4  # a node gives up where its helpers take more than 15 seconds to start, as they may on a busy machine
# Ray reads these once in a process, the token too, so all clusters of one share it
SETTINGS = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_memory_monitor_refresh_ms": "0",  # else it ends processes when the machine's memory runs low, whoever's it is
    "RAY_health_check_period_ms": "1000",
    "RAY_raylet_start_wait_time_s": "40",
}


class Nodes:
    """A head of one processor and further nodes that come and go."""

    def __init__(self) -> None:
        os.environ.update(SETTINGS)
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        from ray.cluster_utils import Cluster

        self.cluster = Cluster()
        self.head = self._start({"include_dashboard": False})
        self.others: list[Any] = []

    @property
    def address(self) -> str:
        return self.cluster.address

    def add(self, **variables: str) -> Any:
        """One more node of one processor, in whose environment the variables are."""
        node = self._start({"env_vars": variables} if variables else {})
        self.others.append(node)
        return node

    def only(self, n: int) -> None:
        """Makes it n nodes in all, the head among them."""
        while len(self.others) >= n:
            self.kill(self.others[-1])
        while len(self.others) < n - 1:
            self.add()
        self.wait(lambda: self.alive() == n)

    def alive(self) -> int:
        return sum(node["Alive"] for node in self.cluster.global_state.node_table())

    def kill(self, node: Any) -> None:
        """Kills a node as a lost machine would be, with all its processes."""
        raylet = self.raylet(node)
        for pid in [raylet, *children(raylet)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.others.remove(node)
        self.cluster.worker_nodes.discard(node)

    def raylet(self, node: Any) -> int:
        return node.all_processes["raylet"][0].process.pid

    def actors(self) -> list[int]:
        """Processes that compute for the workbench now."""
        raylets = [self.raylet(node) for node in (self.head, *self.others)]
        return [pid for raylet in raylets for pid in children(raylet) if command(pid).startswith("ray::Node")]

    def end(self) -> None:
        for node in list(self.others):
            self.kill(node)
        self.cluster.shutdown()

    def _start(self, settings: dict[str, Any]) -> Any:
        ports = ("metrics_agent_port", "runtime_env_agent_port", "metrics_export_port", "dashboard_agent_listen_port")
        for attempt in range(ATTEMPTS):
            try:
                return self.cluster.add_node(
                    num_cpus=1, include_log_monitor=False, no_monitor=True, **{name: free_port() for name in ports}, **settings
                )
            except Exception:
                if attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError

    def wait(self, reached: Callable[[], bool], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not reached():
            assert time.monotonic() < end, f"not within {seconds} seconds"
            time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("", 0))
        return int(listening.getsockname()[1])


def children(pid: int) -> list[int]:
    """Processes that a process started itself."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(place.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(place.parent.name))
    return found


def command(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""
