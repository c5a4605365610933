"""The `bon` command: registration, and the boundary where errors become messages."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType

import typer

from bon import __version__
from bon.errors import BonError
from bon.shown import shown

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
    "env": ("Tools", "Show versions, processors, memory and accelerators, for a bug report."),
}
"""Every command's panel and first sentence: `bon --help` is quick since it imports no command."""
app = typer.Typer(
    name="bon",
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


class _Terminated(BaseException):
    """SIGTERM."""


def guarded(body: Callable[[], None], debug: bool) -> None:
    """Run a command's body and end with the exit code that `bon` promises.

    0 complete, 1 failed, 2 usage or settings, 3 too many drops (raised as an exit by the body),
    130 and 143 interrupted.
    """
    signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        body()
    except BonError as error:
        if debug:
            _print_trace()
        print(f"error: {_shown(error)}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from None
    except (KeyboardInterrupt, _Terminated) as stop:
        print("interrupted; what is committed stays, the same command goes on", file=sys.stderr)
        raise typer.Exit(143 if isinstance(stop, _Terminated) else 130) from None
    except typer.Exit:
        raise
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise typer.Exit(1) from None
    except Exception as error:
        if debug:
            _print_trace()
        print(
            f"error: {type(error).__name__}: {_shown(error)}\n  why:   this is a bug in bon\n"
            "  next:  run again with --debug and report the trace",
            file=sys.stderr,
        )
        raise typer.Exit(1) from None


def _shown(error: BaseException) -> str:
    """An error may quote a row or a URL: neither escapes nor secrets reach the terminal."""
    return shown(str(error), keep_lines=True)


def _print_trace() -> None:
    """Print the trace of the error that is being handled, safe to show as well."""
    print(shown(traceback.format_exc(), keep_lines=True), file=sys.stderr)


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    raise _Terminated


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
    """Entry point of the console script; of the commands, only the one that runs is imported."""
    said = sys.argv[1] if len(sys.argv) > 1 else ""
    if said in OVERVIEW:
        importlib.import_module(f"bon.cli.{said.replace('-', '_')}")
    else:
        for name, (panel, text) in OVERVIEW.items():
            app.command(name, help=text, rich_help_panel=panel)(_not_imported)
    app()


def _not_imported() -> None:
    """Stand for a command in the overview; only `bon -- COMMAND` gets here."""
    raise typer.BadParameter("the command comes first: bon COMMAND …")
