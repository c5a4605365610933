"""`bon select`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bon.cli.app import app, guarded
from bon.cli.flags import Invocation, command
from bon.config import GROUPS as COMMAND_GROUPS
from bon.config import (
    ExportSettings,
    GenerateSettings,
    InputSettings,
    RankingSettings,
    RunSettings,
    ScoreSettings,
    SelectSettings,
    Settings,
)
from bon.places import Place, place

if TYPE_CHECKING:
    from bon.pipeline.recipes import Recipe

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
    from bon.cli.engines import check_engine, check_workers
    from bon.cli.mappers import CURATING_FIELDS, make_mapper
    from bon.cli.output import plan_output
    from bon.cli.places import check_apart, check_places, default_pool, is_pool
    from bon.cli.ranking import check_ranking, refuse_across_prompts
    from bon.cli.repairing import restore_pool
    from bon.cli.stages import Made, make_pool
    from bon.pipeline.export import NativeSet, write_set
    from bon.pipeline.ranked import pool_recipe
    from bon.pipeline.rewards import fit_ranking
    from bon.pipeline.select import Selector, check_selection
    from bon.pool.pool import Pool
    from bon.pool.snapshot import unchanged

    settings = call.settings(SelectSettings)
    from_pool = is_pool(call.source)
    check_selection(settings)
    check_ranking(call)
    call.refuse_for_strategy(_OWN_FLAGS, settings.strategy)
    output = plan_output(call, "responses", "best")
    root = place(call.source) if from_pool else call.settings(RunSettings).pool
    root = root or default_pool(call.source, output.path)
    check_apart(root, *output.places)
    if from_pool:
        idle = (InputSettings, GenerateSettings, ScoreSettings, RunSettings)
        call.refuse_for_pool({"limit", "seed", "max_drops", *CURATING_FIELDS}, *idle)
        check_workers(call)
        recipe = pool_recipe(Pool.open(root), call.settings(RankingSettings))
    else:
        check_places(call.source, root, *output.places)
        restore_pool(call, root)
        check_engine(call, "prompts", with_scores=True)
        recipe = _recipe_to_be(call, root)
    if settings.strategy == "threshold":
        refuse_across_prompts(recipe, "--strategy threshold")
    if call.dry_run:
        steps = [] if from_pool else making_steps(call, root)
        steps += [f"score with {spec}" for spec in _rewards(call) if not from_pool]
        groups: list[type[Settings]] = (
            [RankingSettings, SelectSettings, ExportSettings] if from_pool else list(GROUPS)
        )
        describe(call, root, groups, [*steps, f"select {settings.strategy} to {output.path}"])
        return
    made = Made(Pool.open(root)) if from_pool else make_pool(call, root, with_scores=True)
    seed = run_seed(call, made)
    limit = call.settings(InputSettings).limit
    with (
        unchanged(made.pool) as snapshot,
        make_mapper(call, made.pool, limit) as mapper,
    ):
        ranking = fit_ranking(made.pool, recipe, limit, mapper)
        selector = Selector(
            made.pool, settings, ranking=ranking, seed=seed, limit=limit, mapper=mapper
        )
        report = selector.report
        rows = NativeSet(
            snapshot.through(selector.tables()),
            selector.schema,
            output.kind,
            report.accounting,
            card=lambda: card_facts(
                call,
                made,
                report.as_json(),
                settings.model_dump(mode="json", exclude_unset=True)
                | {"ranking": ranking.as_json()},
            ),
        )
        written = write_set(rows, output.path, output.form, output.export, seed=seed)
    result = {**report.as_json(), "ranking": ranking.as_json()}
    result |= publish(call, output.export, output.path, written)
    finish(call, made, f"{report.strategy} by {report.scorer}", report.accounting, result)


def _rewards(call: Invocation) -> tuple[str, ...]:
    return call.settings(ScoreSettings).specs


def _recipe_to_be(call: Invocation, root: Place) -> Recipe:
    """Decide before any engine work what will rank: the run's scorers, or those that are named."""
    from bon.cli.build import scorer_settings
    from bon.cli.idle_flags import refuse_idle_flags
    from bon.cli.ranking import recipe_to_be

    scorers = scorer_settings(call.settings(ScoreSettings))
    refuse_idle_flags(call, scorers)
    return recipe_to_be(call, scorers, root)
