"""The dataset card of a folder: what the set is, how it was made, what was left out and why."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from bon.exports.batches import Kind
from bon.exports.features import type_name
from bon.exports.formats import Format
from bon.shown import printable

__all__ = ["CardFacts", "Written", "render_card"]

_SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B")
_SPECIAL = re.compile(r"[\\`\[\]|*]")
_KIND_TAGS: Mapping[Kind, tuple[str, ...]] = {
    "pairs": ("preference",),
    "responses": (),
    "prompts": ("prompts",),
}
_ROWS: Mapping[Kind, str] = {
    "pairs": "preference pairs",
    "responses": "conversations with their rewards",
    "prompts": "prompts",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFacts:
    """What only the command that made a set knows of it."""

    name: str
    """As people write it."""
    command: str
    """The command line, without secrets."""
    version: str
    """Of bon."""
    source: str
    """Where the prompts came from."""
    models: Mapping[str, str] = field(default_factory=dict)
    """From a role, such as `generator`, to a model with its revision."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the sampling."""
    scorers: Mapping[str, str] = field(default_factory=dict)
    """From a scorer's name to its model or rule, with the revision."""
    method: Mapping[str, Any] = field(default_factory=dict)
    """Strategy, filters and thresholds."""
    input_rows: int
    drops: Mapping[str, int] = field(default_factory=dict)
    """Dropped input rows by reason."""
    candidate_drops: Mapping[str, int] = field(default_factory=dict)
    """Dropped single candidates by reason."""


@dataclass(frozen=True, slots=True)
class Written:
    """What the writer knows of a set."""

    format: Format
    kind: Kind
    rows: Mapping[str, int]
    """By split."""
    files: Mapping[str, str]
    """By split, a pattern within the folder."""
    schema: pa.Schema


def render_card(facts: CardFacts, written: Written) -> str:
    """Return README.md for a set: front matter that the Hub reads, then text for people."""
    sections = [
        _front_matter(facts, written),
        f"# {_plain(facts.name)}",
        f"{sum(written.rows.values()):,} {_ROWS[written.kind]}, made with bon{_how(facts)}"
        f"{_for_trainer(written.format)}.",
        "## How this set was made",
        _table(("", ""), _making(facts, written)),
        f"```console\n$ {_line(facts.command)}\n```",
        "## What was left out",
        _left_out(facts),
        "## Columns",
        _table(
            ("column", "type"),
            [(_code(item.name), _plain(type_name(item.type))) for item in written.schema],
        ),
        "## Loading it",
        "```python\nfrom datasets import load_dataset\n\n"
        f'dataset = load_dataset("path/or/hub-id")  # {_rows_by_split(written)}\n```',
    ]
    return "\n\n".join(sections) + "\n"


def _front_matter(facts: CardFacts, written: Written) -> str:
    files = [{"split": split, "path": path} for split, path in written.files.items()]
    tasks = ["text-generation"]
    if written.kind != "responses":
        tasks.append("reinforcement-learning")
    values = {
        "pretty_name": facts.name,
        "task_categories": tasks,
        "size_categories": [_size(sum(written.rows.values()))],
        "tags": [
            *(["best-of-n"] if facts.sampling else []),
            "bon",
            *_KIND_TAGS[written.kind],
            *written.format.tags,
        ],
        "configs": [{"config_name": "default", "data_files": files}],
    }
    # JSON is YAML, and its strings need no thought about quoting.
    lines = [f"{key}: {_yaml(value)}" for key, value in values.items()]
    return "\n".join(["---", *lines, "---"])


def _yaml(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return "".join(
        c if c.isprintable() else "".join(f"\\u{unit:04x}" for unit in _utf16(c)) for c in text
    )


def _utf16(character: str) -> Iterable[int]:
    data = character.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2)]


def _size(num_rows: int) -> str:
    place = next((i for i in range(len(_SIZES)) if num_rows < 1000 * 10**i), len(_SIZES) - 1)
    return _SIZES[place]


def _how(facts: CardFacts) -> str:
    return " by best-of-N sampling" if facts.sampling else ""


def _for_trainer(format: Format) -> str:
    return f", in the form that {format.trainer} takes" if format.tags else ""


def _making(facts: CardFacts, written: Written) -> list[tuple[str, str]]:
    rows = [("source", facts.source), *facts.models.items()]
    rows += [(f"sampling: {name}", _said(value)) for name, value in facts.sampling.items()]
    plain = [(_plain(name), _plain(value)) for name, value in rows]
    plain += [(f"scorer {_code(name)}", _plain(spec)) for name, spec in facts.scorers.items()]
    plain += [(_plain(name), _plain(_said(value))) for name, value in facts.method.items()]
    plain += [("input rows", f"{facts.input_rows:,}"), ("output rows", _rows_by_split(written))]
    return [*plain, ("form", written.format.name), ("bon", facts.version)]


def _rows_by_split(written: Written) -> str:
    return ", ".join(f"{split}: {num:,} rows" for split, num in written.rows.items())


def _left_out(facts: CardFacts) -> str:
    rows = [(_code(reason), "input rows", f"{num:,}") for reason, num in facts.drops.items()]
    rows += [
        (_code(r), "single candidates", f"{num:,}") for r, num in facts.candidate_drops.items()
    ]
    return _table(("reason", "of", "number"), rows) if rows else "Nothing was dropped."


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_said(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_said, value))
    return str(value)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _plain(text: str) -> str:
    """Return a text as one line of Markdown that means itself: no link, image, tag or new cell."""
    return _SPECIAL.sub(r"\\\g<0>", _line(text)).replace("<", "&lt;")


def _code(text: str) -> str:
    """Return a text as code in a table's cell."""
    line = _line(text)
    longest = max(map(len, re.findall("`+", line)), default=0)
    fence, space = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{space}{line}{space}{fence}".replace("|", "\\|")


def _line(text: str) -> str:
    return printable(" ".join(text.split()))
