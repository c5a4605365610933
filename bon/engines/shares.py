"""What each of several workers on one machine has of it: accelerators of its own, or cores."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from bon.errors import SettingsError

__all__ = ["Share", "num_cores", "split_machine"]

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_LIST_TIMEOUT_S = 20.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Share:
    """One worker's part of the machine; without limits, all of it."""

    number: int = 0
    devices: tuple[str, ...] | None = None
    """Accelerators, as `CUDA_VISIBLE_DEVICES` names them."""
    cores: tuple[int, ...] | None = None

    def take(self) -> None:
        """Limit this process to it; to be called before any library looks at the machine."""
        if self.devices is not None:
            os.environ[_VISIBLE] = ",".join(self.devices)
        if self.cores is not None:
            os.environ["OMP_NUM_THREADS"] = str(len(self.cores))
            if sys.platform == "linux":
                os.sched_setaffinity(0, self.cores)


def split_machine(
    num_workers: int, gpus_per_worker: int | None = None, cpus_per_worker: int | None = None
) -> tuple[Share, ...]:
    """Return so many shares of this machine, one for each worker.

    Where it has accelerators, each worker gets as many as it asks for, by default one; else cores,
    by default an even share of them. Two workers never have the same accelerator or core.

    Raises:
        SettingsError: the machine has too few of them.
    """
    if gpus_per_worker is None and cpus_per_worker is None and num_workers == 1:
        return (Share(),)
    devices = _devices(os.environ) if gpus_per_worker != 0 else ()
    if gpus_per_worker or (devices and gpus_per_worker is None):
        each = gpus_per_worker or 1
        given = _dealt(devices, num_workers, each, "accelerators", "--gpus-per-worker")
        return tuple(Share(number, devices=one) for number, one in enumerate(given))
    cores = tuple(sorted(_cores()))
    each = cpus_per_worker or max(1, len(cores) // num_workers)
    dealt = _dealt(cores, num_workers, each, "cores", "--cpus-per-worker")
    return tuple(Share(number, cores=one) for number, one in enumerate(dealt))


def num_cores() -> int:
    """Return how many cores this process may use."""
    return len(_cores())


def _dealt(
    there: tuple[T, ...], num_workers: int, each: int, what: str, flag: str
) -> list[tuple[T, ...]]:
    if num_workers * each > len(there):
        raise SettingsError(
            f"{num_workers} workers with {each} {what} each are more than this machine has",
            where=f"--num-workers {num_workers}",
            why=f"here are {len(there)} {what}",
            next_step=f"give fewer workers, or a smaller {flag}",
        )
    return [there[number * each : (number + 1) * each] for number in range(num_workers)]


def _devices(environment: Mapping[str, str]) -> tuple[str, ...]:
    """List the accelerators that this process may use; none where there is no NVIDIA driver."""
    if _VISIBLE in environment:
        named = [one.strip() for one in environment[_VISIBLE].split(",")]
        return tuple(one for one in named if one and one != "-1")
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=_LIST_TIMEOUT_S, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(done.stdout.split())


def _cores() -> set[int]:
    if sys.platform == "linux":
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))
