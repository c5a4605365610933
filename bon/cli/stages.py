"""From a source to a pool brought up to date: what all commands share."""

from __future__ import annotations

from dataclasses import dataclass, field

from bon.cli.build import generation_plan, given_plan, prompts_plan, scoring_plans
from bon.cli.console import note
from bon.cli.flags import Invocation
from bon.cli.placement import is_streamed, refuse_no_room
from bon.cli.repairing import MADE_FROM_INPUT, repair_pool
from bon.cli.writing import PoolRun, pool_run
from bon.config import (
    GenerateSettings,
    InputSettings,
    ResponseSettings,
    RunSettings,
    ScorerSettings,
    ScoreSettings,
)
from bon.pipeline.accounting import count_reasons
from bon.pipeline.given import existing_pool, import_responses
from bon.pipeline.jobs import StageReport
from bon.pipeline.plans import GenerationPlan, ScoringPlan
from bon.pipeline.repair import Damage
from bon.pipeline.run import (
    check_scorer,
    generate,
    generate_and_score,
    open_pool,
    read_prompts,
    refuse_foreign,
    score,
)
from bon.pipeline.verify import VerifyReport
from bon.places import Place
from bon.pool.pool import CANDIDATES, PROMPTS, Pool, scores_kind

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
    repaired: list[Damage] | None = None
    """Parts that were damaged; none where nobody asked."""


def make_pool(call: Invocation, root: Place, *, with_scores: bool) -> Made:
    """Read prompts, generate and score what is missing; a run that stopped goes on here."""
    inputs = call.settings(InputSettings)
    prompts = prompts_plan(call.source, inputs, call.settings(RunSettings).part_size)
    refuse_foreign(root)
    sampling = call.settings(GenerateSettings)
    if sampling.temperature == 0 and sampling.num_candidates > 1:
        note("temperature 0: all candidates of a prompt are the same", quiet=call.quiet)
    generation = generation_plan(sampling)
    scorings = _scorings(call) if with_scores else []
    with pool_run(call, root) as run:
        refuse_no_room(call, run.engine, generation, scorings)
        pool = open_pool(root, prompts, generation)
        repaired = repair_pool(call, pool, _redone(scorings), run)
        for scoring in scorings:
            check_scorer(pool, scoring)
        pool = read_prompts(pool, prompts)
        _note_input(pool, prompts.name, run)
        has_to_sample = bool(pool.pending(CANDIDATES, inputs.limit))
        if generation.engine and has_to_sample:
            run.note(f"generate: {generation.engine}, {generation.engine_why}")
        if has_to_sample and is_streamed(call, run.engine, generation, scorings):
            return _stream(call, Made(pool, repaired=repaired), generation, scorings, run)
        report = generate(pool, generation, run.engine, inputs.limit, run.observe)
        made = Made(pool, [run.end_stage(report)], repaired=repaired)
        return _score(call, made, scorings, run)


def score_pool(call: Invocation, root: Place) -> Made:
    """Score what is missing in an existing pool."""
    scorings = _scorings(call)
    with pool_run(call, root) as run:
        made = Made(Pool.open(root))
        redone = [scores_kind(scoring.name) for scoring in scorings]
        made.repaired = repair_pool(call, made.pool, redone, run)
        for scoring in scorings:
            check_scorer(made.pool, scoring)
        return _score(call, made, scorings, run)


def given_pool(call: Invocation, root: Place, *, group: bool, with_scores: bool) -> Made:
    """Import an input that has responses or pairs, and score what is missing."""
    inputs, responses = call.settings(InputSettings), call.settings(ResponseSettings)
    part_size = call.settings(RunSettings).part_size
    plan = given_plan(call.source, inputs, responses, part_size, group=group)
    refuse_foreign(root)
    scorings = _scorings(call) if with_scores else []
    with pool_run(call, root) as run:
        begun = existing_pool(root, plan)
        repaired = None if begun is None else repair_pool(call, begun, _redone(scorings), run)
        pool = import_responses(root, plan)
        _note_input(pool, plan.name, run)
        return _score(call, Made(pool, repaired=repaired), scorings, run)


def judge_pool(call: Invocation, made: Made, rule: str) -> Made:
    """Add a rule's verdicts where they are missing; loads no model."""
    settings = call.settings(ScoreSettings).model_copy(
        update={"reward": (rule,), "ref_model": None}
    )
    with pool_run(call, made.pool.layout.root) as run:
        return _score(call, made, scoring_plans(settings), run)


def _redone(scorings: list[ScoringPlan]) -> list[str]:
    """Name what a run that reads an input makes where it is missing."""
    return [*MADE_FROM_INPUT, *(scores_kind(scoring.name) for scoring in scorings)]


def _scorings(call: Invocation) -> list[ScoringPlan]:
    """Plan the scorers; refuse flags of steps that were typed though none of them reads steps."""
    from bon.cli.idle_flags import refuse_idle_steps

    plans = scoring_plans(call.settings(ScoreSettings))
    read = {name for plan in plans for name in plan.fingerprint}
    refuse_idle_steps(call, ScorerSettings.step_fields - read)
    return plans


def _score(call: Invocation, made: Made, scorings: list[ScoringPlan], run: PoolRun) -> Made:
    limit = call.settings(InputSettings).limit
    made.scorings += scorings
    for scoring in scorings:
        _note_engine(made.pool, scoring, limit, run)
        report = score(made.pool, scoring, run.engine, limit, run.observe)
        made.stages.append(run.end_stage(report))
        made.pool = made.pool.opened_again()
    return made


def _stream(
    call: Invocation,
    made: Made,
    generation: GenerationPlan,
    scorings: list[ScoringPlan],
    run: PoolRun,
) -> Made:
    limit = call.settings(InputSettings).limit
    made.scorings += scorings
    for scoring in scorings:
        _note_engine(made.pool, scoring, limit, run)
    reports = generate_and_score(made.pool, generation, scorings, run.engine, limit, run.observe)
    made.stages += map(run.end_stage, reports)
    made.pool = made.pool.opened_again()
    return made


def _note_engine(pool: Pool, scoring: ScoringPlan, limit: int | None, run: PoolRun) -> None:
    if scoring.engine and pool.pending(scores_kind(scoring.name), limit):
        run.note(f"{scoring.name}: {scoring.engine}, {scoring.engine_why}")


def _note_input(pool: Pool, name: str, run: PoolRun) -> None:
    known = pool.manifest.input
    run.note(f"{name}: {known['rows']:,} rows, {known['description']}")
    drops = count_reasons(pool.read_drops(PROMPTS))
    run.log.write("read", source=name, rows=known["rows"], drops=drops)
