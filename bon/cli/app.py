"""The `bon` command: registration, and the boundary where errors become messages."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable

import typer

from bon import __version__, signals
from bon.cli.usage import Commands
from bon.errors import BonError
from bon.shown import shown
from bon.system_faults import refuse_little_memory, system_fault

__all__ = ["app", "guarded", "main"]

OVERVIEW = {
    "select": (
        "Pipelines",
        "Best of N: sample, score and keep the best responses to each prompt, as Parquet.",
    ),
    "build-dpo": (
        "Pipelines",
        "DPO pairs: sample, score and pair the responses to each prompt as chosen and rejected.",
    ),
    "filter": (
        "Pipelines",
        "Filtered set: keep the responses or preference pairs that pass every filter, in order.",
    ),
    "convert": (
        "Pipelines",
        "Convert a set into the form that a trainer takes, or into bon's own.",
    ),
    "generate": (
        "Stages",
        "Sample N candidates for each prompt into a pool; resumes a pool that was begun.",
    ),
    "score": (
        "Stages",
        "Score every candidate of a pool with a reward model; resumes where it stopped.",
    ),
    "inspect": (
        "Tools",
        "Show what a pool or a result holds: settings, parts, drops, rewards, rows.",
    ),
    "validate": (
        "Tools",
        "Check a run without running it: input, models, templates, lengths, places, disk space.",
    ),
    "plan": (
        "Tools",
        "Plan a run: prompts × N × tokens as GPU-hours, wall-clock, files, bytes and memory.",
    ),
    "env": ("Tools", "Show versions, processors, memory and accelerators, for a bug report."),
}
"""Every command's panel and first sentence: `bon --help` is quick since it imports no command."""
app = typer.Typer(
    name="bon",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Best-of-N sampling and data curation for people who align language models.\n\n"
    "vLLM samples N candidates per prompt, a reward model ranks them, and the ranked pool becomes "
    "a best-of-N set, DPO pairs or a filtered set. A run that was stopped goes on where it was: "
    "repeat the same command.",
    epilog="[bold]First run[/bold]\n\n[cyan]bon select prompts.jsonl -n 8 -o best.parquet[/cyan]",
)


def guarded(body: Callable[[], None], debug: bool) -> None:
    """Run a command's body and end with the exit code that `bon` promises.

    0 complete, 1 failed, 2 usage or settings, 3 too many drops (raised as an exit by the body).
    Once a signal has stopped the command, any error comes of that: `entry` ends it.
    """
    try:
        body()
    except Exception as error:
        if isinstance(error, typer.Exit) or signals.received() is not None:
            raise
        raise typer.Exit(_reported(error, debug)) from None


def _reported(error: Exception, debug: bool) -> int:
    """Tell of an error and return the exit code that it stands for."""
    if debug:
        _print_trace()
    if isinstance(error, BonError):
        print(f"error: {_shown(error)}", file=sys.stderr)
        return error.exit_code
    fault = system_fault(error, is_boundary=True)
    if fault is not None:
        print(f"error: {_shown(fault)}", file=sys.stderr)
        return fault.exit_code
    print(
        f"error: {type(error).__name__}: {_shown(error)}\n  why:   this is a bug in bon\n"
        "  next:  run again with --debug and report the trace",
        file=sys.stderr,
    )
    return 1


def _shown(error: BaseException) -> str:
    """An error may quote a row or a URL: neither escapes nor secrets reach the terminal."""
    return shown(str(error), keep_lines=True)


def _print_trace() -> None:
    """Print the trace of the error that is being handled, safe to show as well."""
    print(shown(traceback.format_exc(), keep_lines=True), file=sys.stderr)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"bon {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Print the version."
    ),
) -> None:
    pass


def main() -> None:
    """Parse the command line and run it; of the commands, only the one that runs is imported."""
    said = sys.argv[1] if len(sys.argv) > 1 else ""
    if said in OVERVIEW:
        try:
            refuse_little_memory()
            importlib.import_module(f"bon.cli.{said.replace('-', '_')}")
        except Exception as error:
            sys.exit(_reported(error, debug="--debug" in sys.argv))
    else:
        for name, (panel, text) in OVERVIEW.items():
            app.command(name, help=text, rich_help_panel=panel)(_not_imported)
    app()


def _not_imported() -> None:
    """Stand for a command in the overview; only `bon -- COMMAND` gets here."""
    raise typer.BadParameter("the command comes first: bon COMMAND …")
