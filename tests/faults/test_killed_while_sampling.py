"""kill -9 at each rename and removal of a run whose worker samples, and of one that grows a pool.

Growing does more than adding files: drops, prompts, candidates and scores of the last part are
replaced, and those of a part that changes must never be taken for those of the other.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support.commands import GENERATOR
from support.killing import Command, Killable

SAMPLED: Command = (
    "select", "prompts.jsonl", "-m", GENERATOR, "--generator-engine", "transformers", "-n", 2,
    "--max-tokens", 8, "-r", "rule:exact", "--part-size", 3, "-o", "best.parquet",
)  # fmt: skip


@pytest.mark.faults
@pytest.mark.parametrize("before", [(), ((*SAMPLED, "--limit", 5),)], ids=["new", "grown"])
def test_killed_at_every_rename(tmp_path: Path, before: tuple[Command, ...]) -> None:
    select = Killable(tmp_path / "place", (*SAMPLED, "--limit", 7), before)
    renames = [step for step in select.steps if step.name in ("replace", "unlink")]
    assert len(renames) > 8
    for step in renames:
        select.check_killed(step)
