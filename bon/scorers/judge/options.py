"""What stands behind the `?` of a judge."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from bon.config.base import Settings

__all__ = ["PREFIX", "SERVER", "JudgeOptions", "is_server"]

PREFIX = "judge:"
"""What the spec of a judge begins with."""
SERVER = "server:"
"""What follows where the judge is behind a server."""
_RUBRIC_TOKENS = 512
_SCALE = re.compile(r"(-?\d+(?:\.\d+)?)-(-?\d+(?:\.\d+)?)")


def is_server(spec: str) -> bool:
    """Tell whether a judge's spec names a server, not a model."""
    return spec.removeprefix(PREFIX).startswith(SERVER)


class JudgeOptions(Settings):
    """How a judge is asked, how its answer is read, and how its model is run."""

    runtime_fields: ClassVar[frozenset[str]] = frozenset(
        {"tensor_parallel_size", "gpu_memory_utilization", "kv_cache_gib"}
    )
    local_fields: ClassVar[frozenset[str]] = runtime_fields | {
        *("revision", "dtype", "max_model_len", "chat_template")
    }
    """What only a model in this process reads."""
    read_by: ClassVar[Mapping[str, frozenset[str]]] = {
        "words": frozenset({"yes-no", "pairwise"}),
        "pattern": frozenset({"rubric", "pairwise"}),
        "max_tokens": frozenset({"rubric", "pairwise"}),
        "thinking": frozenset({"rubric", "pairwise"}),
        "scale": frozenset({"rubric"}),
        "max_pairs": frozenset({"pairwise"}),
        "ridge": frozenset({"pairwise"}),
    }
    """The modes that read a field; all modes read those that are not here."""

    mode: Literal["yes-no", "rubric", "pairwise"] = "yes-no"
    """What is asked: is the response good, how good from 1 to 10, which of two is better."""
    template: Path | None = None
    """File with a Jinja template of the question, in place of bon's own."""
    words: str | None = None
    """The two answers whose probabilities are compared, with a comma between them; by default
    Yes,No (in the template's own case), and A,B for pairwise."""
    pattern: str | None = None
    """Regular expression whose last match in the judge's answer is its verdict (the first group
    that matched, where it has groups)."""
    scale: str = "1-10"
    """Lowest and highest score of a rubric."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Longest answer, in tokens: 512 for a rubric; for pairwise, the judge answers in text where
    this is given, else one step tells which of its two words is the likelier."""
    thinking: bool = False
    """Let a model that can do so think before it answers; count it in max_tokens."""
    max_pairs: int | None = Field(default=None, ge=1)
    """Most pairs compared for a prompt; by default all of 8 candidates or fewer, of more 4 times
    as many as there are candidates."""
    ridge: float = Field(default=0.1, gt=0.0)
    """How strongly strengths are drawn to 0 in the fit of pairwise wins."""
    model: str | None = None
    """The model's name on the server, where it has several."""
    revision: str | None = None
    """Branch, tag or commit of the judge on the hub."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Data type; auto is the checkpoint's own."""
    max_model_len: int | None = Field(default=None, ge=2)
    """Longest question plus answer, in tokens; by default the model's own limit."""
    chat_template: Path | None = None
    """File with a Jinja chat template, in place of the judge's own."""
    tensor_parallel_size: int = Field(default=1, ge=1)
    """GPUs that share one copy of the judge."""
    gpu_memory_utilization: float = Field(default=0.9, gt=0.0, le=1.0)
    """Share of the GPU's memory that the judge may take."""
    kv_cache_gib: float = Field(default=2.0, gt=0.0)
    """GiB for the KV cache on a machine without a GPU."""

    @field_validator("scale")
    @classmethod
    def _is_scale(cls, value: str) -> str:
        found = _SCALE.fullmatch(value)
        if not found or float(found[1]) >= float(found[2]):
            raise ValueError("give the lowest and the highest score, as in 1-10")
        return value

    @field_validator("words")
    @classmethod
    def _are_two_words(cls, value: str | None) -> str | None:
        words = [] if value is None else [word.strip() for word in value.split(",")]
        if value is not None and (len(words) != 2 or not all(words) or words[0] == words[1]):
            raise ValueError("give two words with a comma between them, as in Yes,No")
        if any(len(word.split()) > 1 for word in words):
            raise ValueError("each of the words is one token: give them without spaces in them")
        return value

    @field_validator("pattern")
    @classmethod
    def _is_pattern(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        return value

    @model_validator(mode="after")
    def _go_together(self) -> JudgeOptions:
        for name, modes in self.read_by.items():
            if name in self.model_fields_set and self.mode not in modes:
                raise ValueError(f"{name} does nothing with mode={self.mode}")
        if self.mode == "pairwise" and self.max_tokens is None:
            for name in self.model_fields_set & {"pattern", "thinking"}:
                raise ValueError(f"{name} needs max_tokens: without it, no text is read")
        if self.words is not None and self.reads_text:
            raise ValueError("words does nothing with max_tokens: text is read with pattern")
        return self

    @property
    def reads_text(self) -> bool:
        """Tell whether the judge answers in text, not in one step."""
        return self.mode == "rubric" or (self.mode == "pairwise" and self.max_tokens is not None)

    @property
    def answer_tokens(self) -> int:
        """Longest answer, in tokens."""
        return (self.max_tokens or _RUBRIC_TOKENS) if self.reads_text else 1

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest score of a rubric."""
        found = _SCALE.fullmatch(self.scale)
        assert found  # validated
        return float(found[1]), float(found[2])
