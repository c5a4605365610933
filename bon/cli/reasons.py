"""What `bon` says about what it does and why: on stderr with `-v`, and in a pool's log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["reasons_to"]


class _Handler(logging.Handler):
    def __init__(self, sink: Callable[[str], None]) -> None:
        super().__init__()
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        self._sink(record.getMessage())


@contextmanager
def reasons_to(sink: Callable[[str], None]) -> Iterator[None]:
    """Give a function every text that `bon` logs while the block runs."""
    logger, handler = logging.getLogger("bon"), _Handler(sink)
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
