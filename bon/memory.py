"""A lack of memory, told apart from other errors: every library says it in its own words."""

from __future__ import annotations

import errno

__all__ = ["FREE_MEMORY", "is_lack_of_memory"]

FREE_MEMORY = (
    "free memory that other programs hold, or take a smaller model or a data type of half the size"
)
"""What to do next where a model does not fit."""
_WORDS = (
    "out of memory",
    "allocate memory",  # cannot, can't
    "not enough memory",
    "alloc_failed",
    "bad_alloc",
)


def is_lack_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory, of the machine or an accelerator, ran out."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError | OSError) and any(words in text for words in _WORDS)
