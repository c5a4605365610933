"""`--num-workers` and `--engine` of commands that curate: where a pool's frames are computed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bon.cli.console import note
from bon.cli.flags import Invocation
from bon.config import RunSettings
from bon.engines.mapping import LocalMapper
from bon.engines.shares import num_cores
from bon.pipeline.frames import frame_groups
from bon.pool.pool import CANDIDATES, Pool
from bon.protocols import Mapper

__all__ = ["CURATING_FIELDS", "make_mapper"]

_log = logging.getLogger(__name__)
CURATING_FIELDS = RunSettings.engine_fields - {"gpus_per_worker"}
"""Settings that a command which only reads a pool has a use for."""
FEWEST_GROUPS = 48
"""Groups of parts, some 16,000 candidates each, below which starting processes costs more than they
save: a pool of one million candidates (62 of them) is read in two seconds."""


@contextmanager
def make_mapper(
    call: Invocation, pool: Pool, limit: int | None, *, is_slow: bool = False
) -> Iterator[Mapper | None]:
    """Give what computes a pool's frames; none: this process, where others would not pay.

    `is_slow` says that each row takes so long that they do as soon as there is work for two. On
    this machine it is no more processes than cores.
    """
    run = call.settings(RunSettings)
    num_workers = run.worker_range[1]
    if num_workers == 1:
        yield None
        return
    # where parts are missing, the command says so itself
    num_groups = 0 if pool.pending(CANDIDATES, limit) else len(frame_groups(pool, limit))
    if num_groups < (2 if is_slow else FEWEST_GROUPS):
        _log.info("curating in this process: for so small a pool others would take longer")
        yield None
        return
    if run.engine == "ray":
        from bon.engines.ray_mapping import RayMapper
        from bon.engines.ray_tasks import TaskSettings

        _log.info("curating in %d workers on Ray: %d groups of parts", num_workers, num_groups)
        root = pool.layout.root
        with RayMapper(
            run.ray_address,
            num_workers,
            run.cpus_per_worker,
            TaskSettings(root if isinstance(root, Path) else None),
            partial(note, quiet=call.quiet),
        ) as ray:
            yield ray
        return
    num_workers = min(num_workers, num_groups, num_cores())
    _log.info("curating in %d processes: %d groups of parts", num_workers, num_groups)
    with LocalMapper(num_workers) as mapper:
        yield mapper
