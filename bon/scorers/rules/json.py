"""`rule:json`: the response is JSON, of the schema that was asked for."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from bon.config import ScorerSettings
from bon.config.base import Settings
from bon.records import CandidateGroup, Drop
from bon.scorers.rules.json_schema import read_schema
from bon.scorers.rules.limited import LimitedProcess
from bon.scorers.rules.options import read_options

__all__ = ["JsonOptions", "JsonRule", "json_text"]

_FENCES = ("```", "~~~")


with warnings.catch_warnings():
    # pydantic's models have a method of this name, which has another one today
    warnings.filterwarnings("ignore", 'Field name "schema"', UserWarning)

    class JsonOptions(Settings):
        """Options of `rule:json`."""

        schema: Path | None = None  # type: ignore[assignment]
        """File with a JSON schema; by default any JSON is right."""


class JsonRule:
    """Right is a response that is JSON, or whose only fenced json block is, as the schema allows.

    It is parsed in a process of its own with a limit on its computing time: a schema may hold
    patterns.
    """

    version: ClassVar[int | None] = 1
    settings_read: ClassVar[frozenset[str]] = frozenset({"rule_timeout_s"})
    reads_candidates: ClassVar[bool] = False
    is_verdict: ClassVar[bool] = True

    def __init__(self, settings: ScorerSettings) -> None:
        path = read_options(JsonOptions, settings).schema
        self._schema = None if path is None else read_schema(path, settings)
        setup = {"schema": self._schema}
        self._allows = LimitedProcess("json_work.py", setup, settings.rule_timeout_s, "rule:json")

    def __enter__(self) -> JsonRule:
        self._allows.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._allows.stop()

    @classmethod
    def check(cls) -> None:
        """It needs a package only where there is a schema."""

    def fingerprint(self) -> dict[str, Any]:
        """Return what stands for the schema's content."""
        if self._schema is None:
            return {"schema_digest": None}
        text = json.dumps(self._schema, sort_keys=True)
        return {"schema_digest": hashlib.sha256(text.encode()).hexdigest()[:16]}

    def rewards(self, groups: Sequence[CandidateGroup]) -> list[list[float | Drop]]:
        """Return 1.0 for what the schema allows, else 0.0."""
        return [[self._reward(response) for response in group.responses] for group in groups]

    def _reward(self, response: str) -> float | Drop:
        text = json_text(response)
        if text is None:
            return 0.0
        allowed: bool | str | Drop = self._allows.ask(text)
        if isinstance(allowed, str):
            return Drop("schema_failed", f"the schema could not be applied: {allowed}")
        return allowed if isinstance(allowed, Drop) else float(allowed)


def json_text(response: str) -> str | None:
    """Return what should be JSON: all of a response, or what is in its only fenced json block.

    A block is json's that begins with ```` ```json ````, and one that names no language where
    there is no other block. None where there are several, or where it does not end.
    """
    if not any(fence in response for fence in _FENCES):
        return response
    blocks = _blocks(response)
    found = [text for language, text in blocks if language == "json"]
    if not found and len(blocks) == 1 and blocks[0][0] == "":
        found = [blocks[0][1]]
    if blocks:
        return found[0] if len(found) == 1 else None
    return response  # the fence may stand in a JSON string


def _blocks(response: str) -> list[tuple[str, str]]:
    """Return language and content of each fenced block."""
    blocks: list[tuple[str, str]] = []
    fence, language, lines = "", "", list[str]()
    for line in response.splitlines(keepends=True):
        said = line.strip()
        if fence and said == fence:
            blocks.append((language, "".join(lines)))
            fence = ""
        elif fence:
            lines.append(line)
        elif said.startswith(_FENCES):
            fence = said[: len(said) - len(said.lstrip(said[0]))]
            language, lines = said[len(fence) :].strip().lower(), []
    return blocks
