"""What the process of `rule:math` does: math-verify; imports nothing of `bon`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from typing import Any

__all__ = ["prepare"]


def prepare(setup: None) -> Callable[[Any], bool]:
    r"""Return a function that tells whether an answer equals a reference, given as a pair.

    An answer that begins with `\boxed{` is taken as one formula, in any other one is looked for.
    """
    import math_verify

    logging.disable(logging.CRITICAL)  # it warns that its own time limits are off

    def parsed(text: str) -> Any:
        # a box that cannot be parsed must not be searched for some number in it
        boxed = text.startswith("\\boxed{")
        mode = "first_match" if boxed else "any_match"
        return math_verify.parse(text, extraction_mode=mode, parsing_timeout=None)

    reference_parsed = lru_cache(maxsize=64)(parsed)

    def equal(request: Any) -> bool:
        reference, answer = request
        return bool(
            math_verify.verify(reference_parsed(reference), parsed(answer), timeout_seconds=None)
        )

    # the first one compiles: not at a user's cost
    equal(("\\boxed{\\frac{1}{2}}", "it is 0.5"))
    return equal
