"""Small sets of rows in the forms that people have, written to files and read back."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PAIR = ("prompt", "chosen", "rejected")


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read rows of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def triples(rows: Iterable[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Return what makes rows pairs: prompt, chosen and rejected."""
    return [tuple(row[name] for name in PAIR) for row in rows]


def left_over(folder: Path) -> list[str]:
    """List what no run may leave behind: scratch and staging."""
    return [path.name for path in folder.rglob("*") if path.name.endswith((".tmp", ".staging"))]


def assert_books_close(result: dict[str, Any], kept: list[Any], dropped: list[Any]) -> None:
    """Assert that the counts of a filter run add up, and are what its two files hold."""
    units = result[result["kind"]]
    assert result["input_rows"] == result["kept_rows"] + sum(result["drops"].values())
    assert result["output_rows"] == result[f"{result['kind']}_kept"] == len(kept)
    assert units == len(kept) + len(dropped)
    assert sum(one["num_dropped"] for one in result["filters"]) == len(dropped)
    left = units
    for one in result["filters"]:
        assert one["num_in"] == left
        left -= one["num_dropped"]
        assert one["num_kept"] == left
    by_filter = Counter(row["dropped_by"] for row in dropped)
    assert all(by_filter[one["name"]] == one["num_dropped"] for one in result["filters"])
    assert all(row["detail"] for row in dropped)
