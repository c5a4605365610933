"""Rows that are easy to get wrong, and the text that a ChatML model must be trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from bon.exports.formats import Kind, choose_format
from bon.exports.writer import DatasetWriter
from bon.records import PAIR_FIELDS, RESPONSE_FIELDS, Message

__all__ = [
    "MARGINS",
    "PAIRS",
    "PROMPTS",
    "REFERENCES",
    "conversation_text",
    "export",
    "prompt_text",
    "response_text",
]


def said(role: str, content: str) -> Message:
    return {"role": role, "content": content}


PAIRS: list[tuple[list[Message], str, str]] = [
    ([said("user", "Add 5 and 96.")], "It is 101.", "It is 141."),
    ([said("user", "Add 5 and 96.")], "The sum is 101.", "Let me think."),
    (
        [
            said("system", "Be terse."),
            said("user", "Hi"),
            said("assistant", "Hello"),
            said("user", "Zwei plus zwei?\nBitte — 日本 🙂"),
        ],
        "vier\n\n```py\nprint('4')\n```",
        "  fünf ",
    ),
    ([said("user", "Fill {{content}} and {x}, please: <image>")], "100 %, {{content}}", "\tnone\n"),
]
"""Prompt, chosen and rejected: a prompt with two pairs, several turns, a system message, other
scripts, outer white space, and what trainers' templates use as placeholders."""

PROMPTS = [prompt for i, (prompt, *_) in enumerate(PAIRS) if i == 0 or prompt != PAIRS[i - 1][0]]
"""Each prompt of the pairs, for forms with one row a prompt."""
MARGINS = [0.5, 1.5, 2.25, None]
REFERENCES = ["101", "4", None]
"""By prompt."""
_PROMPT_OF_PAIR = [PROMPTS.index(prompt) for prompt, *_ in PAIRS]
# Names that trainers' loaders or templates look for, in columns that the user's input had.
_OTHERS_OF_PROMPT: dict[str, list[Any]] = {
    "answer": REFERENCES,
    "system": ["Never say this."] * 3,
    "label": ["spam", None, "ham"],
    "history": [["x"], [], None],
    "tools": ["a hammer", None, "a saw"],
    "images": ["cat.png", None, "dog.png"],
    "meta": [{"level": 1}, {"level": None}, None],
}
OTHERS = {name: [values[i] for i in _PROMPT_OF_PAIR] for name, values in _OTHERS_OF_PROMPT.items()}


def prompt_text(prompt: Sequence[Message]) -> str:
    """Return the prompt as the sample models' template writes it, worked out by hand."""
    turns = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in prompt)
    return turns + "<|im_start|>assistant\n"


def response_text(response: str) -> str:
    """Return what is trained on: the response and its end, without the template's last newline."""
    return f"{response}<|im_end|>"


def conversation_text(prompt: Sequence[Message], response: str) -> str:
    """Return a whole conversation."""
    return prompt_text(prompt) + response_text(response)


def export(format_name: str, output: Path | str, kind: Kind = "pairs") -> Path:
    """Write the rows as `bon` does for this trainer; the form `bon` itself renames no column."""
    table = _pairs() if kind == "pairs" else _responses()
    if format_name == "bon":
        table = table.drop_columns(["tools", "images"])
    chosen = choose_format(format_name, kind)
    with DatasetWriter(output, schema=table.schema, kind=kind, format=chosen) as writer:
        writer.write(table)
    return Path(output)


def _pairs() -> pa.Table:
    size = len(PAIRS)
    columns: dict[str, Any] = {
        "prompt": [prompt for prompt, _, _ in PAIRS],
        "chosen": [[said("assistant", chosen)] for _, chosen, _ in PAIRS],
        "rejected": [[said("assistant", rejected)] for _, _, rejected in PAIRS],
        "score_chosen": [1.0 if margin is None else margin for margin in MARGINS],
        "score_rejected": [None if margin is None else 0.0 for margin in MARGINS],
        "margin": MARGINS,
        "prompt_id": [f"p{i}" for i in _PROMPT_OF_PAIR],
        "candidate_chosen": [0] * size,
        "candidate_rejected": [1] * size,
        "num_tokens_chosen": [5] * size,
        "num_tokens_rejected": [6] * size,
    }
    return _table(PAIR_FIELDS, columns)


def _responses() -> pa.Table:
    size = len(PAIRS)
    columns: dict[str, Any] = {
        "prompt_id": [f"p{i}" for i in _PROMPT_OF_PAIR],
        "prompt": [prompt[-1]["content"] for prompt, _, _ in PAIRS],
        "response": [chosen for _, chosen, _ in PAIRS],
        "messages": [[*prompt, said("assistant", chosen)] for prompt, chosen, _ in PAIRS],
        "reward": MARGINS,
        "candidate": [0] * size,
        "num_candidates": [2] * size,
        "rewards": [[margin, None] for margin in MARGINS],
        "finish_reason": ["stop"] * size,
        "num_tokens": [5] * size,
    }
    return _table(RESPONSE_FIELDS, columns)


def _table(fields: Sequence[pa.Field], columns: dict[str, Any]) -> pa.Table:
    others = pa.table(OTHERS)
    arrays = [pa.array(columns[field.name], field.type) for field in fields]
    return pa.table([*arrays, *others.columns], pa.schema([*fields, *others.schema]))
