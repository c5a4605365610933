"""`bon select`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bon.cli.app import app, guarded
from bon.cli.flags import Invocation, command
from bon.config import GenerateSettings, InputSettings, RunSettings, ScoreSettings, SelectSettings
from bon.errors import SettingsError

GROUPS = (InputSettings, GenerateSettings, ScoreSettings, SelectSettings, RunSettings)


@command(
    app,
    "select",
    *GROUPS,
    source_help="Prompt file (or folder, glob, Hub dataset), or a pool.",
    output_help="Parquet file to write; by default NAME.best.parquet here.",
    examples=[
        "bon select prompts.jsonl -m Qwen/Qwen3-0.6B "
        "-r Skywork/Skywork-Reward-V2-Qwen3-0.6B -n 16 -o best.parquet",
        "bon select best.pool --strategy top-k --k 4 -o top4.parquet",
        "bon select gsm8k.jsonl -n 8 --strategy weighted-majority --max-drops 1%",
    ],
    panel="Pipelines",
    run=guarded,
)
def select(call: Invocation) -> None:
    """Best of N: sample, score and keep the best responses to each prompt, as Parquet.

    From a prompt file it makes the pool beside the output (or resumes it); from a pool it reads
    only: trying another strategy costs no GPU time.
    """
    from bon.cli.stages import (
        Made,
        default_pool,
        describe,
        finish,
        input_stem,
        is_pool,
        make_pool,
    )
    from bon.pipeline.ranked import ranking_scorer
    from bon.pipeline.select import check_selection
    from bon.pipeline.select import select as select_rows
    from bon.pool.pool import Pool

    settings = call.settings(SelectSettings)
    from_pool = is_pool(call.source)
    output = call.output or Path(f"{input_stem(call.source)}.best.parquet")
    check_selection(settings, output)
    if Path(call.source).exists() and output.resolve() == Path(call.source).resolve():
        raise SettingsError(
            "the output is the input", where=str(output), next_step="give -o another name"
        )
    root = Path(call.source) if from_pool else call.settings(RunSettings).pool
    root = root or default_pool(call.source, output)
    if from_pool:
        idle = (InputSettings, GenerateSettings, ScoreSettings, RunSettings)
        call.refuse_for_pool({"limit", "seed", "max_drops", "engine"}, *idle)
    if call.dry_run:
        steps = [] if from_pool else _making_steps(call, root)
        describe(call, root, list(GROUPS), [*steps, f"select {settings.strategy} to {output}"])
        return
    made = Made(Pool.open(root)) if from_pool else make_pool(call, root, with_scores=True)
    report = select_rows(
        made.pool,
        settings,
        scorer=ranking_scorer(made.pool, settings.rank_by or _only_reward(call, from_pool)),
        seed=_seed(call, made.pool.manifest.generation),
        limit=call.settings(InputSettings).limit,
        output=output,
    )
    title = f"{report.strategy} by {report.scorer}"
    finish(call, made, title, report.accounting, {**report.as_json(), "output": str(output)})


def _making_steps(call: Invocation, root: Path) -> list[str]:
    generation = call.settings(GenerateSettings)
    return [
        f"read prompts from {call.source} into {root}",
        f"generate {generation.num_candidates} candidates per prompt with {generation.model}",
        *(f"score with {spec}" for spec in call.settings(ScoreSettings).reward),
    ]


def _only_reward(call: Invocation, from_pool: bool) -> str | None:
    """The one scorer of this run ranks, whatever else the pool has been scored with."""
    from bon.cli.build import scorer_settings

    if from_pool:
        return None
    scorers = scorer_settings(call.settings(ScoreSettings))
    return scorers[0].name if len(scorers) == 1 else None


def _seed(call: Invocation, generation: dict[str, Any] | None) -> int:
    """The draw of soft follows --seed where given, else the pool's own run seed."""
    if call.given("seed") or generation is None:
        return call.settings(GenerateSettings).seed
    return int(generation.get("seed", 0))
