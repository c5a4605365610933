"""A real Ray cluster of several nodes on this machine, all on 127.0.0.1, whose nodes can be lost.

Ray declares a node dead about two seconds after its last sign, not thirty, so that tests are short.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from support.started import wait_until

__all__ = ["RayCluster", "all_below", "is_alive", "ray_cluster"]

_TESTS = Path(__file__).parents[1]
_OBJECT_STORE_BYTES = 100 << 20
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # else 127.0.0.1 is taken for the machine's address
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",  # a lost head is noticed after 60
    "RAY_memory_monitor_refresh_ms": "0",  # other programs may fill the memory of this machine
    "OMP_NUM_THREADS": "1",
}
_QUICK_DEATH = {
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 4,
}


class RayCluster:
    """Nodes with so many cores each, besides a head that has none."""

    def __init__(self, *cpus: int) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={
                **_node(0),
                "include_dashboard": False,
                "_system_config": dict(_QUICK_DEATH),
            },
        )
        self.nodes = [self.add(one) for one in cpus]

    @property
    def address(self) -> str:
        """What `--ray-address` takes."""
        return str(self._cluster.address)

    def add(self, cpus: int, gpus: int = 0) -> Any:
        """Start a node; its GPUs are counted, and need not be there."""
        return self._cluster.add_node(**_node(cpus), num_gpus=gpus)

    def restore(self, *cpus: int) -> None:
        """Give the cluster as many nodes as it had, where a test has lost some."""
        self.nodes = [node for node in self.nodes if node in self._cluster.worker_nodes]
        self.nodes += [self.add(one) for one in cpus[len(self.nodes) :]]
        wait_until(lambda: not self.left())

    def kill(self, node: Any) -> None:
        """End a node as a power cut does: its raylet, and all that runs below it, by SIGKILL."""
        for pid in (raylet := _raylet(node), *_below(raylet)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._cluster.remove_node(node, allow_graceful=False)

    def kill_head(self) -> None:
        """End what all nodes need."""
        self._cluster.remove_node(self._cluster.head_node, allow_graceful=False)

    def send(self, node: Any, number: signal.Signals) -> None:
        """Send a signal to a node and to all that runs below it."""
        for pid in (raylet := _raylet(node), *_below(raylet)):
            os.kill(pid, number)

    def actors(self, *nodes: Any) -> list[int]:
        """List the processes that hold an actor."""
        return [pid for pid, said in self._work(nodes).items() if "MapWorker" in said]

    def models(self, *nodes: Any) -> list[int]:
        """List the processes that hold a model, each below its actor."""
        return [pid for pid, said in self._work(nodes).items() if "spawn_main" in said]

    def left(self) -> list[int]:
        """List all processes of runs."""
        return self.actors() + self.models()

    def shutdown(self) -> None:
        """End all nodes and whatever runs below them."""
        below = [pid for node in self._cluster.list_all_nodes() for pid in _below(_raylet(node))]
        self._cluster.shutdown()
        for pid in below:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(map(is_alive, below)))

    def _work(self, nodes: tuple[Any, ...]) -> Mapping[int, str]:
        there = [_raylet(node) for node in nodes or self._cluster.list_all_nodes()]
        return {pid: said for raylet in there for pid, said in all_below(raylet).items()}


@contextmanager
def ray_cluster(*cpus: int) -> Iterator[RayCluster]:
    """Give a cluster, whose workers can import tests' works.

    Commands that are run meanwhile find their way to it.
    """
    folder = tempfile.mkdtemp(prefix="bon-ray-")  # short: the names of its sockets may not be long
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**_ENVIRONMENT, "RAY_TMPDIR": folder}.items():
            patch.setenv(name, value)
        patch.setenv("PYTHONPATH", str(_TESTS), prepend=os.pathsep)
        # Ray reads the environment when it is imported, which vLLM may have done long before
        from ray._private import ray_constants

        patch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", False)
        cluster = RayCluster(*cpus)
        try:
            yield cluster
        finally:
            cluster.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and was not waited for does not."""
    try:
        return _stat(pid)[0] not in "ZX"
    except OSError:
        return False


def all_below(root: int) -> dict[int, str]:
    """Return the command lines of all processes below one."""
    return {pid: _said(pid) for pid in _below(root)}


def _node(cpus: int) -> dict[str, Any]:
    return {
        "num_cpus": cpus,
        "node_ip_address": "127.0.0.1",
        "object_store_memory": _OBJECT_STORE_BYTES,
    }


def _raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def _below(root: int) -> Iterable[int]:
    """List all processes below one, parents first."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            pid = int(folder.name)
            state, parent = _stat(pid)
            if state not in "ZX":
                children.setdefault(parent, []).append(pid)
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found[1:]


def _stat(pid: int) -> tuple[str, int]:
    state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    return state, int(parent)


def _said(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
