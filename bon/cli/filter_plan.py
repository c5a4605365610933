"""What one call of `bon filter` is going to do, checked before any work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bon.cli.flags import Invocation
from bon.config import (
    FilterCommandSettings,
    GenerateSettings,
    InputSettings,
    RankingSettings,
    ResponseSettings,
    RunSettings,
    ScoreSettings,
)
from bon.errors import SettingsError
from bon.places import Place, place

if TYPE_CHECKING:
    from bon.cli.output import OutputPlan
    from bon.cli.places import SourceKind
    from bon.config.filters import FilterSettings
    from bon.exports.formats import Format, Kind
    from bon.pipeline.filtering.units import Kind as UnitKind

__all__ = ["FilterPlan", "new_scorers", "plan_filters", "rows_of"]


@dataclass(frozen=True)
class FilterPlan:
    """What one call is going to do, checked before any work."""

    settings: FilterCommandSettings
    kind: SourceKind
    units: UnitKind
    filters: list[FilterSettings]
    native: Format
    output: OutputPlan
    root: Place
    with_scores: bool
    is_scratch: bool
    """Whether the pool is only a means, and gone in the end."""


def plan_filters(call: Invocation) -> FilterPlan:
    """Find before any work what would stop the run."""
    from bon.cli.build import scorer_settings
    from bon.cli.idle_flags import refuse_idle_flags
    from bon.cli.output import plan_output
    from bon.cli.places import default_pool, source_kind
    from bon.cli.ranking import check_ranking
    from bon.exports.formats import choose_format
    from bon.exports.target import check_output

    settings = call.settings(FilterCommandSettings)
    check_ranking(call)
    _refuse_gates(call)
    kind = source_kind(call)
    if kind == "prompts":
        _refuse_answered(call)
    pairs = kind == "pairs" or (kind == "pool" and _holds_pairs(place(call.source)))
    units: UnitKind = "pairs" if pairs else "candidates"
    filters = _filters(call, settings)
    output = plan_output(call, rows_of(units), "filtered")
    native = choose_format("bon", rows_of(units))
    if settings.dropped is not None:
        check_output(settings.dropped, native)
    with_scores = _wants_scores(call, kind, filters)
    given_root = place(call.source) if kind == "pool" else call.settings(RunSettings).pool
    plan = FilterPlan(
        settings=settings,
        kind=kind,
        units=units,
        filters=filters,
        native=native,
        output=output,
        root=given_root or default_pool(call.source, output.path),
        with_scores=with_scores,
        is_scratch=given_root is None and kind != "prompts" and not with_scores,
    )
    _check_places(call, plan)
    refuse_idle_flags(
        call, scorer_settings(call.settings(ScoreSettings)) if plan.with_scores else []
    )
    _check_filters(call, plan)
    return plan


def rows_of(units: UnitKind) -> Kind:
    """Name what rows of these units are."""
    return "pairs" if units == "pairs" else "responses"


def _holds_pairs(root: Place) -> bool:
    from bon.pool.pool import Pool

    return Pool.open(root).manifest.input.get("kind") == "pairs"


def _refuse_answered(call: Invocation) -> None:
    """Refuse to sample for rows that have an answer already, unless that is asked for.

    Raises:
        SettingsError: the rows end with an answer, and nothing says what they are.
        InputError: no row can be read.
    """
    from bon.sources.responses import has_answers

    responses = call.settings(ResponseSettings)
    if responses.source_kind != "auto":
        return
    if has_answers(call.source, call.settings(InputSettings), responses):
        raise SettingsError(
            "the rows have an answer, but such files are as often prompts",
            where=call.source,
            next_step="give --source-kind responses to filter these answers, or --source-kind "
            "prompts to sample new ones",
        )


def _wants_scores(call: Invocation, kind: SourceKind, filters: list[FilterSettings]) -> bool:
    """Tell whether to score: a reward that is only in the environment or a file must be needed."""
    from bon.pipeline.filtering.steps import NEED_SCORES

    if kind in ("prompts", "pool"):
        return kind == "prompts"
    needed = any(one.name in NEED_SCORES for one in filters)
    return "reward" in call.typed or (needed and call.given("reward"))


def _check_places(call: Invocation, plan: FilterPlan) -> None:
    """Refuse files that would overwrite each other, the input or the pool."""
    from bon.cli.engines import check_engine, check_workers
    from bon.cli.mappers import CURATING_FIELDS
    from bon.cli.places import check_apart, check_places
    from bon.cli.repairing import restore_pool

    written = plan.output.places
    dropped = plan.settings.dropped
    if dropped is not None:
        kept = [path.resolve() for path in written]
        if any(dropped.resolve() == one or dropped.resolve() in one.parents for one in kept) or any(
            one in dropped.resolve().parents for one in kept
        ):
            raise SettingsError(
                "the kept rows and the dropped ones would overwrite each other",
                where=str(dropped),
                next_step="give --dropped another place than -o",
            )
        written.append(dropped)
    if plan.kind == "pool":
        idle = (InputSettings, ResponseSettings, GenerateSettings, ScoreSettings, RunSettings)
        call.refuse_for_pool({"limit", "seed", "max_drops", *CURATING_FIELDS}, *idle)
        check_workers(call)
    else:
        check_places(call.source, *written, *([] if plan.is_scratch else [plan.root]))
        restore_pool(call, plan.root)
        check_engine(call, plan.kind, with_scores=plan.with_scores)
    if not plan.is_scratch:
        check_apart(plan.root, *written)


def _check_filters(call: Invocation, plan: FilterPlan) -> None:
    """Find what the filters lack, as far as it can be known before the input is read.

    Raises:
        SettingsError: a filter for other rows, scores that will not be there, or a file, a
            language or a library that is not.
    """
    from bon.cli.ranking import refuse_across_prompts
    from bon.pipeline.filtering.steps import check_filters, check_kinds, compile_filter
    from bon.pipeline.ranked import pool_recipe, scorer_names
    from bon.pool.pool import Pool

    check_kinds(plan.filters, plan.units)
    if plan.kind == "pool":
        pool = Pool.open(plan.root)
        names = scorer_names(pool)
        recipe = pool_recipe(pool, call.settings(RankingSettings)) if names else None
        refuse_across_prompts(recipe, "bon filter")
        scorer = None if recipe is None else recipe.name
        check_filters(plan.filters, kind=plan.units, scorer=scorer, scorers=names)
    elif plan.with_scores:
        scorer = _scorer_to_be(call, plan)
        for one in plan.filters:
            compile_filter(one, scorer, 0)


def _scorer_to_be(call: Invocation, plan: FilterPlan) -> str | None:
    """Name the scorer that will rank, none where only the input's own scores can tell."""
    from bon.cli.build import scorer_settings
    from bon.cli.ranking import recipe_to_be, refuse_across_prompts
    from bon.pipeline.filtering.steps import check_filters
    from bon.pool.layout import PoolLayout

    scorers = scorer_settings(call.settings(ScoreSettings))
    ranking = call.settings(RankingSettings)
    known = PoolLayout(plan.root).scorer_names() if plan.kind == "prompts" else []
    if plan.units == "pairs" and ranking.is_plain:
        # the pairs' own scores may rank
        name = ranking.rank_by or (scorers[0].name if len(scorers) == 1 else None)
    elif plan.kind == "prompts" or ranking.rank_by is None:
        root = plan.root if plan.kind == "prompts" else None
        recipe = recipe_to_be(call, scorers, root)
        refuse_across_prompts(recipe, "bon filter")
        name = recipe.name
    else:
        name = ranking.rank_by  # the input may have brought it
    if plan.kind == "prompts":
        names = sorted({*(one.name for one in scorers), *known})
        check_filters(plan.filters, kind=plan.units, scorer=name, scorers=names)
    return name


def _refuse_gates(call: Invocation) -> None:
    """A gate keeps candidates from being chosen; what drops rows here is a filter, and is counted.

    Raises:
        SettingsError: one was given.
    """
    if call.settings(RankingSettings).gate:
        raise SettingsError(
            "--gate is for commands that choose",
            next_step="filter by that score: --filter reward:scorer=NAME,min=SCORE",
        )


def new_scorers(call: Invocation) -> list[str]:
    """Name the scorers that -r says."""
    from bon.cli.build import scorer_settings

    return [one.name for one in scorer_settings(call.settings(ScoreSettings))]


def _filters(call: Invocation, settings: FilterCommandSettings) -> list[FilterSettings]:
    """Return the filters in order: --filter first, then those that have a flag of their own."""
    from bon.config.filters import parse_filter

    short: list[dict[str, Any]] = []
    if settings.min_reward is not None:
        short.append({"name": "reward", "min": settings.min_reward})
    if settings.dedup is not None:
        short.append({"name": f"{settings.dedup}_dedup"})
    if settings.decontaminate:
        short.append({"name": "decontaminate", "files": settings.decontaminate})
    if settings.min_agreement_prob is not None:
        short.append({"name": "agreement", "min_prob": settings.min_agreement_prob})
    if settings.diversity is not None:
        short.append({"name": "diversity", "threshold": settings.diversity})
    filters = [parse_filter(one) for one in (*settings.filter, *short)]
    rank_by = call.settings(RankingSettings).rank_by
    return [_with_model(call, one, rank_by) for one in filters]


def _with_model(call: Invocation, one: FilterSettings, rank_by: str | None) -> FilterSettings:
    """Let `agreement` ask the model of -r: the input's own scores may be what made the labels.

    Raises:
        SettingsError: there are several models, and none is named.
    """
    if one.name != "agreement" or getattr(one, "scorer", None) or not call.given("reward"):
        return one
    names = new_scorers(call)
    if rank_by is None and len(names) > 1:
        raise SettingsError(
            "there are several scorers to agree with",
            why=", ".join(names),
            next_step="name one: --filter agreement:scorer=NAME,min_prob=…",
        )
    return one.model_copy(update={"scorer": rank_by or names[0]})
