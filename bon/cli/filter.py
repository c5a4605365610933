"""`bon filter`."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from bon.cli.app import app, guarded
from bon.cli.flags import Invocation, command
from bon.config import GROUPS as COMMAND_GROUPS
from bon.config import (
    ExportSettings,
    GenerateSettings,
    InputSettings,
    RankingSettings,
    ResponseSettings,
    RunSettings,
    ScoreSettings,
    Settings,
)

if TYPE_CHECKING:
    from bon.cli.filter_plan import FilterPlan
    from bon.cli.stages import Made
    from bon.pipeline.export import Written
    from bon.pipeline.filtering.plan import Decision
    from bon.pipeline.recipes import Recipe
    from bon.pool.snapshot import Snapshot
    from bon.protocols import Mapper

GROUPS = COMMAND_GROUPS["filter"]


@command(
    app,
    "filter",
    *GROUPS,
    source_help="Pool, a dataset that has responses or preference pairs, or a prompt file.",
    output_help="File (.parquet, .jsonl, .csv) or folder to write; by default "
    "NAME.filtered.parquet.",
    examples=[
        "bon filter prompts.pool --min-reward 0.5 --filter length:max_tokens=400 --dedup near",
        "bon filter prompts.pool --filter difficulty:min=0.2,max=0.8,scorer=rule-math",
        "bon filter pairs.parquet -r org/reward-model --min-agreement-prob 0.6 -o clean.parquet",
        "bon filter sft.jsonl --source-kind responses --decontaminate gsm8k_test.jsonl",
        "bon filter pairs.parquet --config filters.toml --format llama-factory -o pairs/",
    ],
    panel="Pipelines",
    run=guarded,
)
def filter_(call: Invocation) -> None:
    """Filtered set: keep the responses or preference pairs that pass every filter, in order.

    From a pool it reads only. What each filter kept and dropped is counted; --dropped writes the
    dropped rows with the filter and the reason.
    """
    from bon.cli.closing import finish
    from bon.cli.curation import publish, ready_pool, run_seed
    from bon.cli.filter_plan import plan_filters, rows_of
    from bon.cli.mappers import make_mapper
    from bon.cli.ranking import refuse_across_prompts
    from bon.durable import scratch_folder
    from bon.pipeline.filtering.plan import run_filters
    from bon.pipeline.filtering.steps import READ_WORDING
    from bon.pipeline.rewards import fit_ranking
    from bon.pool.snapshot import unchanged

    plan = plan_filters(call)
    if call.dry_run:
        _describe(call, plan)
        return
    with ExitStack() as stack:
        root = plan.root
        if plan.is_scratch:
            root = stack.enter_context(scratch_folder(plan.output.path)) / "pool"
        made = ready_pool(call, plan.kind, root, group=False, with_scores=plan.with_scores)
        snapshot = stack.enter_context(unchanged(made.pool))
        seed = run_seed(call, made)
        limit = call.settings(InputSettings).limit
        recipe = _recipe(call, plan, made)
        refuse_across_prompts(recipe, "bon filter")
        is_slow = any(one.name in READ_WORDING for one in plan.filters)
        mapper = stack.enter_context(make_mapper(call, made.pool, limit, is_slow=is_slow))
        ranking = None if recipe is None else fit_ranking(made.pool, recipe, limit, mapper)
        decision = run_filters(
            made.pool,
            plan.filters,
            kind=plan.units,
            ranking=ranking,
            limit=limit,
            seed=seed,
            mapper=mapper,
        )
        written = _write(call, plan, made, decision, snapshot, seed, mapper)
    report = decision.report
    result = {**report.as_json(), **publish(call, plan.output.export, plan.output.path, written)}
    result |= {} if ranking is None else {"ranking": ranking.as_json()}
    if plan.settings.dropped is not None:
        result["dropped"] = str(plan.settings.dropped)
    title = f"filtered {rows_of(plan.units)}" + (
        f", scores of {report.scorer}" if report.scorer else ""
    )
    finish(call, made, title, report.accounting, result, is_scratch=plan.is_scratch)


def _describe(call: Invocation, plan: FilterPlan) -> None:
    """Answer --dry-run."""
    from bon.cli.closing import describe
    from bon.cli.curation import step_texts

    steps = step_texts(call, plan.kind, plan.root, with_scores=plan.with_scores)
    if plan.is_scratch:
        steps = [f"read {plan.kind} from {call.source}"]
    steps += [
        f"filter by {one.name}: {one.model_dump_json(exclude_unset=True)}" for one in plan.filters
    ]
    steps.append(f"write what is left to {plan.output.path}")
    if plan.settings.dropped is not None:
        steps.append(f"write what is not to {plan.settings.dropped}")
    idle: set[type[Settings]] = set() if plan.with_scores else {ScoreSettings}
    idle |= set() if plan.kind == "prompts" else {GenerateSettings}
    if plan.kind == "pool":
        idle |= {InputSettings, ResponseSettings, RunSettings}
    describe(
        call,
        None if plan.is_scratch else plan.root,
        [group for group in GROUPS if group not in idle],
        steps,
    )


def _write(
    call: Invocation,
    plan: FilterPlan,
    made: Made,
    decision: Decision,
    snapshot: Snapshot,
    seed: int,
    mapper: Mapper | None,
) -> Written:
    """Write what stays, and what was dropped where that is wanted; both appear at the end.

    Both are of one state of the pool, which is looked at once all is written.
    """
    from bon.cli.curation import card_facts
    from bon.cli.filter_plan import rows_of
    from bon.pipeline.export import NativeSet, staged_set
    from bon.pipeline.filtering.output import OutputColumns, dropped_tables, kept_tables

    pool, books, rows = made.pool, decision.report.accounting, rows_of(plan.units)
    columns = OutputColumns(pool, decision, mapper)
    method: dict[str, Any] = {"filters": [one.as_json() for one in plan.filters]}
    if decision.ranking is not None:
        method["ranking"] = decision.ranking.as_json()
    with ExitStack() as stack:
        if plan.settings.dropped is not None:
            with_reasons = columns.with_reasons()
            tables = dropped_tables(pool, decision, with_reasons, mapper)
            dropped = NativeSet(tables, with_reasons.schema, rows, books)
            place = plan.settings.dropped
            stack.enter_context(
                staged_set(dropped, place, plan.native, ExportSettings(), seed=seed)
            )
        kept = NativeSet(
            kept_tables(pool, decision, columns, mapper),
            columns.schema,
            rows,
            books,
            card=lambda: card_facts(call, made, decision.report.as_json(), method),
        )
        output = plan.output
        written = stack.enter_context(
            staged_set(kept, output.path, output.form, output.export, seed=seed)
        )
        snapshot.check()
    return written


def _recipe(call: Invocation, plan: FilterPlan, made: Made) -> Recipe | None:
    """Decide what ranks: of pairs the input's own scores first, else those of this call."""
    from bon.cli.build import scorer_settings
    from bon.cli.console import note
    from bon.cli.filter_plan import new_scorers
    from bon.cli.ranking import recipe_to_be
    from bon.pipeline.given import GIVEN_SCORER
    from bon.pipeline.ranked import pool_recipe, scorer_names

    names, settings = scorer_names(made.pool), call.settings(RankingSettings)
    new = new_scorers(call) if plan.with_scores else []
    is_open = settings.is_plain and settings.rank_by is None
    if is_open and plan.units == "pairs" and GIVEN_SCORER in names:
        if new:
            note(
                f"the pairs' own scores rank and are written; --rank-by {new[0]} takes the "
                "model's, agreement does so anyway",
                quiet=call.quiet,
            )
        return pool_recipe(made.pool, settings, first=GIVEN_SCORER)
    if is_open and len(new) == 1 and new[0] in names:
        return pool_recipe(made.pool, settings, first=new[0])
    if new and not is_open:
        scorers = scorer_settings(call.settings(ScoreSettings))
        return recipe_to_be(call, scorers, made.pool.layout.root)
    return pool_recipe(made.pool, settings) if names or not is_open else None
