"""What a pool's own runs took: speeds, set-up and drops from its log, bytes from its files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean
from typing import Any

from bon.errors import PoolIncompleteError
from bon.object_store import ObjectPath
from bon.places import Place
from bon.pool.pool import CANDIDATES, PROMPTS, Pool, scores_kind

__all__ = ["GENERATE", "MeasuredKind", "MeasuredPool", "MeasuredStage", "measured_pool"]

GENERATE = "generate"
_SCORE = "score "
_OPENS = frozenset({"start", "note", "reason", "read", "stage"})
"""What may stand before a stage's first line; the stage begins there."""
_FEWEST_PARTS = 4
"""Parts of a worker from which on its first one is told apart: it warms up what the others use."""


@dataclass(frozen=True, slots=True)
class MeasuredStage:
    """One stage, over all runs that did parts of it."""

    name: str
    num_candidates: int
    num_tokens: int
    num_tokens_computed: int
    run_s: float
    """Seconds in which `num_workers` worked."""
    setup_s: float
    """From the start of a worker until its model works, and its end; of a run, on average."""
    num_workers: int
    num_restarts: int
    drops: dict[str, int]


@dataclass(frozen=True, slots=True)
class MeasuredKind:
    """The files of a kind: prompts, candidates or one scorer's scores."""

    num_files: int
    num_rows: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class MeasuredPool:
    """What is known of a pool that was made."""

    part_size: int
    engine: str | None
    """What sampled: vllm, transformers, server or given."""
    num_rows: int
    """Of the input."""
    num_prompts: int
    num_candidates: int
    prompt_drops: dict[str, int]
    other_s: float
    """Seconds of a run outside of its stages: the input read, models looked at; on average."""
    run_s: float
    """From the lock to the end, of the last run that was complete."""
    is_streaming: bool
    """Stages ran side by side, so a stage's seconds hold its waiting for another."""
    stages: tuple[MeasuredStage, ...]
    kinds: dict[str, MeasuredKind]


@dataclass
class _Stage:
    """One stage of one run, as its lines come."""

    begin_s: float
    ready_s: float | None = None
    end_s: float = 0.0
    last_part_s: float = 0.0
    num_ready: int = 0
    num_restarts: int = 0
    parts: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class _Run:
    """One run, as its lines come."""

    end_s: float = 0.0
    is_complete: bool = False
    prompt_drops: dict[str, int] = field(default_factory=dict)
    stages: dict[str, _Stage] = field(default_factory=dict)


def measured_pool(root: Place) -> MeasuredPool:
    """Read what a pool's runs took.

    Raises:
        PoolNotFoundError, PoolCorruptError: there is no pool, or not a readable one.
        PoolIncompleteError: its log tells of no part that a run made.
    """
    pool = Pool.open(root)
    runs = [run for run in _runs(pool.layout.run_log) if any(s.parts for s in run.stages.values())]
    if not runs:
        raise PoolIncompleteError(
            "this pool's log tells of no part that was made",
            where=str(pool.layout.run_log),
            next_step="make a small pool first, with the command to be planned and --limit 1000",
        )
    names = list(dict.fromkeys(name for run in runs for name in run.stages))
    stages = [
        _summed(name, [run.stages[name] for run in runs if name in run.stages]) for name in names
    ]
    kinds = [PROMPTS, CANDIDATES, *map(scores_kind, pool.layout.scorer_names())]
    files = {kind: _kind(pool, kind) for kind in kinds}
    complete = [run.end_s for run in runs if run.is_complete]
    return MeasuredPool(
        part_size=pool.manifest.part_size,
        engine=(pool.manifest.generation or {}).get("engine"),
        num_rows=int(pool.manifest.input.get("rows") or files[PROMPTS].num_rows),
        num_prompts=files[PROMPTS].num_rows,
        num_candidates=files[CANDIDATES].num_rows,
        prompt_drops=dict(runs[-1].prompt_drops),
        other_s=fmean(_other_s(run) for run in runs),
        run_s=complete[-1] if complete else runs[-1].end_s,
        is_streaming=any(map(_is_streaming, runs)),
        stages=tuple(stages),
        kinds=files,
    )


def _length_s(stage: _Stage) -> float:
    return stage.end_s - stage.begin_s


def _other_s(run: _Run) -> float:
    return max(0.0, run.end_s - sum(map(_length_s, run.stages.values())))


def _is_streaming(run: _Run) -> bool:
    """Tell whether a stage was ready before another had done its last part."""
    worked = [(one.ready_s, one.last_part_s) for one in run.stages.values() if one.parts]
    spans = sorted((ready_s or 0.0, last_s) for ready_s, last_s in worked)
    return any(after[0] < before[1] for before, after in pairwise(spans))


def _kind(pool: Pool, kind: str) -> MeasuredKind:
    parts = pool.layout.numbers(kind)
    num_bytes = sum(pool.layout.part(kind, part).stat().st_size for part in parts)
    return MeasuredKind(len(parts), sum(pool.num_rows(kind, part) for part in parts), num_bytes)


def _runs(log: Place) -> Iterator[_Run]:
    """Yield the runs of a log; lines that a kill has torn are left out."""
    run, before_s = None, 0.0
    for line in _lines(log):
        event, now_s = line.get("event"), float(line.get("elapsed_s") or 0.0)
        if event == "start":
            if run is not None:
                yield run
            run, before_s = _Run(), now_s
        if run is None:
            continue
        run.end_s = now_s
        _take(run, line, now_s, before_s)
        if event in _OPENS:
            before_s = now_s
    if run is not None:
        yield run


def _lines(log: Place) -> Iterator[dict[str, Any]]:
    for text in _texts(log):
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            yield line


def _texts(log: Place) -> Iterator[bytes]:
    """Yield the lines of a log; on an object store each run has objects of its own."""
    if isinstance(log, ObjectPath):
        with suppress(FileNotFoundError):  # nothing lies there
            for path in sorted(log.parent.iterdir(), key=str):
                if path.name.startswith(f"{log.stem}-"):
                    yield from path.read_bytes().splitlines()
    elif log.is_file():
        with log.open("rb") as file:
            yield from file


def _take(run: _Run, line: dict[str, Any], now_s: float, before_s: float) -> None:
    event = line.get("event")
    name = str(line.get("stage") or line.get("name") or "")
    if event == "end":
        run.is_complete = line.get("status") == "complete"
    elif event == "read":
        run.prompt_drops = {str(k): int(v) for k, v in (line.get("drops") or {}).items()}
    elif event in ("ready", "part", "restart", "stage") and (
        name == GENERATE or name.startswith(_SCORE)
    ):
        stage = run.stages.setdefault(name, _Stage(before_s))
        stage.end_s = now_s
        if event == "ready":
            stage.num_ready += 1
            stage.ready_s = now_s if stage.ready_s is None else stage.ready_s
        elif event == "restart":
            stage.num_restarts += 1
        elif event == "part":
            stage.parts.append(line)
            stage.last_part_s = now_s


def _summed(name: str, runs: list[_Stage]) -> MeasuredStage:
    """Add up what all runs did of one stage."""
    workers = max(max(1, one.num_ready - one.num_restarts) for one in runs)
    run_s, setup_s, drops = 0.0, [], Counter[str]()
    for one in runs:
        seconds = [float(part.get("seconds") or 0.0) for part in one.parts]
        first_s = _warm_up_s(seconds, workers)
        run_s += sum(seconds) - first_s
        setup_s.append(max(0.0, _length_s(one) - sum(seconds)) + first_s)
        for part in one.parts:
            drops.update({str(k): int(v) for k, v in (part.get("drops") or {}).items()})

    def total(key: str) -> int:
        return sum(int(part.get(key) or 0) for one in runs for part in one.parts)

    return MeasuredStage(
        name=name,
        num_candidates=total("candidates"),
        num_tokens=total("tokens"),
        num_tokens_computed=total("tokens_computed"),
        run_s=run_s,
        setup_s=fmean(setup_s),
        num_workers=workers,
        num_restarts=sum(one.num_restarts for one in runs),
        drops=dict(drops),
    )


def _warm_up_s(seconds: list[float], num_workers: int) -> float:
    """Return by how much the first round of parts took longer than the others do on average."""
    if len(seconds) < _FEWEST_PARTS * num_workers:
        return 0.0
    first, others = seconds[:num_workers], seconds[num_workers:]
    return max(0.0, sum(first) - num_workers * fmean(others))
