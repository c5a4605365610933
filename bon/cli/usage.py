"""Errors of the command line's own parser, safe to show: file names may be of others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from typer.core import TyperGroup

from bon.shown import shown

__all__ = ["Commands"]


class Commands(TyperGroup):
    """All commands; what the parser quotes of a command line has no escapes and no secrets."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Parse what stands before the command."""
        with _shown_errors():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Parse the command's own flags, and run it."""
        with _shown_errors():
            return super().invoke(ctx)


@contextmanager
def _shown_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # typer's own copy of click: its exceptions have no public name; help is no quotation
        if hasattr(error, "format_message") and type(error).__name__ != "NoArgsIsHelpError":
            error.message = shown(str(getattr(error, "message", "")))  # type: ignore[attr-defined]
        raise
