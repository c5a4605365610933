"""`bon validate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from bon.cli.app import app, guarded
from bon.cli.flags import Invocation, command
from bon.config import GROUPS as COMMAND_GROUPS

if TYPE_CHECKING:
    from bon.cli.validation import Finding, PlannedRun

GROUPS = COMMAND_GROUPS["validate"]


@command(
    app,
    "validate",
    *GROUPS,
    source_help="Prompt file, a dataset that has responses, or a pool.",
    output_help="Where the run would write its set; without it, a run that only makes the pool.",
    examples=[
        "bon validate prompts.jsonl -m Qwen/Qwen3-0.6B "
        "-r Skywork/Skywork-Reward-V2-Qwen3-0.6B -n 16 -o best.parquet",
        "bon validate answers.jsonl -r rule:math --max-drops 1%",
        "bon validate prompts.pool",
    ],
    panel="Tools",
    has_dry_run=False,
    run=guarded,
)
def validate(call: Invocation) -> None:
    """Check a run without running it: input, models, templates, lengths, places, disk space.

    Every row is read, and everything that would stop the run or drop a row is listed, in the words
    of the run. Nothing is written, no weights are loaded; models on the Hub are downloaded. Exit
    code 0: the run can start; 3: more drops than --max-drops; 1 or 2: what the run would end with.
    """
    from bon.cli.validation import PlannedRun, run_checks
    from bon.report.validation import finding_lines, verdict

    planned = PlannedRun(call)
    findings = []
    for finding in run_checks(planned):
        findings.append(finding)
        if not call.as_json and (not call.quiet or finding.status == "failed"):
            print(finding_lines(finding.as_json()), flush=True)
    code = _exit_code(planned, findings)
    said = [finding.as_json() for finding in findings]
    if not call.as_json:
        _show_books(planned)
        print(verdict(said), flush=True)
    else:
        _print_json(planned, said, code)
    if code:
        raise typer.Exit(code)


def _exit_code(planned: PlannedRun, findings: list[Finding]) -> int:
    """Return the code of the first error, as the run would come upon it, or of too many drops."""
    from bon.cli.closing import check_drops

    errors = [finding.error for finding in findings if finding.error is not None]
    if errors:
        return errors[0].exit_code
    if planned.books is not None:
        planned.books.close()
        try:
            check_drops(planned.call, planned.books)
        except typer.Exit as end:
            return end.exit_code
    return 0


def _show_books(planned: PlannedRun) -> None:
    from bon.report.tables import closing_table

    if planned.books is not None and not planned.call.quiet:
        closing_table("what the run would keep", _books(planned))


def _books(planned: PlannedRun) -> dict[str, Any]:
    books = planned.books
    return {"stages": [], "pool": None, **(books.as_json() if books else {})}


def _print_json(planned: PlannedRun, findings: list[dict[str, Any]], code: int) -> None:
    from bon.shown import json_text

    result = {
        "source": planned.call.source,
        "kind": planned.kind,
        "exit_code": code,
        "findings": findings,
        **(_books(planned) if planned.books else {}),
        "pool": None if planned.root is None else str(planned.root),
    }
    print(json_text(result))
