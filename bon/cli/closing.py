"""How a command ends: the plan of a dry run, or the books, the table and the exit code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import typer

from bon.cli.build import scorer_settings
from bon.cli.console import note, print_path
from bon.cli.flags import Invocation
from bon.cli.stages import Made
from bon.config import (
    GenerateSettings,
    InputSettings,
    RunSettings,
    ScorerSettings,
    ScoreSettings,
    Settings,
)
from bon.pipeline.accounting import Accounting, drops_allowed
from bon.pipeline.ranked import count_sampled, open_books
from bon.places import Place
from bon.pool.layout import PoolLayout
from bon.redaction import redacted_values
from bon.report.tables import closing_table
from bon.shown import json_text, printable, shown
from bon.standard_streams import result_is_complete

__all__ = ["check_drops", "describe", "finish", "finish_pool", "making_steps"]


def making_steps(call: Invocation, root: Place) -> list[str]:
    """Say what reading and generating would do."""
    generation = call.settings(GenerateSettings)
    return [
        f"read prompts from {call.source} into {root}",
        f"generate {generation.num_candidates} candidates per prompt with {generation.model}",
    ]


def describe(
    call: Invocation, root: Place | None, groups: list[type[Settings]], steps: list[str]
) -> None:
    """Answer `--dry-run`: the steps, the resolved settings, and what the pool holds already.

    `root` is none where the pool is only a means, and gone in the end.
    """
    settings: dict[str, Any] = {}
    for group in groups:
        resolved = call.settings(group)
        if isinstance(resolved, ScoreSettings):
            settings["scorers"] = [_described(one) for one in scorer_settings(resolved)]
        else:
            settings |= resolved.model_dump(mode="json")
    if RunSettings in groups:
        _note_not_looked_at(call)
    settings["pool"] = None if root is None else str(root)
    state = {} if root is None else _parts_of(PoolLayout(root))
    settings = redacted_values(settings)
    if call.as_json:
        said = {"steps": redacted_values(steps), "settings": settings, "parts": state}
        print(json_text(said))
        return
    print("Would do:")
    print("\n".join(f"  {number}. {shown(step)}" for number, step in enumerate(steps, 1)))
    if state:
        print(shown("Parts there already: " + ", ".join(f"{k} {v}" for k, v in state.items())))
    print("Settings:")
    lines = (f"  {key} = {json.dumps(value)}" for key, value in settings.items())
    print("\n".join(map(printable, lines)))


def _note_not_looked_at(call: Invocation) -> None:
    """Say of a dry run what only `bon validate` looks at: it plans the models, and asks Ray."""
    run = call.settings(RunSettings)
    what = ["the Ray cluster"] if run.engine == "ray" else []
    what += ["room for --placement stream"] if run.placement == "stream" else []
    if what:
        note(f"not looked at: {', '.join(what)}; bon validate does", quiet=call.quiet)


def _parts_of(layout: PoolLayout) -> dict[str, int]:
    kinds = ("prompts", "candidates", *(f"scores/{name}" for name in layout.scorer_names()))
    return {kind: len(layout.numbers(kind)) for kind in kinds}


def _described(scorer: ScorerSettings) -> dict[str, Any]:
    return scorer.model_dump(mode="json", exclude_none=True)


def finish(
    call: Invocation,
    made: Made,
    title: str,
    books: Accounting,
    result: dict[str, Any],
    *,
    is_scratch: bool = False,
) -> None:
    """Close the books, show the result, and end with 3 where too many rows were dropped, or all.

    A scratch pool is gone by now, so nobody is sent there.
    """
    books.close()
    result = {
        **result,
        "pool": None if is_scratch else str(made.pool.layout.root),
        "stages": [stage.as_json() for stage in made.stages],
    }
    if made.repaired is not None:
        result["repaired"] = [damage.as_json() for damage in made.repaired]
    if made.verified is not None:
        result["verified"] = {name: one.as_json() for name, one in made.verified.items()}
    if not call.quiet:
        closing_table(title, result)
    if call.as_json:
        print(json_text(result), flush=True)
    else:
        print_path(result.get("output", result["pool"]))
    result_is_complete()
    check_drops(call, books)


def check_drops(call: Invocation, books: Accounting) -> None:
    """End with 3 where more rows were dropped than --max-drops allows, or all of them."""
    max_drops = call.settings(RunSettings).max_drops
    if books.num_drops > drops_allowed(max_drops, books.input_rows):
        note(f"{books.num_drops} rows dropped, more than --max-drops allows")
        raise typer.Exit(3)
    if max_drops is None and books.num_drops and not books.kept_rows:
        dropped = f"{books.num_drops:,} of {books.input_rows:,} rows dropped"
        note(f"nothing is left: {dropped}; where that is no fault, give --max-drops 100%")
        raise typer.Exit(3)


def finish_pool(call: Invocation, made: Made, scorers: Sequence[str]) -> None:
    """Finish a command whose result is the pool itself."""
    limit = call.settings(InputSettings).limit
    books = open_books(made.pool, scorers, limit)
    books.kept_rows = books.output_rows = count_sampled(made.pool, limit)
    finish(call, made, f"pool {made.pool.layout.root.name}", books, books.as_json())
