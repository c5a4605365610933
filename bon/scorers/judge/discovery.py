"""Which model a judge's servers have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bon.errors import ServerError
from bon.serving.addresses import find_api_key
from bon.serving.client import ServerClient

__all__ = ["ServedModel", "find_served_model"]

_PATH = "/v1/models"
_TAKE_VARIABLES = ("vllm", "sglang", "llamacpp")
"""Owners, as these servers call themselves, that hand variables to chat templates."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model as its server calls it."""

    name: str
    takes_variables: bool
    """Whether `chat_template_kwargs` is understood."""


def find_served_model(
    urls: Sequence[str],
    wanted: str | None,
    *,
    concurrency: int,
    timeout_s: float,
    patience_s: float,
) -> ServedModel:
    """Ask every server for its models and return the one that is wanted, or their only one.

    Raises:
        ServerError: a server is not reached, has no such model, or has several and none is named.
    """
    with ServerClient(
        urls,
        concurrency=concurrency,
        timeout_s=timeout_s,
        patience_s=patience_s,
        api_key=find_api_key(urls),
    ) as client:
        found = [_choose(client.get(_PATH, url), wanted, url) for url in urls]
    names = sorted({one.name for one in found})
    if len(names) > 1:
        raise ServerError(
            "the servers have different models",
            where=", ".join(urls),
            why=", ".join(names),
            next_step="start the same model on all of them, or name one: ?model=",
        )
    return ServedModel(names[0], all(one.takes_variables for one in found))


def _choose(body: Any, wanted: str | None, url: str) -> ServedModel:
    try:
        models = {str(one["id"]): str(one.get("owned_by")) for one in body["data"]}
    except (KeyError, TypeError, AttributeError):
        models = {}
    name = wanted or next(iter(models), None)
    if name not in models or (wanted is None and len(models) > 1):
        shown = ", ".join(sorted(models)[:20])
        raise ServerError(
            f"the server has no model {wanted!r}" if wanted else "which model is the judge?",
            where=url + _PATH,
            why=f"it has {shown}" if models else "it names no model",
            next_step="give ?model=NAME behind the URL",
        )
    return ServedModel(name, models[name].lower() in _TAKE_VARIABLES)
