"""The first words with a server: is it there, and what is it?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bon.errors import ServerGoneError
from bon.serving.addresses import find_api_key
from bon.serving.client import ServerClient

__all__ = ["first_contact"]

_FIRST_PATIENCE_S = 10.0
"""Before the first answer a wrong URL is likelier than a server that is on its way."""


@contextmanager
def first_contact(
    urls: Sequence[str], *, timeout_s: float, patience_s: float, otherwise: str
) -> Iterator[ServerClient]:
    """Enter a client that asks one thing after another and soon gives up.

    Raises:
        ServerGoneError: no server is there, with `otherwise` as its message.
    """
    try:
        with ServerClient(
            urls,
            concurrency=1,
            timeout_s=min(timeout_s, 3 * _FIRST_PATIENCE_S),
            patience_s=min(patience_s, _FIRST_PATIENCE_S),
            api_key=find_api_key(urls),
        ) as client:
            yield client
    except ServerGoneError as error:
        raise ServerGoneError(
            otherwise,
            where=error.where,
            why=error.why,
            next_step="start it, or check the URL; then run the same command again",
        ) from error
