"""`--engine`: where the models of a run compute, and with how many workers."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from bon.cli.flags import Invocation
from bon.cli.placement import refuse_idle_placement
from bon.cli.places import SourceKind
from bon.config import GenerateSettings, RunSettings
from bon.engines.local import LocalEngine
from bon.engines.shares import split_machine
from bon.errors import SettingsError
from bon.protocols import Engine

__all__ = ["check_engine", "check_workers", "make_engine"]


def check_engine(call: Invocation, kind: SourceKind, *, with_scores: bool) -> None:
    """Find before any work what a run would refuse of its engine; looks at no cluster.

    Raises:
        SettingsError: as `make_engine`, or a --placement of what is not both sampled and scored.
    """
    if kind in ("responses", "pairs"):
        refuse_idle_placement(call, "the input has responses: nothing is sampled")
    elif not with_scores:
        refuse_idle_placement(call, "nothing is scored here")
    make_engine(call, None)


def make_engine(call: Invocation, log: Path | None) -> Engine:
    """Return the engine that a run asks for, whose workers print to `log`; looks at no cluster.

    Raises:
        SettingsError: as `check_workers`, or more workers than this machine has room for.
    """
    check_workers(call)
    run = call.settings(RunSettings)
    if run.engine == "local":
        return _local(call, run, log)
    from bon.engines.ray import RayEngine
    from bon.engines.ray_apart import RayApart
    from bon.engines.ray_cluster import RayWorkers

    least, most = run.worker_range
    engine = RayEngine(
        run.ray_address,
        RayWorkers(least, most, _gpus_per_worker(call, run), run.cpus_per_worker),
        log,
        gpus_as_told=run.gpus_per_worker is not None,
        stall_timeout_s=run.stall_timeout,
        load_timeout_s=run.load_timeout,
    )
    return RayApart(engine)


def check_workers(call: Invocation) -> None:
    """Refuse flags of workers that mean nothing together.

    Raises:
        SettingsError: Ray's flags without it.
    """
    run = call.settings(RunSettings)
    if run.engine == "ray":
        return
    if "ray_address" in call.typed:
        raise SettingsError(
            "--ray-address does nothing without --engine ray",
            next_step="leave it out, or give --engine ray",
        )
    least, most = run.worker_range
    if least != most:
        raise SettingsError(
            "only a Ray cluster starts and ends workers as they are needed",
            where=f"--num-workers {run.num_workers}",
            next_step=f"give --num-workers {most}, or --engine ray",
        )


def _local(call: Invocation, run: RunSettings, log: Path | None) -> LocalEngine:
    split = partial(
        split_machine,
        gpus_per_worker=_gpus_per_worker(call, run),
        cpus_per_worker=run.cpus_per_worker,
    )
    return LocalEngine(
        None if call.verbose else log,
        stall_timeout_s=run.stall_timeout,
        load_timeout_s=run.load_timeout,
        shares=split(run.worker_range[1]),
        split=split,
    )


def _gpus_per_worker(call: Invocation, run: RunSettings) -> int | None:
    """Return the GPUs of a worker: a generator that several share needs them all."""
    shared = call.settings(GenerateSettings).tensor_parallel_size
    is_split = run.engine == "ray" or run.worker_range[1] > 1
    if run.gpus_per_worker is None and shared > 1 and is_split:
        return shared
    return run.gpus_per_worker
