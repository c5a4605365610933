"""Whether a judge behind a server has its two words as tokens, where the server tells."""

from __future__ import annotations

from bon.errors import ServerError
from bon.scorers.judge.words import no_token, spellings
from bon.serving.client import ServerClient, ServerRequest
from bon.serving.models import ServedModel

__all__ = ["check_served_words"]

_PATH = "/tokenize"
_HAVE_IT = frozenset({"vllm", "sglang"})
"""Servers, as they call themselves, that say which tokens a text is."""


def check_served_words(client: ServerClient, model: ServedModel, words: tuple[str, str]) -> bool:
    """Return whether each word is known to be a token, with or without a space before it.

    Raises:
        ModelError: the server says that one is not.
    """
    if model.owner not in _HAVE_IT:
        return False
    for word in words:
        for text in spellings(word):
            num_tokens = _num_tokens(client, model, text)
            if num_tokens is None:
                return False
            if num_tokens == 1:
                break
        else:
            raise no_token(word, ", ".join(client.urls))
    return True


def _num_tokens(client: ServerClient, model: ServedModel, text: str) -> int | None:
    """Return how many tokens a text is; none where the server does not tell."""
    body = {"model": model.id, "prompt": text, "add_special_tokens": False}
    try:
        reply = client.ask(ServerRequest("tokens", _PATH, body))
    except ServerError:  # no such path, or one that a gateway does not let through
        return None
    tokens = reply.body.get("tokens") if isinstance(reply.body, dict) else None
    return len(tokens) if isinstance(tokens, list) else None
