"""Where models would run: flags of workers, what this machine has, a Ray cluster."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

from bon.cli.engines import check_engine, make_engine
from bon.cli.engines import check_workers as check_flags
from bon.cli.placement import refuse_no_room
from bon.cli.validation.plan import Note, PlannedRun, ok, skipped
from bon.config import RunSettings
from bon.errors import BonError
from bon.protocols import Needs

__all__ = ["check_room", "check_workers"]


def check_workers(run: PlannedRun) -> Iterator[Note | BonError]:
    """Look whether the flags of workers go together, and whether this machine has so much."""
    call, settings = run.call, run.call.settings(RunSettings)
    if run.kind == "pool":
        idle = {"placement"} if run.has_scoring else {"placement", "gpus_per_worker"}
        call.refuse_for_pool(RunSettings.model_fields.keys() - idle, RunSettings)
    if run.kind == "pool" and not run.has_scoring:
        check_flags(call)
    else:
        check_engine(call, run.kind or "prompts", with_scores=True)
    where = "on a Ray cluster" if settings.engine == "ray" else "on this machine"
    yield ok(f"workers {where}: {settings.num_workers or 1}")


def check_room(run: PlannedRun) -> Iterator[Note | BonError]:
    """Connect to the Ray cluster, if there is to be one, and look for room for all stages."""
    settings = run.call.settings(RunSettings)
    if not run.has_sampling and not run.scorings:
        yield skipped("no model would run")
        return
    with ExitStack() as stack:
        log = None
        if settings.engine == "ray":  # it prints, and a pool that is looked at stays as it is
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bon-validate-"))
            log = Path(folder) / "worker.log"
        engine = stack.enter_context(closing(make_engine(run.call, log)))
        if settings.engine == "ray":
            engine.why_in_turn([Needs()])
            yield ok(
                "the Ray cluster answers, and one of its nodes can hold a worker"
                if settings.ray_address
                else "Ray starts on this machine, which has room for all workers"
            )
        if run.generation is not None and len(run.scorings) == len(run.scorers):
            refuse_no_room(run.call, engine, run.generation, run.scorings)
            if settings.placement == "stream":
                yield ok("there is room to sample and to score side by side")
