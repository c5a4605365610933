"""Ray itself: connected to, or started on this machine, in silence; and what its nodes can hold."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from bon.engines.shares import num_cores
from bon.errors import EngineError, SettingsError, first_line
from bon.signals import STOPPING

__all__ = [
    "RAY_ADVICE",
    "RayWorkers",
    "connect",
    "disconnect",
    "import_ray",
    "lost_cluster",
    "resources",
]

_log = logging.getLogger(__name__)
RAY_ADVICE = "pip install 'bon-cli[ray]', with the same version on every node"
_OBJECT_STORE_BYTES = 128 << 20
"""Of a cluster of our own: only numbers of parts and short rows lie in it."""
_ANSWER_TIMEOUT_S = 20.0
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class RayWorkers:
    """How many workers a stage has, and what each asks of its node."""

    least: int = 1
    most: int = 1
    """More than `least`: Ray starts and ends workers as the cluster has room and they have work."""
    gpus: int | None = None
    """None: one where any node has some."""
    cpus: int | None = None
    """Cores, which are also the threads that a model computes with; none: on a cluster of our own
    an even share of this machine, else one."""


def import_ray(*, is_ours: bool) -> ModuleType:
    """Return Ray's module, made to be silent; a cluster of ours stays on this machine.

    Raises:
        EngineError: it is not installed.
    """
    # before it is imported: it reads these once
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # a thread that is left would start a cluster
    if is_ours:
        # else Ray takes a node's address on the network, even where it is told the loopback one
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # what a worker without a GPU sees of them is then left as it is
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise EngineError(
            "Ray is not installed", where="--engine ray", why=first_line(error),
            next_step=RAY_ADVICE,
        ) from error  # fmt: skip
    for name in ("ray", "ray.data"):
        # whatever matters comes to us as an error
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    if hasattr(ray._private.worker, "print_to_stdstream"):  # it prints to stdout, which is ours
        ray._private.worker.print_to_stdstream = _log_message
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # a block of parts may take hours; a worker that hangs is noticed where it runs
    context.execution_no_progress_timeout_s = -1
    # of tasks given by tasks that can run at once: ours are never more, Ray waits for more
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
    module: ModuleType = ray
    return module


def connect(address: str | None, workers: RayWorkers) -> RayWorkers:
    """Connect to a cluster, or start one on this machine, and return what workers shall ask for.

    Without an address it is one of our own, bound to the loopback interface, with neither dashboard
    nor usage statistics.

    Raises:
        EngineError: Ray is not installed, or no cluster answers.
        SettingsError: no node can hold a worker.
    """
    ray = import_ray(is_ours=address is None)
    said: dict[str, Any] = {"address": address}
    if address is None:
        said = {
            "address": "local",
            "num_cpus": num_cores(),
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE_BYTES,
            "_node_ip_address": _LOOPBACK,
        }
    else:
        _refuse_silence(address)
    try:
        with _signals_as_they_are(), _silent_stderr():
            ray.init(**said, log_to_driver=False, configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        disconnect()
        raise _unreached(address, error) from error
    try:
        nodes = [one for one in ray.nodes() if one["Alive"]]
        return _fitted(workers, nodes, is_ours=address is None)
    except BaseException:
        disconnect()
        raise


def resources() -> dict[str, float]:
    """Return what all nodes of the cluster have together, by name: `CPU`, `GPU`, …"""
    import ray

    return dict(ray.cluster_resources())


def disconnect() -> None:
    """Leave the cluster, which ends all that this process runs there; end one of our own."""
    import ray

    ray.shutdown()


def lost_cluster(address: str | None, why: str) -> EngineError:
    """Return the error of a cluster that is gone, or out of reach."""
    return EngineError(
        "the Ray cluster was lost",
        where=f"--ray-address {address}" if address else "this machine",
        why=why,
        next_step="look at its head (`ray status`), or start it again; what is committed stays, "
        "and the same command goes on from there",
    )


def _refuse_silence(address: str) -> None:
    """Make sure that somebody listens where a cluster should be: Ray itself asks for minutes.

    Raises:
        EngineError: nobody does.
    """
    from ray._private.services import canonicalize_bootstrap_address

    try:
        found = canonicalize_bootstrap_address(address)
        host, _, port = (found or "").rpartition(":")
        if "://" not in address and port.isdigit():
            socket.create_connection((host.strip("[]"), int(port)), _ANSWER_TIMEOUT_S).close()
    except (ConnectionError, ValueError, OSError) as error:
        raise _unreached(address, error) from error


def _unreached(address: str | None, error: Exception) -> EngineError:
    if address is None:
        return EngineError(
            "Ray cannot start on this machine",
            why=first_line(error),
            next_step="--engine local needs no Ray; what is committed stays",
        )
    return EngineError(
        "no Ray cluster answers",
        where=f"--ray-address {address}",
        why=first_line(error),
        next_step="start it (`ray start --head`), run bon on one of its nodes, and give its "
        "HOST:PORT, or auto; without --ray-address bon starts Ray on this machine",
    )


def _fitted(workers: RayWorkers, nodes: list[dict[str, Any]], *, is_ours: bool) -> RayWorkers:
    """Return the workers with all that was left open, and make sure that a node can hold one."""
    have = [node["Resources"] for node in nodes]
    gpus = workers.gpus
    if gpus is None:
        gpus = 1 if any(one.get("GPU", 0) for one in have) else 0
    cpus = workers.cpus
    if cpus is None:
        cpus = max(1, int(have[0].get("CPU", 1)) // workers.most) if is_ours else 1
    together = workers.most if is_ours else 1
    for name, each, flag in (("GPU", gpus, "gpus"), ("CPU", cpus, "cpus")):
        most = int(max(one.get(name, 0) for one in have))
        if each * together > most:
            raise SettingsError(
                f"{together} workers with {each} {name}s each are more than this machine has"
                if together > 1
                else f"a worker with {each} {name}s is more than any node can hold",
                where=f"--{flag}-per-worker {each}",
                why=f"the largest node has {most} {name}s" if not is_ours else f"it has {most}",
                next_step=f"give fewer workers or a smaller --{flag}-per-worker, or a cluster that "
                "has such nodes",
            )
    _log.info(
        "Ray: %d nodes; workers %d..%d, each with %d GPUs and %d cores",
        len(nodes), workers.least, workers.most, gpus, cpus,
    )  # fmt: skip
    return replace(workers, gpus=gpus, cpus=cpus)


def _log_message(data: Mapping[str, Any], *_: object, **__: object) -> None:
    """Log what Ray would tell the user of a cluster's troubles, its first line."""
    text = "\n".join(map(str, data.get("lines", ())))
    _log.info("Ray says: %s", next(filter(None, text.splitlines()), ""))


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Leave out what Ray's own code prints while it starts, whatever it was told."""
    before, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)


@contextmanager
def _signals_as_they_are() -> Iterator[None]:
    """Keep our handlers: Ray sets one of its own for SIGTERM when it starts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
