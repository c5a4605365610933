"""What a command reads, and where it writes."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias

from bon.cli.flags import Invocation
from bon.config import InputSettings, ResponseSettings
from bon.errors import SettingsError
from bon.places import Place, lies_in, place
from bon.pool.layout import PoolLayout
from bon.sources.locate import COMPRESSIONS, FORMATS, find_files
from bon.sources.patterns import is_pattern, would_match
from bon.sources.responses import recognise_kind

__all__ = [
    "SourceKind",
    "check_apart",
    "check_places",
    "default_pool",
    "input_stem",
    "is_pool",
    "source_kind",
]

SourceKind: TypeAlias = Literal["pool", "prompts", "responses", "pairs"]


def is_pool(source: str) -> bool:
    """Tell whether a source is a pool rather than a prompt file."""
    return PoolLayout(place(source)).is_pool


def default_pool(source: str, output: Place | None) -> Place:
    """Return the pool's folder where none was given: beside the output, named after the input."""
    return (output.parent if output else Path()) / f"{input_stem(source)}.pool"


def input_stem(source: str) -> str:
    """Return the name that outputs take after their input."""
    name = PurePosixPath(source.rstrip("/")).name
    while Path(name).suffix.lower() in (*FORMATS, *COMPRESSIONS, ".pool"):
        name = Path(name).stem
    return re.sub(r"[*?\[\]:]+", "", name).strip("-_. ") or "prompts"


def check_places(source: str, *written: Place) -> None:
    """Refuse to write where the input is read from: the next run would read its own result.

    Raises:
        InputError: the input is not there.
        SettingsError: a place to write is the input, or would be a part of it.
    """
    files = {file.path.resolve() for file in find_files(source) or ()}
    for path in (path.resolve() for path in written if isinstance(path, Path)):
        in_folder = Path(source).is_dir() and path.is_relative_to(Path(source).resolve())
        in_pattern = is_pattern(source) and would_match(source, path)
        if path in files or in_folder or in_pattern:
            raise SettingsError(
                "the output would lie in the input",
                where=str(path),
                why=f"{source} would be read with it the next time",
                next_step="give -o (and --pool) a place outside the input",
            )


def check_apart(root: Place, *written: Place) -> None:
    """Refuse a result in the pool's folder, and a pool in the result's folder.

    Raises:
        SettingsError: one would overwrite the other, or be taken for a part of it.
    """
    pool = root.resolve()
    for path in (path.resolve() for path in written):
        if lies_in(path, pool) or lies_in(pool, path):
            raise SettingsError(
                "the output and the pool would lie in each other",
                where=str(path),
                why=f"{root} holds the candidates that were paid for, and nothing else",
                next_step="give -o (or --pool) a place outside the other",
            )


def source_kind(call: Invocation) -> SourceKind:
    """Tell what a command's source is.

    Raises:
        InputError: it is a file that cannot be read.
    """
    if is_pool(call.source):
        return "pool"
    return recognise_kind(
        call.source, call.settings(InputSettings), call.settings(ResponseSettings)
    )
