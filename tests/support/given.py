"""Small inputs with a row that is cut off, and rows that a rule cannot score."""

from __future__ import annotations

import json
from pathlib import Path

PART = ("--part-size", 4)


def write_given(path: Path, num_rows: int = 12) -> Path:
    """Write rows with an answer and three responses each; row 3 is malformed, row 6 unanswered."""
    rows = [
        json.dumps(
            {"id": f"q{n}", "prompt": f"What is {n} + 2?", "responses": [f"{n + 2}", "7", "a lot"]}
            | ({} if n == 6 else {"answer": f"{n + 2}"})
        )
        for n in range(num_rows)
    ]
    rows[3] = rows[3][:20]
    path.write_text("".join(f"{row}\n" for row in rows))
    return path


def write_prompts(path: Path, num_rows: int = 12) -> Path:
    """Write prompts with answers; row 5 is malformed, rows 4 and 6 are unanswered."""
    rows = [
        json.dumps({"id": f"q{n}", "prompt": f"What is {n} + 2?"}
                   | ({} if n in (4, 6) else {"answer": f"{n + 2}"}))
        for n in range(num_rows)
    ]  # fmt: skip
    rows[5] = rows[5][:20]
    path.write_text("".join(f"{row}\n" for row in rows))
    return path
