"""What an object store refuses, read from the words of pyarrow's file systems, and what helps."""

from __future__ import annotations

import re

from bon.errors import SystemFaultError, first_line

__all__ = ["is_missing", "is_passing", "is_store_fault", "is_unreachable", "store_fault"]

_AWS = re.compile(
    r"AWS Error (?P<code>\w+)(?: \(HTTP status (?P<status>\d+)\))? "
    r"during \w+ operation: ?(?P<why>.*)"
)
_REQUEST = re.compile(r" ?\((?:Request ID|RequestId)[^)]*\)|, (?:Request|Host)Id: \S+")
_GOOGLE = re.compile(r"google::cloud::Status\((?P<code>\w+): (?P<why>.*)")
_CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role of this machine that may "
    "read, write, list and delete there"
)
_BUCKET = "make the bucket first, or look at its spelling and at AWS_ENDPOINT_URL"
_NETWORK = "look at the network, at AWS_ENDPOINT_URL and at AWS_REGION"
_LATER = "wait: the store has too much to do, or fails for the moment"
_ADVICE = {
    "NO_SUCH_BUCKET": _BUCKET,
    "ACCESS_DENIED": _CREDENTIALS,
    "INVALID_ACCESS_KEY_ID": _CREDENTIALS,
    "INVALID_CLIENT_TOKEN_ID": _CREDENTIALS,
    "SIGNATURE_DOES_NOT_MATCH": _CREDENTIALS,
    "MISSING_AUTHENTICATION_TOKEN": _CREDENTIALS,
    "EXPIRED_TOKEN": f"the credentials have expired: {_CREDENTIALS}",
    "PERMISSION_DENIED": "log in with `gcloud auth application-default login`, or choose another "
    "bucket",
    "UNAUTHENTICATED": "log in with `gcloud auth application-default login`",
    "NETWORK_CONNECTION": _NETWORK,
    "REQUEST_TIMEOUT": _NETWORK,
    "UNAVAILABLE": _LATER,
    "DEADLINE_EXCEEDED": _LATER,
    "INTERNAL_FAILURE": _LATER,
    "SERVICE_UNAVAILABLE": _LATER,
    "SLOW_DOWN": _LATER,
    "THROTTLING": _LATER,
}
"""By the store's code: what a person can do, without what then follows."""
_PASSING = frozenset(code for code, step in _ADVICE.items() if step in (_LATER, _NETWORK))
_WORDS_KNOWN = frozenset({"s3", "gs", "gcs"})
"""Schemes whose stores say a code where they, or the way to them, fail."""
_FINAL = (
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    NotADirectoryError,
    IsADirectoryError,
)
"""What says by its kind that asking again is of no use."""
_AGAIN = "; then run the same command again; what is committed stays"


def is_store_fault(error: BaseException) -> bool:
    """Tell whether an error was said by an object store, or on the way to it."""
    return isinstance(error, OSError) and _parsed(error) is not None


def is_missing(error: BaseException) -> bool:
    """Tell whether an object was deleted between its opening and its reading."""
    found = _parsed(error)
    return found is not None and found[0] == "NO_SUCH_KEY"


def is_passing(error: BaseException, scheme: str) -> bool:
    """Tell whether the same request may succeed a little later; unknown words may mean that too."""
    found = _parsed(error)
    if found is None:
        return scheme not in _WORDS_KNOWN and not isinstance(error, _FINAL)
    return found[0] in _PASSING


def is_unreachable(error: BaseException) -> bool:
    """Tell whether nobody answered at all."""
    found = _parsed(error)
    return found is not None and found[0] == "NETWORK_CONNECTION"


def store_fault(error: BaseException, where: str) -> SystemFaultError:
    """Return an error that says what the store refuses, and what helps."""
    code, why = _parsed(error) or ("", first_line(error))
    step = _ADVICE.get(code, "look at the address and at the credentials")
    return SystemFaultError(
        "the object store refuses",
        where=where,
        why=f"{why} ({code})" if code else why,
        next_step=step + _AGAIN,
    )


def _parsed(error: BaseException) -> tuple[str, str] | None:
    text = " ".join(str(error).split())
    found = _AWS.search(text) or _GOOGLE.search(text)
    if found is None:
        return None
    if (found.groupdict().get("status") or "").startswith("5"):
        return "SERVICE_UNAVAILABLE", f"it answers with status {found['status']}"
    why = _REQUEST.sub("", found["why"]).strip().rstrip(".")
    return found["code"].upper(), why or "it gives no reason"
