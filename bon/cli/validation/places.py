"""What is read and where is written: the source, the output, the lock, room on the disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from bon.cli.build import given_plan, prompts_plan
from bon.cli.output import plan_output
from bon.cli.places import check_apart, check_places, default_pool, is_pool, source_kind
from bon.cli.validation.estimate import Estimate
from bon.cli.validation.plan import Note, PlannedRun, ok, skipped, warning
from bon.config import ExportSettings, InputSettings, ResponseSettings, RunSettings
from bon.errors import BonError
from bon.exports.formats import FORMATS, Kind
from bon.places import place
from bon.pool.layout import PoolLayout
from bon.pool.lock import refuse_held, refuse_unwritable

__all__ = ["check_lock", "check_output", "check_source", "check_space"]


def check_source(run: PlannedRun) -> Iterator[Note | BonError]:
    """Tell what the source is, hash it, and read its first row."""
    call = run.call
    if is_pool(call.source):
        run.kind, run.root = "pool", place(call.source)
        yield ok("a pool")
        return
    run.root = call.settings(RunSettings).pool or default_pool(call.source, call.output)
    inputs, responses = call.settings(InputSettings), call.settings(ResponseSettings)
    run.kind = source_kind(call)
    part_size = call.settings(RunSettings).part_size
    if run.kind == "prompts":
        run.prompts = prompts_plan(call.source, inputs, part_size)
    else:
        run.given = given_plan(call.source, inputs, responses, part_size, group=True)
    plan = run.prompts or run.given
    assert plan is not None
    yield ok(f"{run.kind}, {plan.rows.describe()}")
    if run.given is not None and call.given("model"):
        yield warning("it has responses, so nothing is sampled: -m does nothing")


def check_output(run: PlannedRun) -> Iterator[Note | BonError]:
    """Look whether the result and the pool could be written where they are wanted."""
    call = run.call
    if run.root is None:
        yield skipped("the source cannot be read")
        return
    if call.output is not None:
        run.output = plan_output(call, _kind_of_set(call.settings(ExportSettings)), "best")
        check_apart(run.root, *run.output.places)
    places = run.output.places if run.output else []
    if run.kind != "pool":
        check_places(call.source, run.root, *places)
    text = f"pool {run.root}"
    yield ok(f"{text}, set {call.output}" if call.output else f"{text}; no set, since no -o")


def _kind_of_set(export: ExportSettings) -> Kind:
    """Return what a form is made from: responses, where it can be."""
    kinds: tuple[Kind, ...] = next((one.kinds for one in FORMATS if one.name == export.format), ())
    return "responses" if "responses" in kinds or not kinds else kinds[0]


def check_lock(run: PlannedRun) -> Iterator[Note | BonError]:
    """Look whether another run writes to the pool, and whether this one could."""
    if run.root is None:
        return
    lock = PoolLayout(run.root).lock
    refuse_held(lock)
    refuse_unwritable(lock)
    yield ok("no other run writes to the pool")


def check_space(run: PlannedRun) -> Iterator[Note | BonError]:
    """Compare what pool and output will take at most with what is free."""
    estimate = Estimate.of(run)
    if estimate is None or run.root is None:
        yield skipped("the input was not read, or nothing would be written")
        return
    free: dict[int, tuple[int, int]] = {}
    outputs = [(run.output.path, estimate.output_bytes)] if run.output else []
    for path, wanted in [(run.root, estimate.pool_bytes), *outputs]:
        if not isinstance(path, Path):
            continue  # of an object store nobody knows the end
        folder = _existing(path)
        device = folder.stat().st_dev
        before = free.get(device, (0, 0))[0]
        free[device] = (before + wanted, shutil.disk_usage(folder).free)
    text = f"at most {_size(estimate.pool_bytes)} for the pool"
    text += f" and {_size(estimate.output_bytes)} for the set" if run.output else ""
    text += f" ({estimate.formula})"
    text += f"; {', '.join(_size(room) for _, room in free.values())} free" if free else ""
    is_tight = any(wanted > room for wanted, room in free.values())
    yield warning(f"{text}: the disk may run full") if is_tight else ok(text)


def _existing(path: Path) -> Path:
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _size(num_bytes: int) -> str:
    size, units = float(num_bytes), ["bytes", "KB", "MB", "GB", "TB", "PB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.0f} {units[0]}" if units[0] == "bytes" else f"{size:.1f} {units[0]}"
