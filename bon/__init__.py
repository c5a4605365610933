"""`bon`: best-of-N sampling and data curation for people who align language models."""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing takes longer than all else here
if TYPE_CHECKING:
    from typing import Any

    from bon.api import RewardFunction, load_scorer

__all__ = ["RewardFunction", "__version__", "load_scorer"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import what `bon` offers in Python when it is first named: `import bon` stays light."""
    if name in __all__:
        from bon import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
