"""`bon convert`."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from bon.cli.app import app, guarded
from bon.cli.flags import Invocation, command
from bon.config import GROUPS as COMMAND_GROUPS
from bon.config import (
    ExportSettings,
    InputSettings,
    ResponseSettings,
    RunSettings,
)
from bon.errors import SettingsError, UnknownChoiceError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa

    from bon.cli.stages import Made
    from bon.exports.formats import Format, Kind
    from bon.pipeline.accounting import Accounting
    from bon.places import Place

GROUPS = COMMAND_GROUPS["convert"]


@command(
    app,
    "convert",
    *GROUPS,
    source_help="Dataset of preference pairs, responses or prompts, in any known form.",
    output_help="File (.parquet, .jsonl, .csv) or folder to write; by default NAME.FORMAT.parquet.",
    examples=[
        "bon convert ultrafeedback.parquet --format llama-factory -o pairs/",
        "bon convert best.parquet --format trl-sft -o sft.jsonl",
        "bon convert pairs.parquet --format nemo-rl -o train.jsonl --train-test-split 0.1",
        "bon convert gsm8k.jsonl --format verl",
        "HF_TOKEN=… bon convert pairs.parquet -o pairs/ --push-to-hub org/pairs",
    ],
    panel="Pipelines",
    run=guarded,
)
def convert(call: Invocation) -> None:
    """Convert a set into the form that a trainer takes, or into bon's own.

    Every row is read, checked and counted as in the other commands; no model is loaded.
    """
    from bon.cli.closing import describe, finish
    from bon.cli.curation import card_facts, publish
    from bon.cli.engines import check_engine
    from bon.cli.output import plan_output
    from bon.cli.places import check_apart, check_places, source_kind
    from bon.durable import scratch_folder
    from bon.pipeline.export import NativeSet, write_set

    rows = source_kind(call)
    if rows == "pool":
        raise SettingsError(
            "the source is a pool",
            where=call.source,
            next_step="make a set of it: `bon filter POOL --format FORMAT`, `bon select POOL` or "
            "`bon build-dpo POOL --format FORMAT`",
        )
    check_engine(call, rows, with_scores=False)
    form = _choose_format(call, call.settings(ExportSettings).format, rows)
    output = plan_output(call, rows, form.name, form)
    root = call.settings(RunSettings).pool
    is_scratch = root is None
    check_places(call.source, *output.places, *([] if root is None else [root]))
    if root is not None:
        check_apart(root, *output.places)
    if call.dry_run:
        steps = [f"read {rows} from {call.source}", f"write them as {form.name} to {output.path}"]
        describe(call, root, list(GROUPS), steps)
        return
    with ExitStack() as stack:
        if root is None:
            root = stack.enter_context(scratch_folder(output.path)) / "pool"
        made, schema, tables, books = _read(call, rows, root)
        card = lambda: card_facts(call, made, books.as_json(), {})  # noqa: E731
        native = NativeSet(tables, schema, rows, books, card)
        written = write_set(native, output.path, form, output.export, seed=0)
    result: dict[str, Any] = {
        **books.as_json(),
        "kind": rows,
        "format": form.name,
        **publish(call, output.export, output.path, written),
    }
    finish(call, made, f"{rows} as {form.name}", books, result, is_scratch=is_scratch)


def _choose_format(call: Invocation, name: str, rows: Kind) -> Format:
    """Return the form; where only the rows' answers could make it, say how they are read."""
    from bon.exports.formats import choose_format
    from bon.sources.responses import has_answers

    try:
        return choose_format(name, rows)
    except UnknownChoiceError:
        raise
    except SettingsError as error:
        responses = call.settings(ResponseSettings)
        may_be_both = rows == "prompts" and responses.source_kind == "auto"
        if may_be_both and has_answers(call.source, call.settings(InputSettings), responses):
            error.next_step = "give --source-kind responses: the rows have an answer"
        raise


def _read(
    call: Invocation, rows: Kind, root: Place
) -> tuple[Made, pa.Schema, Iterable[pa.Table], Accounting]:
    """Return the pool, and its rows as native tables with their books."""
    from bon.cli.build import prompts_plan
    from bon.cli.console import note
    from bon.cli.stages import Made, given_pool
    from bon.pipeline.filtering.output import OutputColumns, kept_tables
    from bon.pipeline.filtering.plan import run_filters
    from bon.pipeline.filtering.units import Kind as UnitKind
    from bon.pipeline.given import GIVEN_SCORER
    from bon.pipeline.prompts import PromptSet, prompts_pool
    from bon.pipeline.ranked import scorer_names
    from bon.pipeline.rewards import Ranking

    inputs, run = call.settings(InputSettings), call.settings(RunSettings)
    limit = inputs.limit
    if rows == "prompts":
        plan = prompts_plan(call.source, inputs, run.part_size)
        pool = prompts_pool(root, plan)
        note(f"{plan.name}: {plan.rows.describe()}", quiet=call.quiet)
        prompts = PromptSet(pool, limit)
        return Made(pool), prompts.schema, prompts.tables(), prompts.accounting
    made = given_pool(call, root, group=False, with_scores=False)
    ranking = Ranking.of(GIVEN_SCORER) if GIVEN_SCORER in scorer_names(made.pool) else None
    units: UnitKind = "pairs" if rows == "pairs" else "candidates"
    decision = run_filters(made.pool, [], kind=units, ranking=ranking, limit=limit, seed=0)
    columns = OutputColumns(made.pool, decision)
    tables = kept_tables(made.pool, decision, columns)
    return made, columns.schema, tables, decision.report.accounting
