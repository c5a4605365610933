"""Damage done to files for real, and files as versions wrote them that knew less."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq

from bon.durable import PARQUET_OPTIONS
from bon.pool.files import SEALED
from bon.pool.notes import NOTE


def flip_bit(path: Path, byte: int | None = None, bit: int = 4) -> None:
    """Flip one bit, by default in the middle of the file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if byte is None else byte] ^= 1 << bit
    path.write_bytes(content)


def truncate(path: Path, share: float = 0.5) -> None:
    """Cut a file off behind this share of its bytes."""
    os.truncate(path, int(path.stat().st_size * share))


def as_older(path: Path) -> None:
    """Write a part as a version did that put no note and no checksum into the footer."""
    table = pq.read_table(path)
    said = dict(table.schema.metadata or {})
    for name in (NOTE.encode(), SEALED):
        said.pop(name, None)
    pq.write_table(table.replace_schema_metadata(said), path, **PARQUET_OPTIONS)


def pool_as_older(root: Path) -> None:
    """Write a whole pool as an older version did."""
    for path in root.rglob("*.parquet"):
        as_older(path)


def swap(one: Path, other: Path) -> None:
    """Let two files change places."""
    aside = one.with_suffix(".aside")
    shutil.move(one, aside)
    shutil.move(other, one)
    shutil.move(aside, other)


def parts_of(folder: Path) -> dict[str, bytes]:
    """Return the content of every part of the pools in a folder, or of one pool."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("part-*.parquet"))
        if ".bon" not in path.parts
    }


def assert_nothing_lost(
    folder: Path, before: dict[str, bytes], whole: dict[str, bytes] | None = None
) -> None:
    """Assert that each part that was there is there, set aside, or as the whole run makes it.

    With `whole`, new parts too must be as the whole run makes them.
    """
    now = parts_of(folder)
    aside = [path.read_bytes() for path in folder.rglob(".bon/damaged/**/part-*")]
    for name, content in before.items():
        made_again = name in now and whole is not None and now[name] == whole.get(name)
        assert now.get(name) == content or made_again or content in aside, name
    for name, content in now.items():
        assert whole is None or content in (before.get(name), whole.get(name)), name
