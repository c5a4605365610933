"""Findings of `bon validate` as text, on stdout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bon.shown import shown

__all__ = ["finding_lines", "verdict"]

_WIDTH = 9


def finding_lines(finding: dict[str, Any]) -> str:
    """Return one finding as lines: its status, its check, what was found and what to do."""
    lead = f"{finding['status']:<8}  {finding['check']:<{_WIDTH}}  "
    lines = [lead + finding["text"]]
    for label, key in (("where:", "where"), ("why:", "why"), ("next:", "next_step")):
        if finding.get(key):
            lines.append(f"{'':<{len(lead)}}{label:<6} {finding[key]}")
    return shown("\n".join(lines), keep_lines=True)


def verdict(findings: Sequence[dict[str, Any]]) -> str:
    """Sum up: what failed, what was warned of, what could not be checked."""
    counts = [
        (sum(one["status"] == status for one in findings), word)
        for status, word in (("failed", "failed"), ("warning", "warned of"), ("skipped", "skipped"))
    ]
    said = ", ".join(f"{count} {word}" for count, word in counts if count)
    return f"{len(findings)} findings: {said}" if said else f"{len(findings)} findings, all well"
