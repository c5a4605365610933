"""Calls `bon validate` in this process, and compares what it finds with what a run says."""

from __future__ import annotations

import json
from typing import Any

from typer.testing import CliRunner

from bon.cli import validate  # noqa: F401  (registers the command)
from bon.cli.app import app

BOOKS = ("input_rows", "kept_rows", "drops", "candidate_drops")
"""What a run and validate both count."""


def called(*arguments: object) -> tuple[int, str, str]:
    """Call `bon` here, in the current folder, and return its exit code, stdout and stderr."""
    done = CliRunner().invoke(app, [str(one) for one in arguments])
    return done.exit_code, done.stdout, done.stderr


def validated(*arguments: object) -> dict[str, Any]:
    """Return what `bon validate --json` says."""
    code, stdout, stderr = called("validate", *arguments, "--json")
    assert stdout, stderr
    result = dict(json.loads(stdout))
    assert result["exit_code"] == code
    return result


def errors(result: dict[str, Any]) -> list[str]:
    """Return what failed, as a run would print it."""
    texts = []
    for one in result["findings"]:
        if one["status"] == "failed":
            lines = [one["text"]]
            labels = {"where": "where: ", "why": "why:   ", "next_step": "next:  "}
            lines += [f"  {label}{one[key]}" for key, label in labels.items() if one[key]]
            texts.append("error: " + "\n".join(lines))
    return texts
