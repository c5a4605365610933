"""What a run will cost: prompts × N × tokens, at given speeds, as hours, files, bytes and memory.

Pure arithmetic. A worker is one copy of a model with its accelerators, and a part is what a worker
does at a time. Speeds are one worker's. Every constant names where it was measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

__all__ = [
    "CANDIDATE_BYTES",
    "FILE_BYTES",
    "PROMPT_BYTES",
    "SAMPLERS_PER_SCORER",
    "SCORE_BYTES",
    "TEXT_BYTES",
    "TOKEN_BYTES",
    "Driver",
    "FileSizes",
    "Placement",
    "StageCost",
    "driver_cost",
    "file_sizes",
    "generation_tokens",
    "in_turn",
    "num_parts",
    "redo_s",
    "scoring_tokens",
    "span_s",
    "starting_later",
    "streaming",
    "tail_s",
]

TOKEN_BYTES = 9
"""Of a sampled token: 4 for its id, 5 for its text, before compression."""
TEXT_BYTES = 5
"""Of a token's text, before compression."""
CANDIDATE_BYTES = 40
"""Of a candidate's other columns."""
SCORE_BYTES = 24
"""Of a candidate's row in one scorer's file."""
PROMPT_BYTES = 33
"""Of a prompt's id, row and place, compressed (benchmarks/results/plan_100m.json)."""
FILE_BYTES = 1_900
"""Of a part's file without rows: its footer (benchmarks/results/plan_100m.json, mean of three)."""
SAMPLERS_PER_SCORER = 8
"""Workers that sample for each that scores, side by side (bon/engines/chain.py)."""
BASE_FILES = 5
"""pool.json, its copy, lock, run.log and worker.log."""

# of the process that drives a run: benchmarks/results/plan_100m.json
DRIVER_BASE_MIB = 140.0
DRIVER_BYTES_A_PART = 6_700
READ_BYTES_A_ROW = 30
"""Each prompt's id must be seen once only; they are held while the input is read."""
READ_S_A_ROW = 6.4e-6
WRITE_S_A_PART = 3.1e-3
RESUME_S_A_PART = 0.86e-3
"""Looking through the parts and closing the books, files in the system's cache."""


@dataclass(frozen=True, slots=True)
class StageCost:
    """One stage: how much there is to do, and how fast one worker does it."""

    name: str
    num_units: float
    """What is computed: tokens, or candidates where a stage reads no tokens."""
    units_per_s: float
    """By one worker."""
    num_tokens: float = 0.0
    """Tokens sampled, or given to a scorer: what prompts share counts each time."""
    setup_s: float = 0.0
    """From the start of a worker until its model works, and its end."""
    parts_under_way: float = 1.0
    """Parts that one worker has begun and not committed, at most."""
    has_model: bool = True
    """It takes workers with accelerators; rules do not."""

    @property
    def work_s(self) -> float:
        """Seconds of one worker, its set-up not counted."""
        return self.num_units / self.units_per_s


@dataclass(frozen=True, slots=True)
class Placement:
    """One way to spread the stages over the workers, and what it takes."""

    name: str
    wall_s: float
    workers: dict[str, int]
    """By stage; in turn, each has all of them."""
    worker_hours: float
    """Hours for which workers are held, busy or not."""
    busy_hours: float
    """Hours in which they load or work, those of rules among them."""


@dataclass(frozen=True, slots=True)
class FileSizes:
    """What a pool takes on disk."""

    num_files: int
    num_bytes: float
    footer_bytes: float
    """Of these, what a part takes that has no rows."""


@dataclass(frozen=True, slots=True)
class Driver:
    """What the one process costs that reads the input, hands out parts and keeps the books."""

    read_s: float
    """The first reading of the input."""
    look_s: float
    """Looking through the parts: once at each start, however much is done."""
    peak_mib: float


def generation_tokens(num_prompts: int, num_candidates: int, response_tokens: float) -> float:
    """Return the tokens that are sampled."""
    return num_prompts * num_candidates * response_tokens


def scoring_tokens(
    num_prompts: int, num_candidates: int, given_tokens: float, shared_tokens: float
) -> tuple[float, float]:
    """Return the tokens given to a scorer and those that it computes.

    A conversation has `given_tokens`; all of a prompt's share the first `shared_tokens` of them,
    which are computed once.
    """
    given = num_prompts * num_candidates * given_tokens
    return given, given - num_prompts * max(0, num_candidates - 1) * shared_tokens


def num_parts(num_prompts: int, part_size: int) -> int:
    """Return how many parts so many input rows make."""
    return -(-num_prompts // part_size)


def span_s(stage: StageCost, num_prompts: int, part_size: int, num_workers: int) -> float:
    """Return the seconds of a stage's work on so many workers, each doing a part at a time.

    Parts are taken to be alike: the last round of them is as long as any other, even where it has
    work for a few workers only.
    """
    if not num_prompts:
        return 0.0
    prompt_s = stage.work_s / num_prompts
    whole, rest = divmod(num_prompts, part_size)
    rounds, left = divmod(whole, num_workers)
    last = part_size if left else rest
    return (rounds * part_size + last) * prompt_s


def tail_s(stage: StageCost, num_prompts: int, part_size: int, num_workers: int) -> float:
    """Return the seconds by which a stage takes longer than if its work had no parts."""
    return span_s(stage, num_prompts, part_size, num_workers) - stage.work_s / num_workers


def redo_s(stage: StageCost, num_prompts: int, part_size: int) -> float:
    """Return the seconds of one worker that its loss costs at most: set-up and parts under way."""
    if not num_prompts:
        return stage.setup_s
    rows = min(num_prompts, part_size * stage.parts_under_way)
    return stage.setup_s + stage.work_s * rows / num_prompts


def in_turn(
    stages: Sequence[StageCost], num_prompts: int, part_size: int, num_workers: int
) -> Placement:
    """Return the cost of one stage after the other, each on all workers."""
    wall_s = sum(
        stage.setup_s + span_s(stage, num_prompts, part_size, num_workers) for stage in stages
    )
    workers = {stage.name: num_workers for stage in stages}
    return _placed("in turn", wall_s, num_workers, workers, stages)


def streaming(
    stages: Sequence[StageCost], num_prompts: int, part_size: int, num_workers: int
) -> Placement | None:
    """Return the cost of all stages side by side, as `--placement stream` shares out the workers.

    A part goes through the stages one after the other, so the slowest of them sets the pace, and
    the others add a part's time where it begins and where it ends. None where there are fewer
    workers than models.
    """
    models = [stage.name for stage in stages if stage.has_model]
    if len(stages) < 2 or num_workers < len(models):
        return None
    workers = {stage.name: 1 for stage in stages} | _shared_out(models, num_workers)
    spans = [span_s(stage, num_prompts, part_size, workers[stage.name]) for stage in stages]
    slowest_at = spans.index(max(spans))
    rows = min(num_prompts, part_size)
    others_s = sum(
        stage.work_s * rows / max(1, num_prompts)
        for at, stage in enumerate(stages)
        if at != slowest_at
    )
    wall_s = max(stage.setup_s for stage in stages) + spans[slowest_at] + others_s
    return _placed("streaming", wall_s, num_workers, workers, stages)


def _shared_out(models: Sequence[str], num_workers: int) -> dict[str, int]:
    """Return as many workers for the first model as leave one for eight of them to each other."""
    others = len(models) - 1
    first = num_workers - others
    while first > 1 and first + others * max(1, first // SAMPLERS_PER_SCORER) > num_workers:
        first -= 1
    later = max(1, first // SAMPLERS_PER_SCORER)
    return {name: later if at else first for at, name in enumerate(models)}


def _placed(
    name: str,
    wall_s: float,
    num_workers: int,
    workers: dict[str, int],
    stages: Sequence[StageCost],
) -> Placement:
    busy_s = sum(stage.work_s + stage.setup_s * workers[stage.name] for stage in stages)
    return Placement(name, wall_s, workers, num_workers * wall_s / 3600, busy_s / 3600)


def starting_later(placement: Placement, seconds: float, num_workers: int) -> Placement:
    """Return a placement with seconds before its first stage in which all workers are held."""
    held = placement.worker_hours + num_workers * seconds / 3600
    return replace(placement, wall_s=placement.wall_s + seconds, worker_hours=held)


def file_sizes(
    num_prompts: int,
    part_size: int,
    *,
    prompt_bytes: float,
    candidates: float,
    candidate_bytes: float,
    score_bytes: Sequence[float],
) -> FileSizes:
    """Return what a pool takes: so many bytes a prompt, a candidate, a candidate of each scorer."""
    kinds = 2 + len(score_bytes)
    files = kinds * num_parts(num_prompts, part_size)
    rows = num_prompts * prompt_bytes + candidates * (candidate_bytes + math.fsum(score_bytes))
    footers = float(files * FILE_BYTES)
    return FileSizes(files + BASE_FILES, rows + footers, footers)


def driver_cost(num_prompts: int, part_size: int) -> Driver:
    """Return what the driving process costs, by measured constants."""
    parts = num_parts(num_prompts, part_size)
    most = max(num_prompts * READ_BYTES_A_ROW, parts * DRIVER_BYTES_A_PART)
    return Driver(
        read_s=num_prompts * READ_S_A_ROW + parts * WRITE_S_A_PART,
        look_s=parts * RESUME_S_A_PART,
        peak_mib=DRIVER_BASE_MIB + most / 2**20,
    )
