"""Which models OpenAI-compatible servers have, and what kind of server says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bon.errors import ServerError
from bon.serving.client import ServerClient

__all__ = ["ServedModel", "find_served_model", "is_one_model", "listed_models"]

_PATH = "/v1/models"


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model as its server calls it."""

    id: str
    """Its name in requests."""
    owner: str
    """What the server calls itself, in small letters: vllm, sglang, llamacpp, …"""
    max_length: int | None = None
    """Most tokens of a prompt and its response, where the server says so."""

    @property
    def name(self) -> str:
        """What the model is, without where it lies: its name, of a path the last part."""
        return Path(self.id).name if self.id.startswith(("/", ".", "~")) else self.id


def find_served_model(client: ServerClient, wanted: str | None) -> ServedModel:
    """Ask every server for its models; return the one that is wanted, or their only one.

    A server that lists none is believed to have what is wanted.

    Raises:
        ServerError: a server is not reached, has no such model, or has several and none is named;
            or the servers differ.
    """
    found = [_choose(client.find(_PATH, url), wanted, url) for url in client.urls]
    if len({(one.id, one.owner) for one in found}) > 1:  # one name goes to all of them
        raise ServerError(
            "the servers are not the same",
            where=", ".join(client.urls),
            why=", ".join(f"{one.id} ({one.owner})" for one in found),
            next_step="servers that share the load have one model under one name: ?model=NAME",
        )
    return min(found, key=lambda one: one.max_length or 1 << 62)


def _choose(body: Any, wanted: str | None, url: str) -> ServedModel:
    listed = listed_models(body)
    for row in listed:
        if row["id"] == wanted or (wanted is None and is_one_model(listed)):
            length = row.get("max_model_len")
            return ServedModel(
                row["id"],
                str(row.get("owned_by") or "").lower(),
                length if isinstance(length, int) and length > 0 else None,
            )
    if wanted and not listed:
        return ServedModel(wanted, "")
    shown = ", ".join(row["id"] for row in listed[:20])
    raise ServerError(
        f"the server has no model {wanted!r}"
        if wanted
        else "the server has several models"
        if listed
        else "the server does not say which model it has",
        where=url + _PATH,
        why=f"it has: {shown}" if listed else "it lists none",
        next_step="name one behind the URL: ?model=NAME",
    )


def listed_models(body: Any) -> list[dict[str, Any]]:
    """Return the models that `/v1/models` lists, none where it lists none."""
    rows = body.get("data") if isinstance(body, dict) else None
    rows = rows if isinstance(rows, list) else []
    return [row for row in rows if isinstance(row, dict) and isinstance(row.get("id"), str)]


def is_one_model(listed: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether there is only one, be it under several names.

    Names are known to be of one model where all have the same `root`.
    """
    roots = {str(row.get("root")) for row in listed if row.get("root")}
    return len(listed) == 1 or (len(roots) == 1 and all(row.get("root") for row in listed))
