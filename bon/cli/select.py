"""`bon select`."""

from __future__ import annotations

from pathlib import Path

from bon.cli.app import app, guarded
from bon.cli.flags import Invocation, command
from bon.config import GROUPS as COMMAND_GROUPS
from bon.config import (
    ExportSettings,
    GenerateSettings,
    InputSettings,
    RunSettings,
    ScoreSettings,
    SelectSettings,
    Settings,
)
from bon.errors import SettingsError, did_you_mean

GROUPS = COMMAND_GROUPS["select"]
_OWN_FLAGS = {"top-k": ("k",), "threshold": ("threshold",), "soft": ("soft_lambda",)}
"""Flags that one strategy alone has a use for."""


@command(
    app,
    "select",
    *GROUPS,
    source_help="Prompt file (or folder, glob, Hub dataset), or a pool.",
    output_help="File (.parquet, .jsonl, .csv) or folder to write; by default NAME.best.parquet.",
    examples=[
        "bon select prompts.jsonl -m Qwen/Qwen3-0.6B "
        "-r Skywork/Skywork-Reward-V2-Qwen3-0.6B -n 16 -o best.parquet",
        "bon select prompts.pool --strategy top-k --k 4 -o top4.parquet",
        "bon select gsm8k.jsonl -n 8 --strategy majority --max-drops 1%",
    ],
    panel="Pipelines",
    run=guarded,
)
def select(call: Invocation) -> None:
    """Best of N: sample, score and keep the best responses to each prompt, as Parquet.

    From a prompt file it makes the pool beside the output (or resumes it); from a pool it reads
    only: trying another strategy costs no GPU time.
    """
    from bon.cli.closing import describe, finish, making_steps
    from bon.cli.curation import card_facts, publish, run_seed
    from bon.cli.output import plan_output
    from bon.cli.places import check_apart, check_places, default_pool, is_pool
    from bon.cli.stages import Made, make_pool
    from bon.pipeline.export import write_set
    from bon.pipeline.ranked import ranking_scorer
    from bon.pipeline.select import Selector, check_selection
    from bon.pool.pool import Pool

    settings = call.settings(SelectSettings)
    from_pool = is_pool(call.source)
    check_selection(settings)
    call.refuse_for_strategy(_OWN_FLAGS, settings.strategy)
    output = plan_output(call, "responses", "best")
    root = Path(call.source) if from_pool else call.settings(RunSettings).pool
    root = root or default_pool(call.source, output.path)
    check_apart(root, *output.places)
    if from_pool:
        idle = (InputSettings, GenerateSettings, ScoreSettings, RunSettings)
        call.refuse_for_pool({"limit", "seed", "max_drops", "engine"}, *idle)
        scorer = ranking_scorer(Pool.open(root), settings.rank_by)
    else:
        check_places(call.source, root, *output.places)
        scorer = _scorer_to_be(call, root, settings.rank_by)
    if call.dry_run:
        steps = [] if from_pool else making_steps(call, root)
        steps += [f"score with {spec}" for spec in _rewards(call) if not from_pool]
        groups: list[type[Settings]] = (
            [SelectSettings, ExportSettings] if from_pool else list(GROUPS)
        )
        describe(call, root, groups, [*steps, f"select {settings.strategy} to {output.path}"])
        return
    made = Made(Pool.open(root)) if from_pool else make_pool(call, root, with_scores=True)
    seed = run_seed(call, made)
    limit = call.settings(InputSettings).limit
    selector = Selector(made.pool, settings, scorer=scorer, seed=seed, limit=limit)
    report = selector.report
    written = write_set(
        selector.tables(),
        selector.schema,
        output.kind,
        output.form,
        output.export,
        output=output.path,
        seed=seed,
        books=report.accounting,
        card=lambda: card_facts(
            call, made, report.as_json(), settings.model_dump(mode="json", exclude_unset=True)
        ),
    )
    result = {**report.as_json(), **publish(call, output.export, output.path, written)}
    finish(call, made, f"{report.strategy} by {report.scorer}", report.accounting, result)


def _rewards(call: Invocation) -> tuple[str, ...]:
    return call.settings(ScoreSettings).reward


def _scorer_to_be(call: Invocation, root: Path, rank_by: str | None) -> str:
    """Name before any engine work the scorer that will rank: the run's one, or --rank-by."""
    from bon.cli.build import scorer_settings
    from bon.cli.idle_flags import refuse_idle_flags
    from bon.pool.layout import PoolLayout

    scorers = scorer_settings(call.settings(ScoreSettings))
    refuse_idle_flags(call, scorers)
    names = [one.name for one in scorers]
    known = {*names, *PoolLayout(root).scorer_names()}
    if rank_by is None and len(names) > 1:
        raise SettingsError(
            "there are several scorers",
            why=", ".join(names),
            next_step="name the one that ranks with --rank-by",
        )
    if rank_by is not None and rank_by not in known:
        raise SettingsError(
            f"there is no scorer {rank_by!r}", next_step=did_you_mean(rank_by, known)
        )
    return rank_by or names[0]
