"""`bon generate`."""

from __future__ import annotations

from bon.cli.app import app, guarded
from bon.cli.flags import Invocation, command
from bon.config import GROUPS as COMMAND_GROUPS
from bon.config import RunSettings
from bon.errors import SettingsError

GROUPS = COMMAND_GROUPS["generate"]


@command(
    app,
    "generate",
    *GROUPS,
    source_help="Prompt file (or folder, glob, Hub dataset).",
    output_help="Folder of the pool; the same as --pool. By default NAME.pool here.",
    examples=[
        "bon generate prompts.jsonl -m Qwen/Qwen3-0.6B -n 16 --pool prompts.pool",
        "bon generate base.txt -m my-base-model --raw --max-tokens 256 --stop END",
    ],
    panel="Stages",
    run=guarded,
)
def generate(call: Invocation) -> None:
    """Sample N candidates for each prompt into a pool; resumes a pool that was begun."""
    from bon.cli.closing import describe, finish_pool, making_steps
    from bon.cli.engines import check_engine
    from bon.cli.places import check_places, default_pool, is_pool
    from bon.cli.repairing import restore_pool
    from bon.cli.stages import make_pool

    if is_pool(call.source):
        raise SettingsError(
            "the source is a pool",
            where=call.source,
            next_step="give the prompt file that it was made from; the same command resumes it",
        )
    check_engine(call, "prompts", with_scores=False)
    root = call.settings(RunSettings).pool or call.output or default_pool(call.source, None)
    check_places(call.source, root)
    restore_pool(call, root)
    if call.dry_run:
        steps = making_steps(call, root)
        describe(call, root, list(GROUPS), steps)
        return
    made = make_pool(call, root, with_scores=False)
    finish_pool(call, made, [])
