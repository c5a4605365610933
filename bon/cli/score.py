"""`bon score`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bon.cli.app import app, guarded
from bon.cli.flags import Invocation, command
from bon.config import GROUPS as COMMAND_GROUPS
from bon.config import (
    GenerateSettings,
    InputSettings,
    ResponseSettings,
    RunSettings,
    ScoreSettings,
    VerifySettings,
)
from bon.places import place

if TYPE_CHECKING:
    from bon.cli.stages import Made
    from bon.config import ScorerSettings

GROUPS = COMMAND_GROUPS["score"]


@command(
    app,
    "score",
    *GROUPS,
    source_help="Pool; or a prompt file or a dataset that has responses, whose pool is made first.",
    examples=[
        "bon score prompts.pool -r Skywork/Skywork-Reward-V2-Qwen3-0.6B",
        "bon score prompts.pool -r second=./my-reward-model --reward-max-length 4096",
        "bon score answers.jsonl -r Skywork/Skywork-Reward-V2-Qwen3-0.6B",
        "bon score prompts.pool -r Skywork/Skywork-Reward-V2-Qwen3-0.6B --verify 50",
        "bon score prompts.pool --ref-model Qwen/Qwen3-0.6B",
    ],
    panel="Stages",
    run=guarded,
)
def score(call: Invocation) -> None:
    """Score every candidate of a pool with a reward model; resumes where it stopped.

    Responses that a dataset has are scored as they are; for prompts, responses are sampled first.
    """
    from bon.cli.build import scorer_settings
    from bon.cli.closing import describe, finish_pool
    from bon.cli.curation import note_unused_answers, ready_pool, step_texts
    from bon.cli.engines import check_engine
    from bon.cli.idle_flags import refuse_idle_flags
    from bon.cli.places import check_places, default_pool, source_kind
    from bon.cli.repairing import restore_pool
    from bon.cli.stages import score_pool

    if call.given("ref_model") and not call.given("reward"):
        call = replace(call, flags={**call.flags, "reward": ()})  # the default is not wanted
    kind = source_kind(call)
    root = place(call.source) if kind == "pool" else call.settings(RunSettings).pool
    root = root or default_pool(call.source, None)
    restore_pool(call, root)
    num_verified = call.settings(VerifySettings).verify or 0
    if kind == "pool":
        idle = (InputSettings, ResponseSettings, GenerateSettings, RunSettings)
        seed = {"seed"} if num_verified else set()  # it draws what is verified
        allowed = {"limit", "max_drops", "repair"} | seed
        call.refuse_for_pool(allowed | RunSettings.engine_fields, *idle)
    else:
        check_places(call.source, root)
        note_unused_answers(call, kind)
    check_engine(call, kind, with_scores=True)
    scorers = scorer_settings(call.settings(ScoreSettings))
    refuse_idle_flags(call, scorers)
    if call.dry_run:
        steps = step_texts(call, kind, root, with_scores=False)
        steps += [f"score {root} with {one.said} as {one.name}" for one in scorers]
        if num_verified:
            steps += [_verify_text(one, num_verified) for one in scorers]
        groups = [one for one in GROUPS if one is not GenerateSettings or kind == "prompts"]
        describe(call, root, groups, steps)
        return
    if kind == "pool":
        made = score_pool(call, root)
    else:
        made = ready_pool(call, kind, root, group=True, with_scores=True)
    if num_verified:
        _verify(call, made, num_verified)
    finish_pool(call, made, [one.name for one in scorers])


def _verify_text(scorer: ScorerSettings, num_candidates: int) -> str:
    """Say what `--verify` does for a scorer."""
    from bon.cli.plans import LOGPROB, REWARD_MODEL, kind_of

    kind = kind_of(scorer.spec)
    if kind not in (LOGPROB, REWARD_MODEL):
        return f"nothing to verify for {scorer.name}: it is {kind.noun}"
    return f"score {num_candidates} random candidates again with {scorer.name}, one at a time"


def _verify(call: Invocation, made: Made, num_candidates: int) -> None:
    """Hold the stored scores of each reward model to its reference."""
    from bon.cli.console import note
    from bon.cli.curation import run_seed
    from bon.cli.plans import kind_of
    from bon.cli.writing import pool_run
    from bon.pipeline.verify import VerifyPlan, verify

    made.verified = {}
    limit = call.settings(InputSettings).limit
    with pool_run(call, made.pool.layout.root) as run:
        for one in made.scorings:
            if one.reference is None:
                noun = kind_of(one.fingerprint["spec"]).noun
                note(f"{one.name} is {noun}: there is nothing to verify", quiet=call.quiet)
                continue
            plan = VerifyPlan(
                one.name,
                one.reference,
                num_candidates,
                run_seed(call, made),
                one.reads_candidates,
            )
            report = verify(made.pool, plan, run.engine, limit, run.observe)
            made.verified[one.name] = report
