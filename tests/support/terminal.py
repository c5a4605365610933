"""Runs the real `bon` under a pseudo-terminal, and finds what no terminal should be given."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

from support.commands import ROOT

_OURS = re.compile(r"\x1b\[[0-9;]*m|\x1b\[\?25[lh]|\x1b\[[0-9]*[AK]|\r\n|\r|\n")
"""What rich and typer emit: colours, the cursor's hiding, erasing and moving up a line."""
_BIDI = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})


def on_terminal(*arguments: object, cwd: Path) -> tuple[int, str]:
    """Run `bon` with stdout and stderr on a terminal; return its exit code and all it printed."""
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "bon", *map(str, arguments)],
        cwd=cwd,
        env=environment(TERM="xterm-256color"),
        stdin=its,
        stdout=its,
        stderr=its,
    )
    os.close(its)
    found = b""
    while True:
        try:
            piece = os.read(ours, 1 << 16)
        except OSError:  # Linux: the last one that wrote has closed it
            break
        if not piece:
            break
        found += piece
    os.close(ours)
    return process.wait(timeout=60), found.decode("utf-8", "surrogateescape")


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment, `bon` importable from any folder."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160", **more}


def unsafe(text: str, *, is_terminal: bool = False) -> set[str]:
    """Return the characters of an output that control a terminal and are not rich's own."""
    left = _OURS.sub("", text) if is_terminal else text.replace("\n", "")
    return {
        one
        for one in left
        if unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp")
        or unicodedata.bidirectional(one) in _BIDI
    }
