"""`bon filter`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bon.cli.app import app, guarded
from bon.cli.flags import Invocation, command
from bon.config import GROUPS as COMMAND_GROUPS
from bon.config import (
    ExportSettings,
    FilterCommandSettings,
    GenerateSettings,
    InputSettings,
    ResponseSettings,
    RunSettings,
    ScoreSettings,
    Settings,
)

if TYPE_CHECKING:
    from bon.cli.stages import Made
    from bon.config.filters import FilterSettings
    from bon.exports.formats import Kind

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
        "bon filter sft.jsonl --decontaminate gsm8k_test.jsonl --dropped dropped.jsonl",
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
    from bon.cli.closing import describe, finish
    from bon.cli.curation import card_facts, check_upload, publish, ready_pool, run_seed, step_texts
    from bon.cli.places import check_places, default_pool, input_stem, source_kind
    from bon.durable import scratch_folder
    from bon.exports.formats import choose_format
    from bon.exports.target import check_output
    from bon.pipeline.export import write_set
    from bon.pipeline.filtering.output import OutputColumns, dropped_tables, kept_tables
    from bon.pipeline.filtering.plan import run_filters

    settings, export = call.settings(FilterCommandSettings), call.settings(ExportSettings)
    filters = _filters(call, settings)
    kind = source_kind(call)
    pairs = kind == "pairs" or (kind == "pool" and _holds_pairs(Path(call.source)))
    rows: Kind = "pairs" if pairs else "responses"
    form = choose_format(export.format, rows)
    output = call.output or Path(f"{input_stem(call.source)}.filtered.parquet")
    check_output(output, form)
    check_upload(export, output)
    if settings.dropped is not None:
        check_output(settings.dropped, choose_format("bon", rows))
    with_scores = kind == "prompts" or (kind != "pool" and call.given("reward"))
    is_scratch = kind in ("responses", "pairs") and not with_scores and not call.given("pool")
    root = Path(call.source) if kind == "pool" else call.settings(RunSettings).pool
    root = root or default_pool(call.source, output)
    if kind == "pool":
        idle = (InputSettings, ResponseSettings, GenerateSettings, ScoreSettings, RunSettings)
        call.refuse_for_pool({"limit", "seed", "max_drops", "engine"}, *idle)
    else:
        check_places(call.source, output, root, *filter(None, [settings.dropped]))
    if call.dry_run:
        steps = step_texts(call, kind, root, with_scores=with_scores)
        steps += [f"filter by {one.name}: {one.model_dump_json(exclude_unset=True)}"
                  for one in filters]  # fmt: skip
        groups: list[type[Settings]] = (
            [FilterCommandSettings, ExportSettings] if kind == "pool" else list(GROUPS)
        )
        describe(call, root, groups, [*steps, f"write what is left to {output}"])
        return
    limit = call.settings(InputSettings).limit
    with ExitStack() as stack:
        if is_scratch:
            root = stack.enter_context(scratch_folder(output)) / "pool"
        made = ready_pool(call, kind, root, group=False, with_scores=with_scores)
        seed = run_seed(call, made)
        decision = run_filters(
            made.pool,
            filters,
            kind="pairs" if pairs else "candidates",
            scorer=_scorer(call, made, settings.rank_by, pairs=pairs),
            limit=limit,
            seed=seed,
        )
        books = decision.report.accounting
        if settings.dropped is not None:
            columns = OutputColumns(made.pool, decision.kind, limit, dropped=True)
            tables = dropped_tables(made.pool, decision, columns)
            write_set(tables, columns.schema, rows, choose_format("bon", rows), ExportSettings(),
                      output=settings.dropped, seed=seed, books=books)  # fmt: skip
        columns = OutputColumns(made.pool, decision.kind, limit)
        written = write_set(
            kept_tables(made.pool, decision, columns),
            columns.schema,
            rows,
            form,
            export,
            output=output,
            seed=seed,
            books=books,
            card=lambda: card_facts(
                call, made, decision.report.as_json(), {"filters": [f.as_json() for f in filters]}
            ),
        )
    result = {**decision.report.as_json(), **publish(call, export, output, written)}
    if settings.dropped is not None:
        result["dropped"] = str(settings.dropped)
    title = f"filtered {rows}"
    finish(call, made, title, books, result, is_scratch=is_scratch)


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
    named = _reward_name(call)
    return [
        one.model_copy(update={"scorer": named})
        if one.name == "agreement" and named is not None and getattr(one, "scorer", None) is None
        else one
        for one in filters
    ]


def _reward_name(call: Invocation) -> str | None:
    """Name the one scorer of this call, where -r names just one."""
    from bon.cli.build import scorer_settings

    if not call.given("reward"):
        return None
    names = [one.name for one in scorer_settings(call.settings(ScoreSettings))]
    return names[0] if len(names) == 1 else None


def _holds_pairs(root: Path) -> bool:
    from bon.pool.pool import Pool

    return Pool.open(root).manifest.input.get("kind") == "pairs"


def _scorer(call: Invocation, made: Made, rank_by: str | None, *, pairs: bool) -> str | None:
    """Name the scores that rank: of pairs the input's own first, else those of this call."""
    from bon.pipeline.given import GIVEN_SCORER
    from bon.pipeline.ranked import ranking_scorer, scorer_names

    names = scorer_names(made.pool)
    if rank_by is None and pairs and GIVEN_SCORER in names:
        return GIVEN_SCORER
    if rank_by is None and _reward_name(call) in names:
        return _reward_name(call)
    return ranking_scorer(made.pool, rank_by) if names or rank_by is not None else None
