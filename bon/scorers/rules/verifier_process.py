"""Program of the process that `Verifier` talks to; imports nothing of `bon`.

Each line of stdin is a JSON list of reference and answer; each reply on stdout is one byte.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import sys
from functools import lru_cache
from typing import Any

_MAX_BYTES = 4 << 30
"""Address space: a power tower must not take the machine's memory."""


def main(limit_s: float) -> None:
    """Answer until stdin ends."""
    replies = _claim_stdout()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # the limit kills, even inside C code
    _limit_memory()
    equal = _comparison()
    equal("\\boxed{\\frac{1}{2}}", "it is 0.5")  # the first one compiles: not at a user's cost
    os.write(replies, b"+")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the parser writes a line for every odd token
    for line in sys.stdin.buffer:
        reference, answer = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, limit_s)
        verdict = equal(reference, answer)
        signal.setitimer(signal.ITIMER_PROF, 0)
        os.write(replies, b"1" if verdict else b"0")


def _claim_stdout() -> int:
    """Keep stdout for replies; whatever a library prints goes to stderr."""
    replies = os.dup(1)
    os.dup2(2, 1)
    return replies


def _limit_memory() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = _MAX_BYTES if hard == resource.RLIM_INFINITY else min(_MAX_BYTES, hard)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    except (OSError, ValueError):  # macOS has the name but not the limit
        return


def _comparison() -> Any:
    import math_verify

    logging.disable(logging.CRITICAL)  # it warns that its own time limits are off

    def parsed(text: str) -> Any:
        # a box that cannot be parsed must not be searched for some number in it
        boxed = text.startswith("\\boxed{")
        mode = "first_match" if boxed else "any_match"
        return math_verify.parse(text, extraction_mode=mode, parsing_timeout=None)

    reference_parsed = lru_cache(maxsize=64)(parsed)

    def equal(reference: str, answer: str) -> bool:
        return bool(
            math_verify.verify(reference_parsed(reference), parsed(answer), timeout_seconds=None)
        )

    return equal


if __name__ == "__main__":
    main(float(sys.argv[1]))
