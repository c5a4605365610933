"""LLaMA-Factory's `dataset_info.json`: the index of the sets in a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bon.errors import OutputError
from bon.places import Place

__all__ = ["DATASET_INFO", "dataset_info_text", "read_dataset_info"]

DATASET_INFO = "dataset_info.json"


def read_dataset_info(folder: Place) -> dict[str, Any]:
    """Return the entries of a folder's index, empty where there is none.

    Raises:
        OutputError: the file is there, but is no JSON object.
    """
    path = folder / DATASET_INFO
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise _unusable(path, str(error)) from None
    if not isinstance(entries, dict):
        raise _unusable(path, "it is not a JSON object")
    return entries


def dataset_info_text(
    entries: Mapping[str, Any], files: Mapping[str, str], entry: Mapping[str, Any]
) -> str:
    """Return the index with one more entry for each of `files`, from its name to its path."""
    added = {name: {"file_name": path, **entry} for name, path in files.items()}
    return json.dumps({**entries, **added}, indent=2, ensure_ascii=False) + "\n"


def _unusable(path: Place, why: str) -> OutputError:
    return OutputError(
        f"cannot add an entry to {path.name}",
        where=str(path),
        why=why,
        next_step="mend or move that file, or write to another folder",
    )
