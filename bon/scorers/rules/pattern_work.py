"""What the process of rules with a pattern does: `re`; imports nothing of `bon`."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import Any

__all__ = ["prepare"]


def prepare(setup: Any) -> Callable[[str], bool | str | None]:
    """Return a function that does to a text what the setup's `how` says.

    `search`: tell whether the pattern is found in it. `fullmatch`: tell whether all of it fits the
    pattern, in which `.` is a line break too. `last`: return what `group` is in the pattern's last
    match, none where there is no match, or the group has no part in it. `verdict`: return the first
    group of the last match that has a part in it, all of the match where there are none.
    """
    how, group = setup["how"], setup["group"]
    pattern = re.compile(setup["pattern"], re.DOTALL if how == "fullmatch" else re.NOFLAG)

    def last(text: str) -> str | None:
        matches = deque(pattern.finditer(text), maxlen=1)
        return matches[0][group] if matches else None

    def verdict(text: str) -> str | None:
        matches = deque(pattern.finditer(text), maxlen=1)
        if not matches:
            return None
        return next((one for one in matches[0].groups() if one is not None), matches[0][0])

    if how in ("last", "verdict"):
        return last if how == "last" else verdict
    match = pattern.fullmatch if how == "fullmatch" else pattern.search
    return lambda text: match(text) is not None
