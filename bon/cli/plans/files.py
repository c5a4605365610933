"""Texts that settings name by their file."""

from __future__ import annotations

import hashlib
from pathlib import Path

from bon.errors import SettingsError

__all__ = ["read_text", "text_digest"]


def read_text(path: Path | None, flag: str) -> str | None:
    """Read the file that a flag names, none where it names none.

    Raises:
        SettingsError: it cannot be read.
    """
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"cannot read the file of {flag}", where=str(path), why=str(error)
        ) from None


def text_digest(text: str | None) -> str | None:
    """Return what stands for a text in a fingerprint."""
    return text and hashlib.sha256(text.encode()).hexdigest()[:16]
