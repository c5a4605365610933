"""Secrets taken out of texts that are shown, logged or stored."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

__all__ = ["HIDDEN", "holds_secret", "redacted", "redacted_command", "redacted_values"]

HIDDEN = "***"
"""Stands where a secret was."""
_OURS = frozenset({"BON_SERVER_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY"})
_LAST_WORDS = frozenset(
    {"APIKEY", "AUTH", "CREDENTIAL", "KEY", "PASS", "PASSWD", "PASSWORD", "PAT", "SECRET", "TOKEN"}
)
"""Of the name of an environment variable that holds a secret."""
_SHORTEST_OURS, _SHORTEST = 5, 8
"""Characters; what is shorter would be found in innocent texts."""

_USER = re.compile(r"(:/{1,2})[^\s/?#'\"<>]+@")
"""One slash where somebody took a URL for a path."""
_QUERY = re.compile(
    r"([?&;](?:[\w.-]*(?:api[_-]?key|token|secret|password|passwd|credential|signature)"
    r"|(?-i:key|auth|sig|pwd|pass))=)[^\s&;#'\"<>]+",
    re.IGNORECASE,
)
_NAMED = re.compile(
    r"((?<![A-Za-z])(?:(?:[\w.-]*[_-])?(?:api[_-]?key|passwd|password|secret)"
    r"|(?:hf|hub|api|auth|access|bearer|refresh|session|client|private)[_-]?token)"
    r"[\"']?\s*[=:]\s*[\"']?)"
    r"(?!(?:null|true|false|none)\b)[^\s\"',}&]+",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE)
_SHAPES = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[\w-]{16,}|gh[pousr]_\w{20,}|github_pat_\w{20,}"
    r"|glpat-[\w-]{16,}|xox[abprs]-[\w-]{10,}|AKIA[0-9A-Z]{16})"
)
"""What keys look like whose makers give them a prefix."""


def redacted(text: str, environment: Mapping[str, str] | None = None) -> str:
    """Return a text with `***` in place of secrets.

    Those are: values of environment variables whose names end like a secret's (`HF_TOKEN`,
    `OPENAI_API_KEY`, …), user and password of a URL, values of parameters and options that are
    named like one (`?api_key=…`, `hf_token=…`), and keys that are known by their prefix (`hf_…`).
    """
    for secret in _secrets(os.environ if environment is None else environment):
        text = text.replace(secret, HIDDEN)
    text = _USER.sub(rf"\1{HIDDEN}@", text)
    text = _QUERY.sub(rf"\1{HIDDEN}", text)
    text = _NAMED.sub(rf"\1{HIDDEN}", text)
    text = _BEARER.sub(rf"\1 {HIDDEN}", text)
    return _SHAPES.sub(HIDDEN, text)


def redacted_values(value: Any, environment: Mapping[str, str] | None = None) -> Any:
    """Return what JSON can hold with `***` in place of secrets in every text and key of it.

    Made into JSON afterwards: in JSON itself, quotes and escapes would be taken for parts of a
    secret, or hide one. What stands under a key that is named like a secret is one. What JSON has
    no form for is given as its text.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        said = {str(key): one for key, one in value.items()}
        return {
            redacted(key, environment): HIDDEN
            if one and not isinstance(one, bool) and _NAMED.search(f"{key}=x")
            else redacted_values(one, environment)
            for key, one in said.items()
        }
    if isinstance(value, list | tuple):
        return [redacted_values(one, environment) for one in value]
    return redacted(str(value), environment)


def holds_secret(value: Any) -> bool:
    """Tell whether a value of JSON has a secret, by its name or form, whatever the environment."""
    return bool(redacted_values(value, {}) != value)


def redacted_command(arguments: Sequence[str]) -> str:
    """Return a command line as a shell takes it, without secrets."""
    return shlex.join(redacted(argument) for argument in _without_values(arguments))


def _without_values(arguments: Sequence[str]) -> list[str]:
    """Hide what stands behind an option that is named like a secret."""
    shown: list[str] = []
    for argument in arguments:
        before = shown[-1] if shown else ""
        is_secret = before.startswith("--") and _says_secret(before[2:])
        shown.append(HIDDEN if is_secret else argument)
    return shown


def _says_secret(name: str) -> bool:
    return re.split(r"[_-]", name.upper())[-1] in _LAST_WORDS


def _secrets(environment: Mapping[str, str]) -> list[str]:
    """Return what may not be shown, the longest first: one may hold another."""
    found = {
        value.strip()
        for name, value in environment.items()
        if len(value.strip()) >= (_SHORTEST_OURS if name in _OURS else _SHORTEST)
        and _says_secret(name)
    }
    # as they stand in URLs and in JSON
    found |= {quote(one, safe="") for one in found} | {json.dumps(one)[1:-1] for one in found}
    return sorted(found, key=len, reverse=True)
