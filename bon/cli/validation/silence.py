"""What libraries print while they look at a model is kept from the report."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["silenced"]


@contextmanager
def silenced(*, is_loud: bool) -> Iterator[None]:
    """Send both standard streams nowhere in this block; where it is loud, stdout to stderr.

    Some libraries print from C, and one of them logs to stdout, where the result goes: so the
    descriptors themselves are turned.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    silent = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(kept[1] if is_loud else silent, 1)
        if not is_loud:
            os.dup2(silent, 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, descriptor in enumerate(kept, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.close(silent)
