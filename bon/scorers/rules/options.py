"""What stands behind the `?` of a rule."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeVar

from bon.config import ScorerSettings
from bon.config.base import Settings
from bon.config.scorer_spec import parse_options
from bon.errors import SettingsError

__all__ = ["NoOptions", "check_pattern", "one_pattern", "read_option_file", "read_options", "where"]

S = TypeVar("S", bound=Settings)


class NoOptions(Settings):
    """A rule without options."""


def where(settings: ScorerSettings) -> str:
    """Return the place of a rule's options, for messages."""
    return f"-r {settings.spec}"


def read_options(group: type[S], settings: ScorerSettings) -> S:
    """Return a rule's options.

    Raises:
        SettingsError: one that it does not have, a missing one, or a value that does not fit.
    """
    return parse_options(group, settings.options, where(settings))


def read_option_file(path: Path, option: str, settings: ScorerSettings) -> str:
    """Read the text file that an option names.

    Raises:
        SettingsError: it cannot be read.
    """
    try:
        return path.expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"cannot read the file of the option {option!r}",
            where=f"{where(settings)}: {path}",
            why=getattr(error, "strerror", None) or str(error),
        ) from None


def one_pattern(
    pattern: str | None, path: Path | None, settings: ScorerSettings, or_else: str = ""
) -> str:
    """Return the pattern that was said, or that a file holds without the line break at its end.

    `or_else` is what else could have been said, for the message.

    Raises:
        SettingsError: both were said or neither, or the file cannot be read.
    """
    if (pattern is None) == (path is None):
        raise SettingsError(
            "it needs a pattern" if pattern is None else "there are two patterns",
            where=where(settings),
            next_step=f"give ?pattern=… or ?pattern_file=FILE{or_else}",
        )
    if path is not None:
        return read_option_file(path, "pattern_file", settings).removesuffix("\n")
    assert pattern is not None
    return pattern


def check_pattern(
    pattern: str, settings: ScorerSettings, flags: re.RegexFlag = re.NOFLAG
) -> re.Pattern[str]:
    """Compile a pattern.

    Raises:
        SettingsError: it is not a regular expression.
    """
    try:
        return re.compile(pattern, flags)
    except (re.error, RecursionError, OverflowError) as error:
        raise SettingsError(
            f"bad pattern {pattern!r}",
            where=where(settings),
            why=f"not a regular expression: {error}",
            next_step="write it as Python's re takes it, with %26 for & and %25 for %",
        ) from None
