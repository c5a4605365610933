"""A run planned: stages from given or measured speeds, and everything that they will cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from bon.cost import (
    CANDIDATE_BYTES,
    FILE_BYTES,
    PROMPT_BYTES,
    SCORE_BYTES,
    TEXT_BYTES,
    TOKEN_BYTES,
    Placement,
    StageCost,
    driver_cost,
    file_sizes,
    generation_tokens,
    in_turn,
    num_parts,
    redo_s,
    scoring_tokens,
    span_s,
    starting_later,
    streaming,
    tail_s,
)
from bon.pipeline.measured import GENERATE, MeasuredPool, MeasuredStage
from bon.pool.pool import CANDIDATES, PROMPTS

__all__ = ["UNFINISHED_CANDIDATES", "Fleet", "RowBytes", "RunPlan", "given_run", "measured_run"]

UNFINISHED_CANDIDATES = 2_048
"""Candidates that a vLLM worker has begun at once, at most: twice its `max_num_seqs`
(bon/generators/vllm.py), which is 1,024 on a GPU of 70 GiB and more (vLLM 0.32)."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """What the run has."""

    num_workers: int = 1
    gpus_per_worker: int = 1
    price_per_gpu_hour: float | None = None


@dataclass(frozen=True, slots=True)
class RowBytes:
    """Bytes of rows on disk, footers not counted."""

    prompt: float
    candidate: float
    scores: tuple[float, ...]
    source: str
    """Where they come from, for people."""


@dataclass(frozen=True, slots=True)
class RunPlan:
    """A run to come."""

    num_rows: int
    """Of the input."""
    num_prompts: int
    """Those that are kept."""
    num_candidates: int
    part_size: int
    stages: tuple[StageCost, ...]
    row_bytes: RowBytes
    start_s: float = 0.0
    """What a run takes besides its stages and the rows of its input."""
    drops: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Rows that will be dropped if it goes as before, by stage and reason."""
    notes: tuple[str, ...] = ()

    def facts(self, fleet: Fleet) -> dict[str, Any]:
        """Return everything that it will cost, for `--json`."""
        rows, size, workers = self.num_prompts, self.part_size, fleet.num_workers
        driver = driver_cost(self.num_rows, size)
        begin_s = self.start_s + driver.read_s + driver.look_s
        found = [
            in_turn(self.stages, rows, size, workers),
            streaming(self.stages, rows, size, workers),
        ]
        placements = [starting_later(one, begin_s, workers) for one in found if one is not None]
        sizes = file_sizes(
            self.num_rows,
            size,
            prompt_bytes=self.row_bytes.prompt,
            candidates=rows * self.num_candidates,
            candidate_bytes=self.row_bytes.candidate,
            score_bytes=self.row_bytes.scores,
        )
        parts = num_parts(self.num_rows, size)
        return {
            "prompts": self.num_rows,
            "prompts_kept": rows,
            "candidates_per_prompt": self.num_candidates,
            "part_size": size,
            "parts": parts,
            "workers": workers,
            "gpus_per_worker": fleet.gpus_per_worker,
            "stages": [self._stage(stage, fleet) for stage in self.stages],
            "placements": [_placement(one, fleet) for one in placements],
            "pool": {**asdict(sizes), "files_in_a_folder": parts, "source": self.row_bytes.source},
            "driver": {**asdict(driver), "start_s": self.start_s},
            "drops": {stage: dict(counts) for stage, counts in self.drops.items() if counts},
            "notes": list(self.notes),
        }

    def _stage(self, stage: StageCost, fleet: Fleet) -> dict[str, Any]:
        rows, size, workers = self.num_prompts, self.part_size, fleet.num_workers
        given, computed = stage.num_tokens, stage.num_units
        return {
            "name": stage.name,
            "unit": "tokens" if given else "candidates",
            "num_units": computed,
            "num_tokens": given,
            "share_saved": 1 - computed / given if given else None,
            "units_per_s": stage.units_per_s,
            "worker_hours": stage.work_s / 3600,
            "gpu_hours": fleet.gpus_per_worker * stage.work_s / 3600 if stage.has_model else 0.0,
            "setup_s": stage.setup_s,
            "run_s": span_s(stage, rows, size, workers),
            "part_s": stage.work_s * min(1.0, size / rows) if rows else 0.0,
            "tail_s": tail_s(stage, rows, size, workers),
            "parts_under_way": stage.parts_under_way,
            "lost_worker_s": redo_s(stage, rows, size),
        }


def given_run(
    *,
    num_rows: int,
    num_candidates: int,
    prompt_tokens: float,
    response_tokens: float,
    part_size: int,
    generate_tokens_per_s: float | None,
    score_tokens_per_s: float | None,
    load_s: float,
    notes: Sequence[str] = (),
) -> RunPlan:
    """Plan a run whose speeds, each one worker's, are given; a stage without one is left out."""
    stages = []
    if generate_tokens_per_s is not None:
        tokens = generation_tokens(num_rows, num_candidates, response_tokens)
        under_way = _under_way(part_size, num_candidates)
        stages.append(StageCost(GENERATE, tokens, generate_tokens_per_s, tokens, load_s, under_way))
    if score_tokens_per_s is not None:
        given, computed = scoring_tokens(
            num_rows, num_candidates, prompt_tokens + response_tokens, prompt_tokens
        )
        stages.append(StageCost("score reward", computed, score_tokens_per_s, given, load_s))
    row_bytes = RowBytes(
        PROMPT_BYTES + TEXT_BYTES * prompt_tokens,
        CANDIDATE_BYTES + TOKEN_BYTES * response_tokens,
        (float(SCORE_BYTES),) * (score_tokens_per_s is not None),
        "at most: before compression",
    )
    return RunPlan(
        num_rows=num_rows,
        num_prompts=num_rows,
        num_candidates=num_candidates,
        part_size=part_size,
        stages=tuple(stages),
        row_bytes=row_bytes,
        notes=tuple(notes),
    )


def measured_run(
    measured: MeasuredPool,
    *,
    num_rows: int | None = None,
    num_candidates: int | None = None,
    part_size: int | None = None,
    load_s: float | None = None,
    notes: Sequence[str] = (),
) -> RunPlan:
    """Plan a run like one that was measured, with other numbers of prompts and candidates."""
    rows = measured.num_rows if num_rows is None else num_rows
    share = measured.num_prompts / measured.num_rows if measured.num_rows else 0.0
    prompts = round(rows * share)
    before = measured.num_candidates / max(1, measured.num_prompts)
    size = part_size or measured.part_size
    wanted = round(before) if num_candidates is None else num_candidates
    factor = wanted / before if num_candidates is not None and before else 1.0
    grown = prompts / max(1, measured.num_prompts)
    stages = tuple(
        replace(one, setup_s=one.setup_s if load_s is None or not one.has_model else load_s)
        for one in (
            _stage(stage, before, grown, factor, _begun(measured, stage, size, wanted))
            for stage in measured.stages
        )
    )
    more_rows = rows / max(1, measured.num_rows)
    drops = {"input": _grown(measured.prompt_drops, more_rows)}
    drops |= {stage.name: _grown(stage.drops, grown) for stage in measured.stages}
    before_driver = driver_cost(measured.num_rows, measured.part_size)
    restarts = sum(stage.num_restarts for stage in measured.stages)
    if restarts:
        notes = (*notes, f"workers were lost {restarts} times: what that cost is in the speeds")
    return RunPlan(
        num_rows=rows,
        num_prompts=prompts,
        num_candidates=wanted,
        part_size=size,
        stages=stages,
        row_bytes=_row_bytes(measured),
        start_s=max(0.0, measured.other_s - before_driver.read_s - before_driver.look_s),
        drops=drops,
        notes=tuple(notes),
    )


def _stage(
    stage: MeasuredStage, before: float, grown: float, factor: float, under_way: float
) -> StageCost:
    """Return a measured stage for `grown` times the prompts and `factor` times the candidates."""
    candidates = grown * factor * stage.num_candidates
    given = grown * factor * stage.num_tokens
    units, speed_units = candidates, float(stage.num_candidates)
    if given:
        computed = stage.num_tokens_computed or stage.num_tokens
        units, speed_units = given * computed / stage.num_tokens, float(computed)
        saved, prompts = stage.num_tokens - computed, stage.num_candidates / before
        if saved > 0 and before > 1:
            shared = saved / (prompts * (before - 1))
            units = given - grown * prompts * max(0.0, before * factor - 1) * shared
    return StageCost(
        name=stage.name,
        num_units=units,
        units_per_s=speed_units / max(1e-3, stage.run_s * stage.num_workers),
        num_tokens=given,
        setup_s=stage.setup_s,
        parts_under_way=under_way,
        has_model=stage.num_tokens > 0,
    )


def _begun(measured: MeasuredPool, stage: MeasuredStage, part_size: int, number: int) -> float:
    """Return how many parts a worker has under way: a scorer one, vLLM as many as fill it."""
    if stage.name != GENERATE or measured.engine == "transformers":
        return 1.0
    return _under_way(part_size, number)


def _under_way(part_size: int, num_candidates: int) -> float:
    return 1.0 + math.ceil(UNFINISHED_CANDIDATES / (part_size * max(1, num_candidates)))


def _grown(drops: Mapping[str, int], factor: float) -> dict[str, int]:
    return {reason: round(count * factor) for reason, count in drops.items() if count}


def _row_bytes(measured: MeasuredPool) -> RowBytes:
    def each(kind: str) -> float:
        files = measured.kinds[kind]
        rows = measured.num_rows if kind == PROMPTS else files.num_rows
        return max(0.0, files.num_bytes - FILE_BYTES * files.num_files) / max(1, rows)

    scores = tuple(each(kind) for kind in measured.kinds if kind not in (PROMPTS, CANDIDATES))
    return RowBytes(each(PROMPTS), each(CANDIDATES), scores, "as in the pool that was measured")


def _placement(one: Placement, fleet: Fleet) -> dict[str, Any]:
    gpu_hours = fleet.gpus_per_worker * one.worker_hours
    price = fleet.price_per_gpu_hour
    return {
        **asdict(one),
        "gpu_hours": gpu_hours,
        "price": None if price is None else price * gpu_hours,
    }
