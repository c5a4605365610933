"""Where model servers are, as a person says it, and the key that is sent to them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from urllib.parse import SplitResult, urlsplit

from bon.errors import SettingsError

__all__ = ["API_KEY", "OPENAI_KEY", "find_api_key", "is_openai", "parse_urls"]

API_KEY = "BON_SERVER_API_KEY"
"""Environment variable whose value is sent to every server that is named."""
OPENAI_KEY = "OPENAI_API_KEY"
"""Environment variable that is sent to OpenAI's own servers alone, where `API_KEY` is not set."""
_OPENAI_HOST = "openai.com"
_ADVICE = "give server:http://HOST:PORT, several with a comma between them"


def parse_urls(text: str) -> tuple[str, ...]:
    """Return the base URLs that `URL[,URL…]` names, without a `/v1` or `/` at their end.

    Raises:
        SettingsError: one is no http or https URL, holds a password or a query, or is there twice.
    """
    urls = tuple(_checked(one.strip()) for one in text.split(","))
    twice = {url for url in urls if urls.count(url) > 1}
    if twice:
        raise SettingsError(f"the server {sorted(twice)[0]} is named twice", next_step=_ADVICE)
    return urls


def _checked(said: str) -> str:
    if "@" in said:  # nothing of it is shown: anything before or after may be of the password
        raise SettingsError(
            "a server URL may not hold a user or a password",
            why="URLs are shown in messages",
            next_step=f"set {API_KEY} in the environment",
        )
    try:
        parts = urlsplit(said)
        _ = parts.port  # raises where it is no number
    except ValueError:  # it tells what it cannot read, which may be of a password
        raise SettingsError(
            "bad server URL", why="its host or its port cannot be read", next_step=_ADVICE
        ) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError(f"{said!r} is no http or https URL", next_step=_ADVICE)
    if parts.query or parts.fragment:
        raise SettingsError(
            f"the server URL of {parts.hostname} has a query or a fragment", next_step=_ADVICE
        )
    path = parts.path.rstrip("/").removesuffix("/v1")
    return SplitResult(parts.scheme, parts.netloc, path, "", "").geturl()


def find_api_key(urls: Sequence[str], environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the key to send to all of these servers, none where there is none.

    `BON_SERVER_API_KEY` goes to any server; `OPENAI_API_KEY` only to openai.com over https, so that
    it never reaches a server that it was not made for.

    Raises:
        SettingsError: the key cannot stand in a header.
    """
    name = API_KEY
    key = environment.get(API_KEY, "").strip()
    if not key and all(is_openai(url) for url in urls):
        name = OPENAI_KEY
        key = environment.get(OPENAI_KEY, "").strip()
    if not all(33 <= ord(letter) <= 126 for letter in key):
        raise SettingsError(
            f"the key in {name} has a space or a letter that no HTTP header can hold",
            next_step="set it again",
        )
    return key or None


def is_openai(url: str) -> bool:
    """Tell whether a server is one of OpenAI's own."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return parts.scheme == "https" and (host == _OPENAI_HOST or host.endswith(f".{_OPENAI_HOST}"))
