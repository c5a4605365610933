"""`bon filter` end to end, on files and on pools; no engine starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.commands import bon


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_closing_table_shows_the_counts_of_pairs(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"Q{n}", "chosen": "good", "rejected": "bad", "score_chosen": n,
         "score_rejected": 0}
        for n in range(3)
    ]  # fmt: skip
    write_lines(tmp_path / "pairs.jsonl", rows)

    done = bon("filter", "pairs.jsonl", "--filter", "margin:min=2", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "pairs.filtered.parquet"
    assert "1 of 3, 2 dropped" in done.stderr
