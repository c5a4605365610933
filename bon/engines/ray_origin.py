"""What a process on any node of a cluster has in common with the command that it works for."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bon import __version__
from bon.errors import EngineError

__all__ = ["Origin"]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a command was started, and with what."""

    folder: Path = field(default_factory=Path.cwd)
    """The working folder, which paths may start from."""
    version: str = __version__

    def enter(self) -> None:
        """Make this process one that can work for it.

        Raises:
            EngineError: its node has another version.
        """
        if self.version != __version__:
            raise EngineError(
                "a node of the Ray cluster has another version of bon",
                why=f"it has {__version__}, here is {self.version}",
                next_step="install the same version of bon-cli on every node",
            )
        with suppress(OSError):  # not on this node: only whole paths are found
            os.chdir(self.folder)
