"""All checks, in the order in which a run comes upon what they look for."""

from __future__ import annotations

from collections.abc import Iterator

from bon.cli.validation.engine import check_room, check_workers
from bon.cli.validation.models import check_generator, check_scorers
from bon.cli.validation.places import check_lock, check_output, check_source, check_space
from bon.cli.validation.plan import Check, Finding, Note, PlannedRun
from bon.cli.validation.pools import check_pool
from bon.cli.validation.rows import check_rows
from bon.cli.validation.settings import check_ranking_flags, check_settings
from bon.errors import BonError

__all__ = ["CHECKS", "run_checks"]

CHECKS: tuple[tuple[str, Check], ...] = (
    ("settings", check_settings),
    ("source", check_source),
    ("output", check_output),
    ("workers", check_workers),
    ("ranking", check_ranking_flags),
    ("generator", check_generator),
    ("scorers", check_scorers),
    ("lock", check_lock),
    ("room", check_room),
    ("pool", check_pool),
    ("input", check_rows),
    ("disk", check_space),
)
"""A further one is a generator of notes and errors in this package, and its line here."""


def run_checks(run: PlannedRun) -> Iterator[Finding]:
    """Run all checks and yield what they find; what two of them run into is said once."""
    said: set[str] = set()
    for name, check in CHECKS:
        for found in _findings(check, run):
            if isinstance(found, Note):
                yield Finding(name, found.status, found.text)
            elif str(found) not in said:
                said.add(str(found))
                yield Finding(name, "failed", found.what, found)


def _findings(check: Check, run: PlannedRun) -> Iterator[Note | BonError]:
    try:
        yield from check(run)
    except BonError as error:
        yield error
