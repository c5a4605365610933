"""What can go wrong with one request to a model server, and what that means."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from bon.errors import ServerError, ServerPathError
from bon.serving.addresses import API_KEY, OPENAI_KEY

__all__ = [
    "Fault",
    "Refused",
    "check_status",
    "excerpt",
    "fault_of",
    "not_promised",
    "parsed",
    "retry_after_s",
]

EXCERPT_CHARS = 200
_BUSY = (408, 425, 429)


class Fault(Exception):
    """Something that may go well when it is asked again."""

    def __init__(
        self, cause: str, detail: str, *, reason: str = "", wait_s: float | None = None
    ) -> None:
        super().__init__(detail)
        self.cause = cause
        """What is counted: `429`, `503`, `timeout`, `connection`, `garbage`."""
        self.detail = detail
        self.reason = reason
        """Of the drop that it may end in; nothing where the request cannot be at fault."""
        self.wait_s = wait_s
        """How long to wait, where the server says so."""

    @property
    def is_busy(self) -> bool:
        """Whether the server says: later."""
        return not self.reason and self.cause != "connection"

    @property
    def is_rate(self) -> bool:
        """Whether more is asked at once than the server takes."""
        return self.cause == "429"


class Refused(Exception):
    """The server takes this request never: its status is 400, 413, 422, …"""


def fault_of(error: Exception, timeout_s: float) -> Fault | None:
    """Return what an error of httpx stands for, none where asking again does not help."""
    import httpx

    said = str(error) or type(error).__name__
    match error:
        case httpx.ConnectError() | httpx.ConnectTimeout() | httpx.ProxyError():
            return Fault("connection", f"no connection: {said}")
        case TimeoutError() | httpx.TimeoutException():
            detail = f"no answer within {timeout_s:g} s"
            return Fault("timeout", detail, reason="server_timeout")
        case httpx.NetworkError() | httpx.RemoteProtocolError():
            return Fault("connection", f"the connection broke: {said}", reason="server_lost")
        case httpx.DecodingError():
            return Fault("garbage", f"a body that cannot be read: {said}", reason="server_garbage")
    return None


def check_status(response: Any, key: str | None) -> None:
    """Raise where an answer is none, by its status.

    `response` is httpx's; `key` the API key, which is never shown.

    Raises:
        ServerError: a wrong key or address: every request would fail alike.
        ServerPathError: there is no such path, or no such model.
        Refused: this request is at fault.
        Fault: it may go well later.
    """
    status, said = response.status_code, excerpt(response.text, key)
    if response.is_success:
        return
    where = f"{response.request.method} {response.request.url}"
    if status in (401, 403):
        raise ServerError(
            f"the server takes no request without the right key ({status})",
            where=where,
            why=f"it was asked {'with' if key else 'without'} a key; it says: {said}",
            next_step=f"set {API_KEY} in the environment ({OPENAI_KEY} is sent to openai.com "
            "alone)",
        )
    if status in (404, 405, 501):
        raise ServerPathError(
            f"the server has no such path, or no such model ({status})",
            where=where,
            why=f"it says: {said}",
            next_step="check the URL (without a path of its own), the model's name (?model=) and "
            "how the server was started",
        )
    if status in _BUSY or status >= 500:
        wait_s = retry_after_s(response.headers.get("Retry-After"))
        reason = "" if status in _BUSY else "server_error"
        raise Fault(str(status), f"status {status}: {said}", reason=reason, wait_s=wait_s)
    if status < 400:
        target = response.headers.get("Location", "")
        raise ServerError(
            f"the server sends elsewhere ({status})",
            where=where,
            why=f"to {excerpt(target, key)}" if target else "it does not say where",
            next_step="give the URL that it leads to",
        )
    raise Refused(f"status {status}: {said}")


def parsed(response: Any, key: str | None) -> Any:
    """Return the JSON of an answer.

    Raises:
        Fault: it is none.
    """
    try:
        return response.json()
    except (ValueError, RecursionError):
        raise not_promised("no JSON", response, key) from None


def not_promised(why: str, response: Any, key: str | None) -> Fault:
    """Return the fault of a body that is not what was promised, with how it begins."""
    detail = f"the server's answer is not what was promised ({why}): {excerpt(response.text, key)}"
    return Fault("garbage", detail, reason="server_garbage")


def retry_after_s(header: str | None) -> float | None:
    """Return the seconds that a Retry-After header says, as a number or as a date."""
    if not header:
        return None
    try:
        wait_s = float(header)
    except ValueError:
        try:
            then = parsedate_to_datetime(header)
        except ValueError:
            return None
        if then.tzinfo is None:
            then = then.replace(tzinfo=UTC)
        wait_s = then.timestamp() - datetime.fromtimestamp(time.time(), UTC).timestamp()
    return max(wait_s, 0.0) if wait_s == wait_s and wait_s != float("inf") else None


def excerpt(text: str, key: str | None) -> str:
    """Return how a text begins, in one line, without the key."""
    if key:
        text = text.replace(key, "***")
    line = " ".join(text[: 2 * EXCERPT_CHARS].split())
    return repr(line[:EXCERPT_CHARS]) if line else "nothing"
