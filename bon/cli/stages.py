"""From a source to a pool brought up to date: what all commands share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from bon.cli.build import generation_plan, given_plan, prompts_plan, scoring_plans
from bon.cli.console import StageProgress, note
from bon.cli.flags import Invocation
from bon.cli.idle_flags import refuse_idle_steps
from bon.config import (
    GenerateSettings,
    InputSettings,
    ResponseSettings,
    RunSettings,
    ScorerSettings,
    ScoreSettings,
)
from bon.engines.local import LocalEngine
from bon.pipeline.given import import_responses
from bon.pipeline.run import (
    PromptsPlan,
    ScoringPlan,
    StageReport,
    check_scorer,
    generate,
    open_pool,
    read_prompts,
    refuse_foreign,
    score,
)
from bon.pipeline.verify import VerifyReport
from bon.pool.layout import PoolLayout
from bon.pool.lock import PoolLock
from bon.pool.pool import CANDIDATES, Pool, scores_kind

__all__ = ["Made", "given_pool", "judge_pool", "make_pool", "score_pool"]


@dataclass
class Made:
    """A pool that is up to date, and what that took."""

    pool: Pool
    stages: list[StageReport] = field(default_factory=list)
    scorings: list[ScoringPlan] = field(default_factory=list)
    """The scorers that this run has brought up to date."""
    verified: dict[str, VerifyReport] | None = None
    """By scorer; none where nobody asked."""


def make_pool(call: Invocation, root: Path, *, with_scores: bool) -> Made:
    """Read prompts, generate and score what is missing; a run that stopped goes on here."""
    run = call.settings(RunSettings)
    inputs = call.settings(InputSettings)
    prompts = prompts_plan(call.source, inputs, run.part_size)
    refuse_foreign(root)
    sampling = call.settings(GenerateSettings)
    if sampling.temperature == 0 and sampling.num_candidates > 1:
        note("temperature 0: all candidates of a prompt are the same", quiet=call.quiet)
    generation = generation_plan(sampling)
    scorings = _scorings(call) if with_scores else []
    with PoolLock(PoolLayout(root).lock), StageProgress(quiet=call.quiet) as progress:
        pool = open_pool(root, prompts, generation)
        for scoring in scorings:
            check_scorer(pool, scoring)
        pool = _read(pool, prompts, call)
        if generation.engine and pool.pending(CANDIDATES, inputs.limit):
            note(f"generate: {generation.engine}, {generation.engine_why}", quiet=call.quiet)
        engine = LocalEngine(None if call.verbose else pool.layout.log)
        made = Made(pool, [generate(pool, generation, engine, inputs.limit, progress)])
        return _score(call, made, scorings, engine, progress)


def score_pool(call: Invocation, root: Path) -> Made:
    """Score what is missing in an existing pool."""
    scorings = _scorings(call)
    with PoolLock(PoolLayout(root).lock), StageProgress(quiet=call.quiet) as progress:
        made = Made(Pool.open(root))
        for scoring in scorings:
            check_scorer(made.pool, scoring)
        engine = LocalEngine(None if call.verbose else made.pool.layout.log)
        return _score(call, made, scorings, engine, progress)


def given_pool(call: Invocation, root: Path, *, group: bool, with_scores: bool) -> Made:
    """Import an input that has responses or pairs, and score what is missing."""
    run, inputs = call.settings(RunSettings), call.settings(InputSettings)
    plan = given_plan(
        call.source, inputs, call.settings(ResponseSettings), run.part_size, group=group
    )
    refuse_foreign(root)
    scorings = _scorings(call) if with_scores else []
    with PoolLock(PoolLayout(root).lock), StageProgress(quiet=call.quiet) as progress:
        pool = import_responses(root, plan)
        known = pool.manifest.input
        note(f"{plan.name}: {known['rows']:,} rows, {known['description']}", quiet=call.quiet)
        engine = LocalEngine(None if call.verbose else pool.layout.log)
        return _score(call, Made(pool), scorings, engine, progress)


def judge_pool(call: Invocation, made: Made, rule: str) -> Made:
    """Add a rule's verdicts where they are missing; loads no model."""
    settings = call.settings(ScoreSettings).model_copy(
        update={"reward": (rule,), "ref_model": None}
    )
    with PoolLock(made.pool.layout.lock), StageProgress(quiet=call.quiet) as progress:
        engine = LocalEngine(None if call.verbose else made.pool.layout.log)
        return _score(call, made, scoring_plans(settings), engine, progress)


def _scorings(call: Invocation) -> list[ScoringPlan]:
    """Plan the scorers; refuse flags of steps that were typed though none of them reads steps."""
    plans = scoring_plans(call.settings(ScoreSettings))
    read = {name for plan in plans for name in plan.fingerprint}
    refuse_idle_steps(call, ScorerSettings.step_fields - read)
    return plans


def _score(
    call: Invocation,
    made: Made,
    scorings: list[ScoringPlan],
    engine: LocalEngine,
    progress: StageProgress,
) -> Made:
    limit = call.settings(InputSettings).limit
    made.scorings += scorings
    for scoring in scorings:
        if scoring.engine and made.pool.pending(scores_kind(scoring.name), limit):
            text = f"{scoring.name}: {scoring.engine}, {scoring.engine_why}"
            note(text, quiet=call.quiet)
        made.stages.append(score(made.pool, scoring, engine, limit, progress))
        made.pool = Pool.open(made.pool.layout.root)
    return made


def _read(pool: Pool, plan: PromptsPlan, call: Invocation) -> Pool:
    pool = read_prompts(pool, plan)
    known = pool.manifest.input
    note(f"{plan.name}: {known['rows']:,} rows, {known['description']}", quiet=call.quiet)
    return pool
