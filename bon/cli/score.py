"""`bon score`."""

from __future__ import annotations

from pathlib import Path

from bon.cli.app import app, guarded
from bon.cli.flags import Invocation, command
from bon.config import GROUPS as COMMAND_GROUPS
from bon.config import GenerateSettings, InputSettings, RunSettings, ScoreSettings

GROUPS = COMMAND_GROUPS["score"]


@command(
    app,
    "score",
    *GROUPS,
    source_help="Pool; or a prompt file, whose pool is made first.",
    examples=[
        "bon score prompts.pool -r Skywork/Skywork-Reward-V2-Qwen3-0.6B",
        "bon score prompts.pool -r second=./my-reward-model --reward-max-length 4096",
    ],
    panel="Stages",
    run=guarded,
)
def score(call: Invocation) -> None:
    """Score every candidate of a pool with a reward model; resumes where it stopped."""
    from bon.cli.build import scorer_settings
    from bon.cli.closing import describe, finish_pool, making_steps
    from bon.cli.places import check_places, default_pool, is_pool
    from bon.cli.stages import make_pool, score_pool

    from_pool = is_pool(call.source)
    root = Path(call.source) if from_pool else call.settings(RunSettings).pool
    root = root or default_pool(call.source, None)
    if from_pool:
        idle = (InputSettings, GenerateSettings, RunSettings)
        call.refuse_for_pool({"limit", "max_drops", "engine"}, *idle)
    else:
        check_places(call.source, root)
    scorers = scorer_settings(call.settings(ScoreSettings))
    if call.dry_run:
        steps = [] if from_pool else making_steps(call, root)
        steps += [f"score {root} with {one.spec} as {one.name}" for one in scorers]
        describe(call, root, list(GROUPS), steps)
        return
    made = score_pool(call, root) if from_pool else make_pool(call, root, with_scores=True)
    finish_pool(call, made, [one.name for one in scorers])
