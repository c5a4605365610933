"""Flags and the config file: each value, and what goes together."""

from __future__ import annotations

from collections.abc import Iterator

from bon.cli.build import scorer_settings
from bon.cli.idle_flags import refuse_idle_flags
from bon.cli.ranking import check_ranking, recipe_to_be
from bon.cli.validation.plan import Note, PlannedRun, ok, skipped
from bon.cli.validation.pools import manifest_to_restore
from bon.config import GROUPS, RankingSettings, ScoreSettings
from bon.config.base import bad_values
from bon.errors import BonError
from bon.pipeline.ranked import pool_recipe
from bon.pool.pool import Pool

__all__ = ["check_ranking_flags", "check_settings"]


def check_settings(run: PlannedRun) -> Iterator[Note | BonError]:
    """Resolve every group of settings; each value that cannot be is told."""
    call = run.call
    wrong = [
        error
        for group in GROUPS["validate"]
        for error in bad_values(group, call.file_values, call.flags)
    ]
    yield from wrong
    if not wrong:
        yield ok("all values can be used")


def check_ranking_flags(run: PlannedRun) -> Iterator[Note | BonError]:
    """Take the scorers' specs apart, and decide what would rank where a set is written."""
    call = run.call
    if not run.has_scoring and run.kind != "pool":
        yield skipped("no scorer: the responses are taken as they are; -r adds one")
        return
    if run.has_scoring:
        run.scorers = scorer_settings(call.settings(ScoreSettings))
        refuse_idle_flags(call, run.scorers)
    check_ranking(call)
    if (
        run.root is None
        or run.kind is None
        or not (run.output or call.typed & set(RankingSettings.model_fields))
    ):
        return
    if manifest_to_restore(run) is not None:
        yield skipped("what ranks is decided when --repair has put pool.json back")
    elif run.kind == "pool" and not run.scorers:
        run.recipe = pool_recipe(Pool.open(run.root), call.settings(RankingSettings))
    elif run.kind in ("prompts", "pool"):
        run.recipe = recipe_to_be(call, run.scorers, run.root)
    if run.recipe is not None:
        yield ok(f"ranked by {run.recipe.name}")
