"""What a model server says of itself: its kind, its model, and how long a conversation may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bon.errors import ServerError, ServerGoneError
from bon.serving.client import ServerClient
from bon.serving.models import is_one_model, listed_models

__all__ = ["FoundServer", "ServerKind", "find_servers"]

ServerKind = Literal["vllm", "sglang"]
_MODELS = "/v1/models"
_INFO = ("/get_model_info", "/model_info")
"""SGLang's older and newer path."""
_VERSION = "/version"


@dataclass(frozen=True, slots=True)
class FoundServer:
    """What servers that share the load have in common."""

    kind: ServerKind
    model: str
    """What the model is called in requests."""
    root: str
    """Where the server has it from: a hub id, or a folder on the server's machine."""
    tokenizer: str
    """The same of its tokenizer."""
    max_length: int | None
    """Longest conversation in tokens that it takes, where it says so."""

    @property
    def name(self) -> str:
        """What the model is, without where it lies: a hub id, or a folder's own name."""
        is_folder = self.root.startswith(("/", ".", "~")) or self.root.count("/") > 1
        return Path(self.root).name if is_folder else self.root


def find_servers(
    client: ServerClient, model: str | None, kind: ServerKind | None
) -> tuple[FoundServer, list[str]]:
    """Ask every server what it is; returns that, and which of them could not be reached.

    Raises:
        ServerError: none is reached, they differ, or one is no reward server that bon knows.
    """
    found: dict[str, FoundServer] = {}
    lost: dict[str, ServerGoneError] = {}
    for url in client.urls:
        try:
            found[url] = _find(client, url, model, kind)
        except ServerGoneError as error:
            lost[url] = error
    if not found:
        raise next(iter(lost.values()))
    if len({(one.kind, one.name) for one in found.values()}) > 1:
        raise ServerError(
            "the servers are not the same",
            where=", ".join(found),
            why=", ".join(f"{one.kind} with {one.root}" for one in found.values()),
            next_step="give one -r for each model; servers that share the load have the same one",
        )
    return _narrowest(list(found.values())), list(lost)


def _narrowest(found: Sequence[FoundServer]) -> FoundServer:
    """Return the one that takes the shortest conversations."""
    return min(found, key=lambda one: one.max_length or 1 << 62)


def _find(
    client: ServerClient, url: str, model: str | None, kind: ServerKind | None
) -> FoundServer:
    listed = listed_models(client.find(_MODELS, url))
    info = None if kind == "vllm" or "vllm" in _owners(listed) else _info(client, url)
    if kind is None:
        kind = _kind(client, url, listed, info)
    info = info or {}
    if info.get("is_generation") is True:
        raise ServerError(
            "the server's model generates text: it gives no rewards",
            where=url,
            why=f"its model is {info.get('model_path')}",
            next_step="start SGLang with --is-embedding and a reward model",
        )
    chosen = _choose(listed, model, url) if listed else {}
    root = chosen.get("root") or info.get("model_path") or chosen.get("id") or model
    if not root:
        raise ServerError(
            "the server does not say which model it has",
            where=url + _MODELS,
            next_step="name it: ?model=NAME&tokenizer=FOLDER_OR_HUB_ID",
        )
    length = chosen.get("max_model_len") or info.get("max_context_length")
    return FoundServer(
        kind,
        str(chosen.get("id") or model or root),
        str(root),
        str(info.get("tokenizer_path") or root),
        length if isinstance(length, int) and length > 0 else None,
    )


def _owners(listed: Sequence[Mapping[str, Any]]) -> set[str]:
    return {str(row.get("owned_by")).lower() for row in listed}


def _info(client: ServerClient, url: str) -> dict[str, Any] | None:
    for path in _INFO:
        info = client.find(path, url)
        if isinstance(info, dict) and isinstance(info.get("model_path"), str):
            return info
    return None


def _kind(
    client: ServerClient,
    url: str,
    listed: Sequence[Mapping[str, Any]],
    info: dict[str, Any] | None,
) -> ServerKind:
    if info is not None or "sglang" in _owners(listed):
        return "sglang"
    version = None if "vllm" in _owners(listed) else client.find(_VERSION, url)
    if "vllm" in _owners(listed) or (isinstance(version, dict) and "version" in version):
        return "vllm"
    raise ServerError(
        "it cannot be told what kind of server this is",
        where=url,
        why=f"neither {_MODELS} nor {_INFO[0]} nor {_VERSION} says so",
        next_step="check the URL; or say it: ?kind=vllm or ?kind=sglang",
    )


def _choose(listed: Sequence[Mapping[str, Any]], wanted: str | None, url: str) -> Mapping[str, Any]:
    """Return the model that is wanted; of several names for one model, any."""
    for row in listed:
        if row["id"] == wanted or (wanted is None and is_one_model(listed)):
            return row
    raise ServerError(
        f"the server has no model {wanted!r}" if wanted else "the server has several models",
        where=url + _MODELS,
        why="it has: " + ", ".join(str(row["id"]) for row in listed[:20]),
        next_step="name one: ?model=NAME",
    )
