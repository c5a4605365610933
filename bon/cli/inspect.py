"""`bon inspect`."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from bon.cli.app import app, guarded

if TYPE_CHECKING:
    from bon.places import Place


@app.command(
    "inspect",
    rich_help_panel="Tools",
    epilog="[bold]Examples[/bold]\n\n[cyan]bon inspect prompts.pool[/cyan]\n\n"
    "[cyan]bon inspect prompts.pool --prompt add-0001[/cyan]\n\n"
    "[cyan]bon inspect best.parquet --rows 20[/cyan]",
)
def inspect(
    source: Annotated[str, typer.Argument(help="Pool, or a Parquet file that bon wrote.")],
    prompt: Annotated[
        str | None, typer.Option(help="Show this prompt of a pool with all its candidates.")
    ] = None,
    rows: Annotated[int, typer.Option(min=0, help="Rows of a file to show.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the trace of an error.")] = False,
) -> None:
    """Show what a pool or a result holds: settings, parts, drops, rewards, rows."""

    def body() -> None:
        from bon.errors import InputNotFoundError
        from bon.pipeline import inspection
        from bon.places import place
        from bon.pool.pool import Pool
        from bon.pool.snapshot import unchanged
        from bon.report.inspection import show
        from bon.shown import json_text
        from bon.sources.locate import refuse_undecodable

        refuse_undecodable(source)
        path = place(source)
        if path.is_dir():
            with unchanged(Pool.open(path)):
                facts = (
                    inspection.prompt_facts(path, prompt) if prompt else inspection.pool_facts(path)
                )
        elif not _lacks_bucket(path) and path.is_file():
            facts = inspection.file_facts(path, rows)
        else:
            raise InputNotFoundError(
                "there is nothing to inspect",
                where=source,
                why="there is no such bucket" if _lacks_bucket(path) else "no such file or folder",
                next_step="give a pool or a .parquet file",
            )
        if as_json:
            print(json_text(facts, is_ascii=False))
        else:
            show(facts)

    guarded(body, debug)


def _lacks_bucket(path: Place) -> bool:
    """Tell whether the bucket of an address is not there, as far as its store says."""
    from bon.errors import BonError
    from bon.places import is_local

    if is_local(path):
        return False
    with suppress(BonError):
        return not [path, *path.parents][-1].is_dir()
    return False
