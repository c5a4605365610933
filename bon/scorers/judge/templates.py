"""The question that a judge is asked: a Jinja template, filled in for a candidate or two."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from bon.errors import SettingsError, first_line
from bon.records import CandidateGroup, Drop
from bon.scorers.judge.options import JudgeOptions

__all__ = ["Question", "read_question"]

_NEEDED = {
    "yes-no": {"response"},
    "rubric": {"response"},
    "pairwise": {"response_a", "response_b"},
}
_WORDS = {"yes-no": ("Yes", "No"), "pairwise": ("A", "B")}


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about every candidate of a run."""

    source: str
    """The template."""
    words: tuple[str, str] | None
    """The two answers that are offered, where one step is read."""
    bounds: tuple[float, float]
    """Lowest and highest score of a rubric."""

    def fill(self, group: CandidateGroup, **responses: str) -> str | Drop:
        """Return the text for a group's response (or `response_a` and `response_b`).

        A drop says `template_error`: what the template reads, the input's row has not.
        """
        known: dict[str, Any] = {
            "columns": dict(group.extra),
            "prompt_id": group.prompt_id,
            "messages": group.messages,
            "prompt": _last_user_turn(group),
            "words": self.words,
            "lowest": _plain(self.bounds[0]),
            "highest": _plain(self.bounds[1]),
        }
        try:
            text = _compiled(self.source).render({**group.extra, **known, **responses})
        except Exception as error:  # Jinja's own, and what filters raise on a row's values
            return Drop("template_error", f"the judge's template: {first_line(error)}")
        return str(text)


def read_question(options: JudgeOptions) -> Question:
    """Read the template, bon's own where none is named, and check it; loads no model.

    Raises:
        SettingsError: it cannot be read, is not valid Jinja, or does not use its response(s).
    """
    source = _read(options)
    where = str(options.template or "bon's own template")
    used = _variables(source, where)
    missing = sorted(_NEEDED[options.mode] - used)
    if missing:
        raise SettingsError(
            f"the judge's template does not use {{{{ {missing[0]} }}}}",
            where=where,
            why=f"with mode={options.mode} each question is about "
            + ("two responses" if options.mode == "pairwise" else "a response"),
            next_step="put it where the judge should read it; the other placeholders are messages, "
            "prompt and the input's columns",
        )
    return Question(source, _words(options, source, used), options.bounds)


def _read(options: JudgeOptions) -> str:
    if options.template is None:
        name = options.mode.replace("-", "_") + ".jinja"
        return (files("bon.scorers.judge") / "templates" / name).read_text(encoding="utf-8")
    try:
        return Path(options.template).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            "cannot read the judge's template", where=str(options.template), why=str(error)
        ) from None


def _variables(source: str, where: str) -> set[str]:
    from jinja2 import TemplateSyntaxError, meta

    try:
        tree = _environment().parse(source)
    except TemplateSyntaxError as error:
        raise SettingsError(
            "the judge's template is not valid Jinja",
            where=where,
            why=f"line {error.lineno}: {error.message}",
        ) from None
    if any(True for _ in meta.find_referenced_templates(tree)):
        raise SettingsError(
            "the judge's template reads other templates",
            where=where,
            next_step="put all of it into one file",
        )
    return meta.find_undeclared_variables(tree)


def _words(options: JudgeOptions, source: str, used: set[str]) -> tuple[str, str] | None:
    """Return the two words; yes and no in the case in which a template has them last."""
    if options.reads_text:
        return None
    if options.words is not None:
        first, second = (word.strip() for word in options.words.split(","))
        return first, second
    words = _WORDS[options.mode]
    if "words" in used or options.mode != "yes-no":
        return words
    first, second = (_as_written(word, source) for word in words)
    return first, second


def _as_written(word: str, source: str) -> str:
    return str((re.findall(rf"\b{word}\b", source, re.IGNORECASE) or [word])[-1])


def _last_user_turn(group: CandidateGroup) -> str:
    turns = [message["content"] for message in group.messages if message["role"] == "user"]
    return turns[-1] if turns else ""


def _plain(number: float) -> float | int:
    """Return 10 for 10.0, as people write it."""
    return int(number) if number.is_integer() else number


@cache
def _environment() -> Any:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # trimmed as chat templates are: a line that only holds a tag leaves no line behind
    return ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )


@cache
def _compiled(source: str) -> Any:
    return _environment().from_string(source)
